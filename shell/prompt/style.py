"""The colours of the prompt: the terminal's own sixteen, so that they fit every theme."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prompt_toolkit.styles import Style

if TYPE_CHECKING:
    from prompt_toolkit.output import ColorDepth

STYLE = {
    "prompt": "ansigreen bold",
    "prompt.bad": "ansired bold",
    "prompt.place": "ansicyan",
    "prompt.context": "ansiyellow",
    "prompt.more": "ansibrightblack",
    "line.command": "ansigreen",
    "line.option": "ansicyan",
    "line.value": "",
    "line.string": "ansiyellow",
    "line.name": "ansimagenta",
    "line.missing": "ansired",
    "line.wrong": "ansired underline",
    "line.sign": "bold",
    "line.file": "ansiyellow",
    "line.foreign": "ansiyellow",
    "line.comment": "ansibrightblack",
    "completion-menu.completion": "bg:ansigray ansiblack",
    "completion-menu.completion.current": "bg:ansiblue ansiwhite noreverse",
    "completion-menu.meta.completion": "bg:ansigray ansibrightblack",
    "completion-menu.meta.completion.current": "bg:ansiblue ansigray noreverse",
    "completion.matched": "bold underline",
    "auto-suggestion": "ansibrightblack",
    "bottom-toolbar": "noreverse",
    "bottom-toolbar.text": "noreverse",
    "pane.rule": "ansibrightblack",
    "pane": "",
    "pane.title": "bold",
    "pane.strong": "ansicyan",
    "pane.dim": "ansibrightblack",
    "status": "reverse",
    "status.name": "reverse bold",
    "status.dim": "reverse",
    "status.key": "reverse bold",
    "status.leader": "reverse",
    "status.nodes": "reverse",
    "status.vms": "reverse",
    "status.context": "reverse",
    "status.good": "reverse",
    "status.busy": "reverse bold",
    "status.bad": "bg:ansired ansiwhite bold noreverse",
    "status.fault": "bg:ansired ansiwhite bold noreverse",
}


def style() -> Style:
    """As prompt-toolkit has it."""
    return Style.from_dict(STYLE)


def depth(colour: str) -> ColorDepth | None:
    """How many colours: none when the user wants none; None leaves it to the terminal."""
    from prompt_toolkit.output import ColorDepth

    if colour == "off" or (colour == "auto" and "NO_COLOR" in os.environ):
        return ColorDepth.DEPTH_1_BIT
    return ColorDepth.DEPTH_4_BIT

"""Answers to a shell's Tab: what could come next, in the form that bash, zsh and fish understand.
Never disturbs who is typing: without a cluster or with a mistake there is simply nothing to offer.
"""

from __future__ import annotations

import os
import sys

import click

INSTRUCTION = "_PVC_COMPLETE"
"""In this variable of the environment a shell says what it wants: "bash_complete"."""


def answer(root: click.Command) -> int:
    """Prints what could come next; gives the exit code."""
    from click.shell_completion import get_completion_class

    shell, _, verb = os.environ[INSTRUCTION].partition("_")
    kind = get_completion_class(shell)
    if kind is None or verb != "complete":
        return 1
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.stderr.fileno())
    try:
        click.echo(kind(root, {}, "pvc", INSTRUCTION).complete())
    except Exception:  # noqa: BLE001 - a mistake here must not spoil a command line
        return 1
    return 0

"""Offers as prompt-toolkit wants them, and what is known of the cluster and of this machine's files
at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText

from shell.columns import ids
from shell.prompt.fuzzy import matched
from shell.prompt.kinds import PARTS
from shell.prompt.offers import Offer, Offers
from shell.render import clean, cut

if TYPE_CHECKING:
    from shell.live import Live

HELP_WIDTH = 50
FILES_MAX = 2000
"""Of larger folders only so many entries are looked at."""
SHOWN_MAX = 60
"""Cells that a text takes in the menu."""


class Memory:
    """What is known without asking anybody: see Known."""

    def __init__(self, live: Callable[[], Live]) -> None:
        self._live = live
        self.missed = False
        """Somebody looked for names before they had come."""

    def names(
        self, collection: str, typed: str, limit: int, parent: str = ""
    ) -> Sequence[tuple[str, str]]:
        """See Known."""
        if collection in PARTS:
            return self._parts(collection, parent, typed)
        rows = self._live().rows(f"{collection}:{parent}" if parent else collection)
        self.missed = self.missed or not rows.known  # before they are read: they may come meanwhile
        found = ((name, rows.find(name)) for name in rows.best(typed, limit))
        return [(name, told.help) for name, told in found if told is not None]

    def _parts(self, collection: str, parent: str, typed: str) -> list[tuple[str, str]]:
        """The drives and interfaces of a VM, with what is in them."""
        vm = self._live().rows("vms").row(parent)
        found = getattr(vm.spec, collection.partition(".")[2]) if vm is not None else ()
        told = [(one.id, ids(getattr(one, PARTS[collection]))) for one in found]
        return [(name, help) for name, help in told if matched(name, typed)]

    def files(self, typed: str) -> Sequence[tuple[str, str]]:
        """See Known."""
        return files(typed)

    def connections(self) -> Sequence[tuple[str, str]]:
        """See Known."""
        return connections()


def connections() -> list[tuple[str, str]]:
    """The connections in the user's file, with what they say of themselves."""
    from shell.connections import Connections

    try:
        found = Connections().all()
    except click.ClickException:  # a broken file: commands say what is wrong with it
        return []
    return [(name, one.description or one.address) for name, one in found.items()]


def files(typed: str) -> list[tuple[str, str]]:
    """Files and folders that a path could become; hidden ones when a dot is typed."""
    stem = typed.rpartition("/")[2]
    before = typed[: len(typed) - len(stem)]
    place = Path(before or ".").expanduser()
    found = []
    try:
        with os.scandir(place) as entries:
            for entry, _ in zip(entries, range(FILES_MAX), strict=False):
                if entry.name.startswith(".") and not stem.startswith("."):
                    continue
                is_folder = entry.is_dir()
                found.append((f"{before}{entry.name}{'/' if is_folder else ''}",
                              "folder" if is_folder else ""))  # fmt: skip
    except OSError:
        return []
    return sorted(found)


class LineCompleter(Completer):
    """Completes what is typed. Never waits, never fails."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """See Completer."""
        for offer in self._offers.at(document.text, document.cursor_position):
            yield completion(offer)


def completion(offer: Offer) -> Completion:
    """One offer in the menu: matched letters stand out, the meaning stands beside it."""
    return Completion(
        offer.ready or offer.text,
        -offer.back,
        display=FormattedText(displayed(offer)),
        display_meta=cut(clean(offer.help), HELP_WIDTH),
    )


def displayed(offer: Offer) -> list[tuple[str, str]]:
    """The text in pieces: the letters that fit what is typed, and the others."""
    text = cut(clean(offer.text), SHOWN_MAX)
    places = set(offer.match.places) if offer.match is not None else set()
    pieces: list[tuple[str, str]] = []
    for place, letter in enumerate(text):
        style = "class:completion.matched" if place in places else ""
        if pieces and pieces[-1][0] == style:
            pieces[-1] = (style, pieces[-1][1] + letter)
        else:
            pieces.append((style, letter))
    return pieces or [("", "")]

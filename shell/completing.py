"""Answers to a shell's Tab: what could come next on a command line, in the form that the scripts
for bash, zsh and fish understand. Offers what pvc-shell offers.

Never disturbs who is typing: without a cluster or with a mistake there is simply nothing to offer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

ASKED = "_PVC_COMPLETE"
"""In this variable of the environment a shell says that it wants completions, and which it is."""
LINE, WORD = "_PVC_LINE", "_PVC_WORD"
"""The command line up to the cursor, and the end of it that will be replaced."""
PROGRAM = "pvc"
LOCAL_S, REMOTE_S = 0.5, 0.3
"""Names that take longer to find are not completed."""
NAMES_MAX = 500


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the end of the line could become."""

    text: str
    help: str = ""
    goes_on: bool = False
    """More of the same word follows: no space after it."""


def answer(root: click.Group, environment: Mapping[str, str], out: Any) -> int:
    """Prints what could come next, a line each: a mark, the text, what it means. Gives the exit
    code."""
    try:
        found, files = completions(root, environment.get(LINE, ""), environment.get(WORD, ""))
    except Exception:  # noqa: BLE001 - a mistake here must not spoil a command line
        return 1
    for one in found:
        out.write(f"{'part' if one.goes_on else 'word'}\t{one.text}\t{one.help}\n")
    if files:
        out.write("files\t\t\n")
    return 0


def completions(root: click.Group, line: str, word: str) -> tuple[list[Candidate], bool]:
    """What the last `word` of a line could become; whether it may be a file too."""
    from shell.prompt.offers import Offers

    before = arguments_in(line)
    known = Known(root, before)
    found = Offers(root, known, Plain()).at(before, len(before))
    return candidates(found, before, word), known.wants_files


def arguments_in(line: str) -> str:
    """The line behind the name of the program."""
    words = line.lstrip().split(" ")
    for place, word in enumerate(words):
        if Path(word).name == PROGRAM:
            return " ".join(words[place + 1 :]).lstrip()
    return " ".join(words[1:]).lstrip()


def candidates(offers: Sequence[Any], before: str, word: str) -> list[Candidate]:
    """Offers as ends of the line, those alone that go on with what is typed."""
    kept = len(before) - len(word)
    found = []
    for offer in offers:
        line = before[: len(before) - offer.back] + offer.ready
        if line.startswith(before):
            help = " ".join(offer.help.split())
            found.append(Candidate(line[kept:], help, offer.goes_on))
    return found


class Plain:
    """The language of a command line: nothing but the commands."""

    builtins = stages = None
    context = ""
    place: Sequence[str] = ()

    def expanded(self, words: Sequence[str]) -> list[str]:
        """See Speech."""
        return list(words)

    def aliases(self) -> Sequence[tuple[str, str]]:
        """See Speech."""
        return ()

    queries = aliases

    def values(self, setting: str) -> Sequence[tuple[str, str]]:
        """See Speech."""
        return ()


class Away(Exception):
    """Nobody answers."""


def only_once(call: Any) -> None:
    """Is told of every call. Raises Away instead of letting a failed one be tried again: somebody
    waits with a finger on the key."""
    if call.outcome != "OK":
        raise Away


class Known:
    """What is in the cluster that the command line speaks to, asked for when it matters."""

    def __init__(self, root: click.Group, before: str) -> None:
        self._root = root
        self._before = before
        self.wants_files = False

    def files(self, typed: str) -> Sequence[tuple[str, str]]:
        """None: shells know files better."""
        self.wants_files = True
        return ()

    def connections(self) -> Sequence[tuple[str, str]]:
        """See shell.prompt.offers.Known."""
        from shell.connections import Connections

        found = Connections().all()
        return [(name, one.description or one.address) for name, one in found.items()]

    def names(
        self, collection: str, typed: str, limit: int, parent: str = ""
    ) -> Sequence[tuple[str, str]]:
        """Names that begin with what is typed, with a few words on each."""
        from shell.prompt.kinds import PARTS, kind_of

        opened = None if collection in PARTS else self._session()
        if opened is None:
            return []
        kind = kind_of(f"{collection}:{parent}" if parent else collection)
        from pvc_client import PvcError
        from pvc_client.names import last_id, short_name

        called = last_id if parent else short_name
        with opened as session, suppress(PvcError, Away):
            session.cluster.transport.on_call = only_once
            rows = attrgetter(collection)(session.cluster).list(
                read_mask=kind.mask, page_size=NAMES_MAX, parent=parent
            )
            found = [(called(row.name), kind.told(row)) for row in islice(rows, NAMES_MAX)]
            return [(name, told) for name, told in found if name.startswith(typed)]
        return []

    def _session(self) -> Any:
        """A connection of its own, as the options of the line have it, closed when it is left; None
        when nobody can be there."""
        from shell.language.cursor import cursor_in
        from shell.session import Session

        words = list(cursor_in(self._before).words)
        given = self._root.make_context(PROGRAM, words, resilient_parsing=True).params
        address, token, ca = (given.get(key) or "" for key in ("connection", "token_file", "ca"))
        found = Session(address, token, ca).address
        if found.startswith("unix:") and not Path(found[5:]).exists():
            return None
        from pvc_client.addresses import is_loopback

        near = is_loopback(found)
        wait_s = LOCAL_S if near else REMOTE_S
        return closing(Session(address, token, ca, timeout_s=wait_s))

"""What was begun at this prompt and goes on behind it: tells when it has ended, once each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from shell.columns import enum_word, ids, last
from shell.failures import DONE, FAILED
from shell.live import Live, short
from shell.render import clean

ENDED = ("succeeded", "failed", "cancelled")


class Jobs:
    """Operations that nobody waits for any more. Any thread may ask."""

    def __init__(self, going: set[str], live: Callable[[], Live]) -> None:
        """going: the names of those that were left behind; whoever leaves one adds it."""
        self._going = going
        self._live = live
        self._lock = threading.Lock()
        self._seen: set[str] = set()

    def ended(self) -> Sequence[tuple[int, str]]:
        """Those that have ended since one last asked: the code and a sentence for each."""
        rows = self._live().rows("operations")
        told = []
        with self._lock:
            for name in sorted(self._going):
                row = rows.row(short(name))
                if row is None and name in self._seen:
                    self._forget(name)  # it was removed: nothing is known of how it ended
                elif row is not None and enum_word(row, "state") in ENDED:
                    self._forget(name)
                    told.append(sentence(row))
                elif row is not None:
                    self._seen.add(name)
        return told

    def _forget(self, name: str) -> None:
        self._going.discard(name)
        self._seen.discard(name)


def sentence(operation: Any) -> tuple[int, str]:
    """What came of it: "[done] StartVm web", "[failed] StartVm web: no node has room"."""
    state = enum_word(operation, "state")
    what = f"{last(operation.method)} {ids(operation.target)}"
    if state == "succeeded":
        return DONE, f"[done] {clean(what)}"
    why = operation.error.message
    return FAILED, f"[{state}] {clean(f'{what}: {why}' if why else what)}"

"""The validators find what is wrong: each in a good history that was spoiled in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.state.memory import MemoryStore
from tests.watching.histories import (
    ADDED,
    BOOKMARK,
    DELETED,
    MODIFIED,
    PRESENT,
    Asked,
    History,
    Reading,
    Seen,
    Vm,
)
from tests.watching.stories import Writer, Written
from tests.watching.validators import VALIDATORS, complaints

Spoil = Callable[[list[Seen], list[Seen]], object]


def good() -> History:
    """Two streams of one reader, as they should be; at revisions 1 to 6."""
    writer = Writer(MemoryStore())
    writer.write(Written("a", 2000, "web"), Written("b", 2000, "web"))
    writer.write(Written("a", 3000, "web"), Written("c", 3000, "web"), Written("d", 1500, "db"))
    writer.write(Written("b", 500, "web"))
    writer.write(Written("c", 4000, "web"))
    writer.write(Written("a", None, "web"))
    writer.write(Written("d", 2500, "db"))
    asked = Asked("spec.memory.memory_mib > 1000")
    at = writer.truth.state
    first = [
        Seen(PRESENT, at(1)["vms/a"], 0),
        Seen(PRESENT, at(1)["vms/b"], 0),
        Seen(BOOKMARK, None, 1),
        Seen(MODIFIED, at(2)["vms/a"], 1),
        Seen(ADDED, at(2)["vms/c"], 1),
        Seen(ADDED, at(2)["vms/d"], 2),
        Seen(DELETED, at(2)["vms/b"], 3),
    ]
    second = [
        Seen(MODIFIED, at(4)["vms/c"], 4),
        Seen(DELETED, at(2)["vms/a"], 5),
        Seen(MODIFIED, at(6)["vms/d"], 6),
        Seen(BOOKMARK, None, 6),
    ]
    streams = Reading(asked, first), Reading(replace(asked, from_revision=3), second)
    return History(writer.truth, streams)


def test_a_good_history_is_good() -> None:
    assert complaints(good()) == []


def swapped(seen: list[Seen], here: int) -> None:
    seen[here], seen[here + 1] = seen[here + 1], seen[here]


def put(seen: list[Seen], place: int, **fields: object) -> None:
    seen[place] = replace(seen[place], **fields)  # type: ignore[arg-type]


def without_memory(row: Vm | None) -> Vm:
    other = Vm.FromString(row.SerializeToString() if row else b"")
    other.spec.ClearField("memory")
    return other


SPOILT: dict[str, tuple[str, Spoil]] = {
    "changes out of order": ("ordered", lambda _, b: swapped(b, 0)),
    "a revision that goes back": ("ordered", lambda _, b: put(b, 3, revision=4)),
    "a change twice": ("unique", lambda _, b: b.insert(1, b[0])),
    "a row twice in the beginning": ("unique", lambda a, _: a.insert(0, a[0])),
    "a revision that is not over yet": ("atomic", lambda a, _: put(a, 3, revision=2)),
    "a commit in the middle of another": ("atomic", lambda a, _: a.insert(4, a[6])),
    "a change left out": ("reliable", lambda _, b: b.pop(1)),
    "the rest of a commit left out": ("reliable", lambda a, _: a.pop(5)),
    "resumed too late": ("resumable", lambda _, b: b.pop(0)),
    "resumed too early": ("resumable", lambda a, b: b.insert(0, a[6])),
    "a snapshot on a resumed stream": ("resumable", lambda a, b: b.insert(0, a[0])),
    "a bookmark too early": ("bookmarkable", lambda _, b: swapped(b, 2)),
    "a bookmark with a row": ("bookmarkable", lambda a, b: put(b, 3, row=a[0].row)),
    "a row missing in the beginning": ("whole", lambda a, _: a.pop(1)),
    "a change that is no row's begin": ("filtered", lambda a, _: put(a, 4, kind=MODIFIED)),
    "a row that does not match": ("filtered", lambda a, b: put(b, 0, row=a[0].row)),
    "a field that was not sent": (
        "masked", lambda _, b: put(b, 0, row=without_memory(b[0].row)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_wrong_is_found(spoilt: str) -> None:
    promise, spoil = SPOILT[spoilt]
    history = good()
    spoil(history.readings[0].seen, history.readings[1].seen)
    assert list(VALIDATORS[promise](history))


def test_every_validator_is_tried() -> None:
    assert {promise for promise, _ in SPOILT.values()} == set(VALIDATORS)

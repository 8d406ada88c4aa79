"""The promises of a watch, each as a function that reads a history and says where it was broken.

The names are those by which etcd documents its own watches; four more are PVC's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from tests.watching.histories import (
    BOOKMARK,
    DELETED,
    FILTERS,
    PRESENT,
    History,
    Reading,
    Seen,
    changes_in,
    cut,
)

Complaints = Iterator[str]
Validator = Callable[[History], Complaints]


def ordered(history: History) -> Complaints:
    """Changes come in the order of their commits, and the revisions never go back."""
    for reading, changes in history.streams():
        for (_, first), (late, second) in pairwise(changes):
            if second < first:
                yield f"{late.name} of {second} after one of {first}"
        said = [one.revision for one in reading.seen if one.kind != PRESENT]
        for earlier, later in pairwise(said):
            if later < earlier:
                yield f"revision {later} after {earlier}"


def unique(history: History) -> Complaints:
    """No change comes twice on one stream, and nothing is there twice in the beginning."""
    for reading, changes in history.streams():
        told = [(one.name, commit) for one, commit in changes]
        told += [(one.name, -1) for one in reading.seen if one.kind == PRESENT]
        for name, commit in {one for one in told if told.count(one) > 1}:
            yield f"{name} of {commit} came {told.count((name, commit))} times"


def atomic(history: History) -> Complaints:
    """What was changed together comes together; and no revision is said to be reached before all of
    it came, so that nobody resumes behind a part that is missing."""
    truth = history.truth
    for reading, changes in history.streams():
        for place, (one, commit) in enumerate(changes):
            whole = truth.changes(commit, reading.asked.filter) if commit else {}
            came = {other.name for other, at in changes[: place + 1] if at == commit}
            if one.revision >= commit and came < set(whole):
                yield f"{one.name} says {commit} is over; still to come: {set(whole) - came}"
            later = [at for _, at in changes[place + 1 :]]
            if commit in later and any(at != commit for at in later[: later.index(commit)]):
                yield f"another commit in the middle of {commit}"


def reliable(history: History) -> Complaints:
    """Nothing is left out: between where a stream begins and where it has come to, every change."""
    truth = history.truth
    for reading, changes in history.streams():
        came = {(one.name, commit) for one, commit in changes}
        for commit in truth.between(_began(reading, changes), _covered(reading, changes)):
            for name in truth.changes(commit, reading.asked.filter):
                if (name, commit) not in came:
                    yield f"{name} of {commit} never came"


def resumable(history: History) -> Complaints:
    """A stream that resumes begins with the very next change, and with no change of before."""
    truth = history.truth
    for reading, changes in history.streams():
        after = reading.asked.from_revision
        if not after or not changes:
            continue
        if any(one.kind == PRESENT for one in reading.seen):
            yield f"a snapshot, though it resumes from {after}"
        first = min(commit for _, commit in changes)
        due = truth.between(after, first)
        meant = [at for at in due if truth.changes(at, reading.asked.filter)]
        if first <= after or meant[:1] != [first]:
            yield f"resumed from {after}, and the first was of {first}"


def bookmarkable(history: History) -> Complaints:
    """Whoever gets a bookmark has got everything up to it, and gets nothing of before any more."""
    truth = history.truth
    for reading, changes in history.streams():
        began = _began(reading, changes)
        for place, mark in enumerate(reading.seen):
            if mark.kind != BOOKMARK:
                continue
            if mark.row is not None:
                yield f"the bookmark {mark.revision} carries a row"
            sofar = changes_in(Reading(reading.asked, reading.seen[:place]))
            came = {(one.name, history.commit_of(one)) for one in sofar}
            for commit in truth.between(began, mark.revision):
                missing = set(truth.changes(commit, reading.asked.filter)) - {
                    name for name, at in came if at == commit
                }
                if missing:
                    yield f"bookmark {mark.revision} before {missing} of {commit}"
            for one, commit in changes[len(sofar) :]:
                if commit <= mark.revision:
                    yield f"{one.name} of {commit} after the bookmark {mark.revision}"


def whole(history: History) -> Complaints:
    """The opening snapshot and the changes up to a bookmark make the state at that bookmark."""
    for reading in history.readings:
        if reading.asked.from_revision:
            continue
        rows: dict[str, str] = {}
        for one in reading.seen:
            if one.kind == BOOKMARK:
                yield from _differences(history, reading, rows, one.revision)
            elif one.kind == DELETED:
                rows.pop(one.name, None)
            else:
                rows[one.name] = _text(one)


def filtered(history: History) -> Complaints:
    """A row that begins to match is added, one that ceases to is deleted as it last was, and what
    does not match is never seen."""
    for reading, changes in history.streams():
        for one, commit in changes:
            due = history.truth.changes(commit, reading.asked.filter).get(one.name)
            if due is None or due[0] != one.kind:
                yield f"{one.name} of {commit} came as {one.kind}, not as {due and due[0]}"
        for one in reading.seen:
            known = one.row is not None and not reading.asked.mask
            if known and not FILTERS[reading.asked.filter](one.row):  # type: ignore[arg-type]
                yield f"{one.name} does not match and came"


def masked(history: History) -> Complaints:
    """Rows come with the fields that were asked for, as they were written."""
    for reading, changes in history.streams():
        for one, commit in changes:
            due = history.truth.changes(commit, reading.asked.filter).get(one.name)
            if due is not None and _text(one) != str(cut(due[1], reading.asked.mask)):
                yield f"{one.name} of {commit} is not what was written"


VALIDATORS: Mapping[str, Validator] = {
    "ordered": ordered,
    "unique": unique,
    "atomic": atomic,
    "reliable": reliable,
    "resumable": resumable,
    "bookmarkable": bookmarkable,
    "whole": whole,
    "filtered": filtered,
    "masked": masked,
}


def complaints(history: History) -> list[str]:
    """What all of them say, each line with the name of the promise."""
    return [f"{name}: {said}" for name, check in VALIDATORS.items() for said in check(history)]


def _began(reading: Reading, changes: list[tuple[Seen, int]]) -> int:
    """The revision after which a stream owes every change. Of one that begins with a snapshot it is
    only known that it lies before the first change, and not after the first bookmark."""
    if reading.asked.from_revision:
        return reading.asked.from_revision
    marks = [one.revision for one in reading.seen if one.kind == BOOKMARK]
    return min([commit - 1 for _, commit in changes] + marks, default=0)


def _covered(reading: Reading, changes: list[tuple[Seen, int]]) -> int:
    """The last revision of which everything must have come: the last commit may have been cut."""
    marks = [one.revision for one in reading.seen if one.kind == BOOKMARK]
    last = max((commit for _, commit in changes), default=0)
    return max([last - 1, *marks, reading.newest])


def _differences(
    history: History, reading: Reading, rows: Mapping[str, str], revision: int
) -> Complaints:
    meant = FILTERS[reading.asked.filter]
    due = {
        name: str(cut(row, reading.asked.mask))
        for name, row in history.truth.state(revision).items()
        if meant(row)
    }
    for name in sorted(due.keys() | rows.keys()):
        if rows.get(name) != due.get(name):
            yield f"{name} is wrong or missing at {revision}"


def _text(seen: Seen) -> str:
    assert seen.row is not None
    return str(cut(seen.row, ()))

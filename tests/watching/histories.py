"""What was written and what readers of watches were told, recorded for the validators to compare.

A history knows nothing of how a watch works: what was written comes from the writer, what was seen
from the reader, and what a filter means is said here once more, in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.field_mask_pb2 import FieldMask

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import meta_pb2

Vm = vm_pb2.Vm
PRESENT, ADDED, MODIFIED, DELETED, BOOKMARK = (
    meta_pb2.CHANGE_KIND_PRESENT,
    meta_pb2.CHANGE_KIND_ADDED,
    meta_pb2.CHANGE_KIND_MODIFIED,
    meta_pb2.CHANGE_KIND_DELETED,
    meta_pb2.CHANGE_KIND_BOOKMARK,
)
STAMP = "stamp"
"""The label by which a row tells when it was written; it is unique to each writing."""
MASKS: tuple[tuple[str, ...], ...] = (
    (),
    ("name", "meta.labels"),
    ("name", "meta.labels", "spec.memory.memory_mib"),
)
"""All keep the name and the stamp."""


def _any(_: Vm) -> bool:
    return True


def _big(vm: Vm) -> bool:
    return vm.spec.memory.memory_mib > 1000


def _web(vm: Vm) -> bool:
    return vm.meta.labels.get("tier", "") == "web"


FILTERS: Mapping[str, Callable[[Vm], bool]] = {
    "": _any,
    "spec.memory.memory_mib > 1000": _big,
    'meta.labels.tier = "web"': _web,
    'meta.labels.tier = "web" AND spec.memory.memory_mib > 1000': lambda vm: _web(vm) and _big(vm),
}
"""What is asked for, and what it means."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A Watch request."""

    filter: str = ""
    mask: tuple[str, ...] = ()
    from_revision: int = 0
    at_least: int = 0
    """The revision that the answer must not be older than: what the reader knows already."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One message of a stream. row: None in a bookmark."""

    kind: int
    row: Vm | None
    revision: int

    @property
    def name(self) -> str:
        return self.row.name if self.row is not None else ""


@dataclass(slots=True)
class Reading:
    """One stream, from its request to where it broke off. ended: the reason, "" for the reader's
    own wish."""

    asked: Asked
    seen: list[Seen] = field(default_factory=list)
    ended: str = ""

    @property
    def newest(self) -> int:
        """What its reader resumes from; 0 when it can only begin anew."""
        return max((one.revision for one in self.seen), default=self.asked.from_revision)


@dataclass(slots=True)
class Truth:
    """What was really written: revision → name → row, None where it was deleted."""

    begin: int
    """The revision before the first commit; there are no rows then."""
    commits: dict[int, dict[str, Vm | None]] = field(default_factory=dict)
    _states: dict[int, dict[str, Vm]] = field(default_factory=dict)

    def wrote(self, revision: int, rows: Mapping[str, Vm | None]) -> None:
        """Takes in a commit. Rows are copied."""
        copies: dict[str, Vm | None] = {}
        for name, row in rows.items():
            copies[name] = None if row is None else Vm.FromString(row.SerializeToString())
        self.commits[revision] = copies
        self._states.clear()

    def state(self, revision: int) -> dict[str, Vm]:
        """The rows as they were at a revision."""
        if revision in self._states or revision <= self.begin:
            return self._states.get(revision, {})
        rows = dict(self.state(revision - 1))
        for name, row in self.commits.get(revision, {}).items():
            if row is None:
                rows.pop(name, None)
            else:
                rows[name] = row
        self._states[revision] = rows
        return rows

    def changes(self, revision: int, filter: str) -> dict[str, tuple[int, Vm]]:
        """What a commit means to somebody with that filter: name → kind and row."""
        before, after, meant = self.state(revision - 1), self.state(revision), FILTERS[filter]
        found: dict[str, tuple[int, Vm]] = {}
        for name in self.commits.get(revision, ()):
            old = before[name] if name in before and meant(before[name]) else None
            new = after[name] if name in after and meant(after[name]) else None
            if new is not None:
                found[name] = (ADDED if old is None else MODIFIED, new)
            elif old is not None:
                found[name] = (DELETED, old)
        return found

    def between(self, after: int, upto: int) -> list[int]:
        """The revisions of commits after one revision and up to another."""
        return sorted(at for at in self.commits if after < at <= upto)

    def stamped(self, stamp: str) -> int:
        """The revision at which the row with that stamp was written; 0 when never."""
        for revision, rows in self.commits.items():
            for row in rows.values():
                if row is not None and row.meta.labels[STAMP] == stamp:
                    return revision
        return 0


@dataclass(frozen=True, slots=True)
class History:
    """What one reader saw, in the order of its streams, beside what was true."""

    truth: Truth
    readings: tuple[Reading, ...]

    def streams(self) -> Iterator[tuple[Reading, list[tuple[Seen, int]]]]:
        """Each reading, its changes with the revisions of the commits that made them."""
        for reading in self.readings:
            yield reading, [(one, self.commit_of(one)) for one in changes_in(reading)]

    def commit_of(self, seen: Seen) -> int:
        """The revision of the commit that a change tells of, found by the row it carries; 0 when
        there was none."""
        assert seen.row is not None
        written = self.truth.stamped(seen.row.meta.labels[STAMP])
        if seen.kind != DELETED or not written:
            return written
        # It is carried as it last was: what made it go is the next thing that happened to it.
        later = (at for at in sorted(self.truth.commits) if at > written)
        return next((at for at in later if seen.name in self.truth.commits[at]), 0)


def changes_in(reading: Reading) -> list[Seen]:
    """What is neither of the opening snapshot nor a bookmark."""
    return [one for one in reading.seen if one.kind in (ADDED, MODIFIED, DELETED)]


def cut(row: Vm, mask: tuple[str, ...]) -> Vm:
    """The row as a reader with that mask should see it; what the store itself adds is left out."""
    shown = Vm()
    if mask:
        FieldMask(paths=mask).MergeMessage(row, shown)
    else:
        shown.CopyFrom(row)
    shown.meta.etag = ""
    if not shown.meta.ByteSize():
        shown.ClearField("meta")
    return shown

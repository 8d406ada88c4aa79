"""Random stories against a dict: whatever is done, a store and its watch say what the dict says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from services.mesh.errors import PvcError
from services.state.memory import MemoryStore
from services.state.sqlite import SqliteStore
from services.state.store import ANY_VERSION, Change, Conflict, Delete, Lease, Put, Store
from tests.state.places import texts, vm

NAMES = st.sampled_from(["a", "b", "c"])
ETAGS = st.sampled_from(["", "right", "wrong", ANY_VERSION])
CHANGES = st.dictionaries(
    NAMES, st.tuples(ETAGS, st.none() | st.text(max_size=5)), min_size=0, max_size=3
)


class Story(RuleBasedStateMachine):
    """One process on one state; `make` opens it, and again when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, tuple[str, int]] = {}
        self.revision = 0
        self.lease: Lease | None = None
        self.held = False

    def make(self) -> Store:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.store = self.make()
        self.watch = self.store.watch(0)
        self.watched: dict[str, str] = {}

    @rule(wanted=CHANGES, with_lease=st.booleans())
    def commit(self, wanted: dict[str, tuple[str, str | None]], with_lease: bool) -> None:
        lease = self.lease if with_lease else None
        changes = [c for n, (etag, text) in wanted.items() if (c := self.change(n, etag, text))]
        try:
            revision = self.store.commit(changes, held_by=lease)
        except PvcError as error:
            assert error.reason_name == "NOT_LEADER"
            assert lease is not None
            assert not self.held
        except Conflict as conflict:
            assert any(not self.fits(c) for c in changes)
            assert conflict.name.startswith("vms/")
        else:
            assert lease is None or self.held
            assert all(self.fits(change) for change in changes)
            self.happened(changes, revision)

    @rule()
    def acquire(self) -> None:
        lease = self.store.acquire("leader", "me")
        assert lease is not None
        assert (lease is self.lease) == self.held
        self.lease, self.held = lease, True

    @rule()
    def release(self) -> None:
        if self.lease is not None:
            self.lease.release()
            self.held = False

    @rule()
    def reopen(self) -> None:
        if self.survives:
            self.store.close()
            self.store = self.make()
            self.watch = self.store.watch(self.revision)
            self.watched = texts(self.store)
            self.held = False

    survives = False

    @invariant()
    def says_what_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        snapshot = self.store.snapshot()
        assert snapshot.revision == self.revision
        assert texts(self.store) == {f"vms/{n}": text for n, (text, _) in self.model.items()}
        for name, (_, revision) in self.model.items():
            row = snapshot.named(f"vms/{name}")
            assert row is not None
            assert row.meta.etag == str(revision)  # type: ignore[attr-defined]
        assert dict(snapshot.leases) == ({"leader": "me"} if self.held else {})

    @invariant()
    def the_watch_arrives_at_the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        while commit := self.watch.next(0):
            for row in commit.rows:
                before = row.before.spec.description if row.before else None  # type: ignore[attr-defined]
                assert self.watched.get(row.name) == before
                self.watched.pop(row.name, None)
                if row.value is not None:
                    self.watched[row.name] = row.value.spec.description  # type: ignore[attr-defined]
        assert self.watched == texts(self.store)

    def change(self, name: str, etag: str, text: str | None) -> Change | None:
        there = self.model.get(name)
        if etag == "right":
            etag = str(there[1]) if there else ""
        elif etag == "wrong":
            etag = str(self.revision + 1)
        if text is not None:
            return Put(vm(name, text, etag))
        return Delete(f"vms/{name}", etag) if etag else None

    def fits(self, change: Change) -> bool:
        name, etag = self.wanted(change)
        there = self.model.get(name)
        return etag in (ANY_VERSION, str(there[1]) if there else "")

    @staticmethod
    def wanted(change: Change) -> tuple[str, str]:
        if isinstance(change, Delete):
            return change.name.removeprefix("vms/"), change.etag
        row = change.value
        return row.name.removeprefix("vms/"), row.meta.etag  # type: ignore[attr-defined]

    def happened(self, changes: list[Change], revision: int) -> None:
        real = [c for c in changes if isinstance(c, Put) or self.wanted(c)[0] in self.model]
        self.revision += bool(real)
        assert revision == self.revision
        for change in real:
            name = self.wanted(change)[0]
            if isinstance(change, Delete):
                del self.model[name]
            else:
                self.model[name] = (change.value.spec.description, revision)  # type: ignore[attr-defined]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


class MemoryStory(Story):
    """Forgets when it is closed, so it never is."""

    def make(self) -> Store:
        return MemoryStore()


class SqliteStory(Story):
    """On a real file."""

    survives = True

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    def make(self) -> Store:
        return SqliteStore(Path(self.folder.name) / "state.db")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize(("story", "examples"), [(MemoryStory, 120), (SqliteStory, 40)])
def test_any_story(story: type[Story], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        story,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None, derandomize=True
        ),
    )

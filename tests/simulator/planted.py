"""Mistakes that are made on purpose, one at a time: each must be found, or the simulator is blind.

A mistake is a context manager that changes the real code for as long as it lasts, and the seed that
is known to find it; when the code changes another one may, see `python -m tests.simulator
--planted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from services.state import changes
from services.state.store import Lease
from tests.simulator.store import SimStore


@dataclass(frozen=True, slots=True)
class Planted:
    """One mistake. seed: one that finds it; finds: a part of what is found."""

    name: str
    plant: Callable[[], AbstractContextManager[Any]]
    seed: int
    finds: str


@contextmanager
def etag_ignored() -> Iterator[None]:
    """A writer with an old mirror overwrites what others wrote."""

    def unchecked(change: Any, there: Any) -> None:
        pass

    with mock.patch.object(changes, "_check_version", unchecked):
        yield


@contextmanager
def leader_remembered() -> Iterator[None]:
    """A coordinator that once led goes on leading, and writes without proving that it does."""
    with remembered("leader"):
        yield


@contextmanager
def presence_remembered() -> Iterator[None]:
    """An agent goes on writing, and so starts VMs, when its session is lost."""
    with remembered("nodes/"):
        yield


@contextmanager
def remembered(prefix: str) -> Iterator[None]:
    """Leases of that kind are acquired once, and never checked after that."""
    commit, acquire = SimStore.commit, SimStore.acquire

    def trusting(self: SimStore, given: Sequence[Any], held_by: Lease | None = None) -> int:
        trusted = held_by is not None and held_by.name.startswith(prefix)
        return commit(self, given, None if trusted else held_by)

    def once(self: SimStore, name: str, holder: str) -> Lease | None:
        known = self.remembered(name) if name.startswith(prefix) else None
        return known or acquire(self, name, holder)

    with (
        mock.patch.object(SimStore, "commit", trusting),
        mock.patch.object(SimStore, "acquire", once),
    ):
        yield


PLANTED: tuple[Planted, ...] = (
    Planted("etag-ignored", etag_ignored, 8, "is not for"),
    Planted("leader-remembered", leader_remembered, 7, "without the lease leader"),
    Planted("presence-remembered", presence_remembered, 0, "without the lease nodes/"),
)

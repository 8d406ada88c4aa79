"""Stores that misbehave as real ones do: slow to hear of commits, or away for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.state.memory import MemoryCluster, MemoryStore
from services.state.mirror import Mirror, MirrorWatch
from services.state.store import Change, Lease, Snapshot


class LateStore(MemoryStore):
    """Hears of the commits of others `delay_s` late, and of its own at once, like a mirror does."""

    def __init__(self, cluster: MemoryCluster, delay_s: float) -> None:
        super().__init__(cluster)
        self._delay_s = delay_s
        self._own = Mirror()
        self._source = cluster.mirror.watch(0)
        self._taking = threading.Lock()
        cluster.mirror.on_change(self._later)

    def _later(self) -> None:
        revision = super().snapshot().revision
        timer = threading.Timer(self._delay_s, self._take, [revision])
        timer.daemon = True
        timer.start()

    def _take(self, revision: int) -> None:
        with self._taking:
            while self._own.snapshot.revision < revision:
                commit = self._source.next(0.0)
                assert commit is not None
                self._own.apply(commit.revision, {row.name: row.value for row in commit.rows})

    def snapshot(self) -> Snapshot:
        return self._own.snapshot

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        revision = super().commit(changes, held_by)
        self._take(revision)
        return revision

    def wait(self, revision: int, timeout_s: float) -> None:
        self._own.wait(revision, timeout_s)

    def watch(self, after: int) -> MirrorWatch:
        return self._own.watch(after)

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._own.on_change(wake)


class FlakyStore(MemoryStore):
    """A store that is away for chosen commits; `written` says whether such a commit is done."""

    def __init__(self, cluster: MemoryCluster | None = None) -> None:
        super().__init__(cluster)
        self.away: Callable[[Sequence[Change]], bool] = lambda changes: False
        self.written = False

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        if not self.away(changes):
            return super().commit(changes, held_by)
        if self.written:
            super().commit(changes, held_by)
        raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "the store did not answer")

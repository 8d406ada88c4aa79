"""Long work on pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pvc.storage.v1 import storage_service_pb2
from pvc.storage.v1.storage_pb2 import Snapshot
from services.mesh.errors import PvcError
from services.mesh.jobs import Job, Outcome, Task
from services.state.store import Delete, Put
from services.storage.core import converge, pools
from services.storage.core.accept import PREFIX, Pool, Volume, packed
from services.storage.workshop import Workshop


class PoolJobs:
    """See the module."""

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop

    def methods(self) -> Mapping[str, Job]:
        """Method → job."""
        return {f"{PREFIX}CreatePool": self.create, f"{PREFIX}DeletePool": self.delete}

    def create(self, task: Task) -> Outcome:
        """Takes the folder; on failure nothing is left of it but a folder that was made for it."""
        pool = self._shop.row(Pool, task.target)
        task.undo.callback(self._shop.drop, pool.name)
        task.stage(f"taking the folder {pool.spec.directory.path}")
        place = self._shop.place_of(pool)
        if pool.spec.shared:
            # Made anew for each attempt: another one may have run on a node where the folder is
            # not the same one, and that must come to light.
            place = replace(place, mark=task.clock.new_id())
        task.undo.callback(self._shop.driver.close_pool, place)
        facts = self._shop.driver.open_pool(place, make=True)
        files = self._shop.driver.list(place)
        seen = converge.Seen(
            "",
            facts.capacity_bytes,
            facts.available_bytes,
            {file.path: file.allocated_bytes for file in files},
            facts.mark,
        )

        def ready() -> Pool:
            snapshot = self._shop.store.snapshot()
            row = self._shop.row(Pool, pool.name)
            finding = converge.pool_finding(snapshot, row, seen, self._shop.node)
            assert finding is not None and isinstance(finding.row, Pool)
            return finding.row

        return Outcome(packed(ready()), lambda: [Put(ready())])

    def delete(self, task: Task) -> Outcome:
        """Takes our marks out of the folder, then the row away."""
        store = self._shop.store
        pool = store.snapshot().find(Pool, task.target)
        if pool is None:
            return Outcome(None, list)
        task.undo.callback(self._shop.change, Pool, pool.name, _stay)
        if task.request(storage_service_pb2.DeletePoolRequest).force:
            self._forget(task, pool)
        else:
            pools.check_no_volumes(store.snapshot(), pool.name)
            task.stage(f"leaving the folder {pool.spec.directory.path}")
            self._shop.driver.close_pool(self._shop.place_of(pool))
        return Outcome(None, lambda: [Delete(pool.name, "*")])

    def _forget(self, task: Task, pool: Pool) -> None:
        """The rows of what is lost go, some at a time; cut off, the rest goes next time."""
        store = self._shop.store
        pools.check_lost(store.snapshot(), pool)
        task.stage(f"forgetting the volumes of {pool.name}")
        snapshot = store.snapshot()
        for volume in snapshot.rows(Volume, pool.name):
            task.check()
            taken = snapshot.rows(Snapshot, volume.name)
            gone = [Delete(row.name, row.meta.etag) for row in taken]
            store.commit([*gone, Delete(volume.name, volume.meta.etag)])
        try:
            self._shop.driver.close_pool(self._shop.place_of(pool))
        except PvcError as error:
            task.log(f"its folder is left as it is: {error.message}")


def _stay(pool: Pool) -> None:
    pool.meta.ClearField("delete_time")

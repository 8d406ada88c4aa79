"""Work on VMs that is more than converging: reset, deletion, clones, snapshots of whole VMs.

Each job may be cut anywhere and is then begun again: what it asks of others carries request ids
made from its operation, and what it did is undone when it fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.core import copies
from services.compute.core.edits import own_volumes
from services.compute.core.life import given_up
from services.compute.core.methods import method
from services.compute.core.status import RUNNING, WHILE_ON, state_name
from services.compute.drivers.hypervisor import Hypervisor
from services.compute.open_disks import OpenVolumes
from services.compute.volumes import VolumeService, wait_for
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.desk import Call
from services.mesh.errors import PvcError, not_found
from services.mesh.jobs import Job, Outcome, Task
from services.state.store import Change, Conflict, Delete, Put, Snapshot, Store

RELEASE_S = 300.0
"""How long the agent may take to end and forget a VM that is being deleted."""
START_S = 1800.0
COMMIT_TRIES = 20


class VmJobs:
    """One node's."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: str,
        hypervisor: Hypervisor,
        volumes: VolumeService,
        open_volumes: OpenVolumes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._hypervisor = hypervisor
        self._volumes = volumes
        self._open = open_volumes

    def methods(self) -> Mapping[str, Job]:
        """Method → what does it."""
        return {
            method("ResetVm"): self.reset,
            method("DeleteVm"): self.delete,
            method("CloneVm"): self.clone,
            method("CreateVmSnapshot"): self.create_snapshot,
            method("DeleteVmSnapshot"): self.delete_snapshot,
            method("RollbackVmSnapshot"): self.rollback,
        }

    def reset(self, task: Task) -> vm_pb2.Vm:
        """Presses the button."""
        vm = self._vm(task.target)
        if vm.status.state != RUNNING or vm.status.node != self._node:
            raise PvcError(
                reason_pb2.REASON_WRONG_STATE,
                f"{vm.name} is {state_name(vm.status.state)}; only what runs can be reset",
            )
        self._hypervisor.reset(vm.name.removeprefix("vms/"))
        return vm

    def delete(self, task: Task) -> Outcome:
        """Waits until the agent let go of the VM, removes its volumes if asked to, and the row
        last, so that a cut leaves it known what there is to be removed."""
        request = task.request(api.DeleteVmRequest)
        task.stage("ending the VM")
        wait_for(
            self._store,
            self._clock,
            partial(_released, name=task.target),
            RELEASE_S,
            f"ending {task.target}",
            task.check,
        )
        vm = self._store.snapshot().find(vm_pb2.Vm, task.target)
        if request.delete_volumes and vm is not None:
            self._delete_volumes(task, own_volumes(vm))
        return Outcome(None, lambda: list(self._removal(task.target)))

    def clone(self, task: Task) -> vm_pb2.Vm:
        """Copies the volumes, then writes the new VM's row."""
        request = task.request(api.CloneVmRequest)
        pairs = copies.copied_volumes(self._vm(task.target), request.vm_id)
        for number, (source, volume) in enumerate(pairs):
            task.stage(f"copying {source} to {volume}", 90 * number // max(len(pairs), 1))
            self._volumes.copy(source, volume, f"{_id(task)}-{number}")
            again = f"undo-{_id(task)}-{task.attempt}-{number}"
            task.undo.callback(self._volumes.delete, volume, again)
        clone = self._write_clone(task, request)
        task.undo.pop_all()
        if request.start:
            task.stage("starting the clone", 95)
            clone = wait_for(
                self._store,
                self._clock,
                partial(_started, name=clone.name),
                START_S,
                f"starting {clone.name}",
                task.check,
            )
        return clone

    def create_snapshot(self, task: Task) -> Outcome:
        """All volumes at the same moment, or none."""
        request = task.request(api.CreateVmSnapshotRequest)
        vm = self._vm(request.parent)
        volumes = copies.written(vm)
        row = vm_pb2.VmSnapshot(
            name=f"{vm.name}/snapshots/{request.snapshot_id}",
            meta=rows.new_meta(self._call(task)),
            description=request.description,
            spec=vm.spec,
            volume_snapshots=[f"{volume}/snapshots/{request.snapshot_id}" for volume in volumes],
        )
        frozen: list[bool] = []
        if task.attempt > 1:
            self._drop(task, vm, row, len(volumes), "again")
        task.undo.callback(lambda: self._drop(task, vm, row, len(frozen), "undo"))
        with self._open.at_one_moment(vm, request.snapshot_id, volumes):
            for number, volume in enumerate(volumes):
                task.stage(f"taking a snapshot of {volume}", 90 * number // len(volumes))
                asked = f"{_id(task)}-{task.attempt}-{number}"
                frozen.append(self._volumes.snapshot(volume, request.snapshot_id, asked))
        row.quiesced = bool(frozen) and all(frozen)
        return Outcome(row, lambda: [Put(row)])

    def delete_snapshot(self, task: Task) -> Outcome:
        """The volumes' snapshots first, the row last."""
        request = task.request(api.DeleteVmSnapshotRequest)
        row = self._store.snapshot().find(vm_pb2.VmSnapshot, request.name)
        if row is None:
            raise not_found(request.name)
        for number, name in enumerate(row.volume_snapshots):
            task.stage(f"removing {name}", 90 * number // len(row.volume_snapshots))
            self._volumes.delete_snapshot(name, f"{_id(task)}-{task.attempt}-{number}")

        def removal() -> list[Change]:
            there = self._store.snapshot().find(vm_pb2.VmSnapshot, request.name)
            return [Delete(there.name, there.meta.etag)] if there is not None else []

        return Outcome(None, removal)

    def rollback(self, task: Task) -> Outcome:
        """Volume by volume, then the spec. What was put back cannot be undone; it can be done
        again."""
        request = task.request(api.RollbackVmSnapshotRequest)
        row = self._store.snapshot().find(vm_pb2.VmSnapshot, request.name)
        if row is None:
            raise not_found(request.name)
        done: list[str] = []
        for number, name in enumerate(row.volume_snapshots):
            task.stage(f"going back to {name}", 90 * number // len(row.volume_snapshots))
            try:
                self._volumes.rollback(name, f"{_id(task)}-{task.attempt}-{number}")
            except PvcError as error:
                raise _in_part(error, "put back already", done, "ask again") from error
            done.append(name)
        vm = copies.rolled_back(self._vm(task.target), row)
        vm.meta.etag = ""  # it has another by the time that this is read
        return Outcome(vm, lambda: [Put(copies.rolled_back(self._vm(task.target), row))])

    def _vm(self, name: str) -> vm_pb2.Vm:
        vm = self._store.snapshot().find(vm_pb2.Vm, name)
        if vm is None:
            raise not_found(name)
        return vm

    def _call(self, task: Task) -> Call:
        return Call(self._clock.now(), task.caller, self._node, self._clock.new_id)

    def _delete_volumes(self, task: Task, volumes: list[str]) -> None:
        done: list[str] = []
        for number, volume in enumerate(volumes):
            task.stage(f"removing {volume}", 90 * number // len(volumes))
            try:
                self._volumes.delete(volume, f"{_id(task)}-{task.attempt}-{number}")
            except PvcError as error:
                left = ", ".join(volumes[number:])
                raise _in_part(
                    error, "removed already", [task.target, *done], f"these remain: {left}"
                ) from error
            done.append(volume)

    def _removal(self, name: str) -> Iterable[Change]:
        snapshot = self._store.snapshot()
        vm = snapshot.find(vm_pb2.Vm, name)
        if vm is not None:
            yield Delete(vm.name, vm.meta.etag)
            for kept in snapshot.rows(vm_pb2.VmSnapshot, name):
                yield Delete(kept.name, kept.meta.etag)

    def _write_clone(self, task: Task, request: api.CloneVmRequest) -> vm_pb2.Vm:
        """Writes the row, unless this operation did before it was cut."""
        uid, name = _id(task), f"vms/{request.vm_id}"
        for _ in range(COMMIT_TRIES):
            snapshot = self._store.snapshot()
            there = snapshot.find(vm_pb2.Vm, name)
            if there is not None and there.meta.uid == uid:
                return there
            if there is not None:
                raise PvcError(reason_pb2.REASON_ALREADY_EXISTS, f"{name} exists by now")
            source, call = self._vm(task.target), self._call(task)
            clone = copies.cloned(snapshot, source, call, uid, request)
            try:
                self._store.commit([Put(clone)])
            except Conflict:
                continue
        return self._vm(name)

    def _drop(
        self, task: Task, vm: vm_pb2.Vm, row: vm_pb2.VmSnapshot, taken: int, why: str
    ) -> None:
        """Takes back what there is of a snapshot: the first `taken` from the storage, and what may
        be inside open images that the storage does not know of."""
        for number, name in enumerate(row.volume_snapshots):
            volume, _, snapshot_id = name.partition("/snapshots/")
            if number < taken:
                asked = f"{why}-{_id(task)}-{task.attempt}-{number}"
                self._volumes.delete_snapshot(name, asked)
            foreign = self._store.snapshot().find(storage_pb2.Snapshot, name) is not None
            if vm.status.state in WHILE_ON and not foreign:
                self._open.delete_snapshot(volume, snapshot_id)


def _released(snapshot: Snapshot, name: str) -> bool | None:
    """The agent let go of it, no node ever had it, or it is gone."""
    vm = snapshot.find(vm_pb2.Vm, name)
    return True if vm is None or not vm.status.node else None


def _started(snapshot: Snapshot, name: str) -> vm_pb2.Vm | None:
    vm = snapshot.find(vm_pb2.Vm, name)
    if vm is None:
        raise not_found(name)
    if given_up(vm):
        raise PvcError(
            reason_pb2.REASON_HYPERVISOR_FAILED, f"{name} was made, but: {vm.decision.why}"
        )
    return vm if vm.status.power_request >= 1 else None


def _in_part(error: PvcError, what: str, done: list[str], then: str) -> PvcError:
    said = f"{what}: {', '.join(done)}; {then}" if done else then
    return PvcError(error.reason, f"{error.message} ({said})", metadata=error.metadata)


def _id(task: Task) -> str:
    return task.name.removeprefix("operations/")

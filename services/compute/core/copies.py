"""Requests for clones and snapshots of VMs. Pure plans that accept or refuse; jobs do the work."""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.core import defaults
from services.compute.core.checks import Candidate, MacsOfOthers, check_vm
from services.compute.core.requests import (
    accepted,
    answer,
    check_free,
    check_off,
    home,
    short,
    the_vm,
)
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError, not_found, refuse
from services.state.store import Snapshot


def clone(snapshot: Snapshot, request: api.CloneVmRequest, call: Call) -> Mutation:
    """Refuses what could only fail later: a VM that runs, a name or a volume that is taken."""
    vm = the_vm(snapshot, request.name)
    check_off(vm, "cloned")
    check_free(snapshot, vm.name, "clone")
    if snapshot.find(vm_pb2.Vm, f"vms/{request.vm_id}") is not None:
        text = f"vms/{request.vm_id} exists; choose another id"
        refuse(reason_pb2.REASON_ALREADY_EXISTS, text, "vm_id")
    for _, volume in copied_volumes(vm, request.vm_id):
        if snapshot.find(storage_pb2.Volume, volume) is not None:
            refuse(
                reason_pb2.REASON_ALREADY_EXISTS,
                f"{volume}, which would be a disk of the clone, exists; choose another name",
                "vm_id",
            )
    what = f"{short(vm.name)} is to be cloned as {request.vm_id}"
    return answer(call, accepted(call, request, vm, "CloneVm", what, node=home(vm, call)), (), what)


def copied_volumes(vm: vm_pb2.Vm, vm_id: str) -> list[tuple[str, str]]:
    """(volume, the name of its copy) for each drive that the clone must have to itself."""
    return [
        (disk.volume, clone_volume(disk, vm_id))
        for disk in vm.spec.disks
        if disk.volume and not disk.read_only
    ]


def clone_volume(disk: vm_pb2.DiskSpec, vm_id: str) -> str:
    """The name of a drive's volume in the clone."""
    return f"{disk.volume.partition('/volumes/')[0]}/volumes/{vm_id}-{disk.id}"


def cloned(
    snapshot: Snapshot, vm: vm_pb2.Vm, call: Call, uid: str, request: api.CloneVmRequest
) -> vm_pb2.Vm:
    """The clone's row, once its volumes are there. uid: the same for every try of one operation."""
    name = f"vms/{request.vm_id}"
    clone = vm_pb2.Vm(name=name, meta=rows.new_meta(call, vm.meta.labels), spec=vm.spec)
    clone.meta.uid = uid
    clone.spec.uuid, clone.spec.power_request = "", 1
    clone.spec.power = vm_pb2.POWER_STATE_RUNNING if request.start else vm_pb2.POWER_STATE_OFF
    for nic in clone.spec.nics:
        nic.mac = ""
    for disk in clone.spec.disks:
        if disk.volume and not disk.read_only:
            disk.volume = clone_volume(disk, request.vm_id)
    defaults.fill(clone.spec, uid, MacsOfOthers(snapshot, name), order=False)
    check_vm(Candidate(snapshot, clone))
    return clone


def create_snapshot(
    snapshot: Snapshot, request: api.CreateVmSnapshotRequest, call: Call
) -> Mutation:
    """Refuses a snapshot whose name is taken, by the VM or by one of its volumes."""
    vm = the_vm(snapshot, request.parent, field="parent")
    check_free(snapshot, vm.name, "snapshot")
    name = f"{vm.name}/snapshots/{request.snapshot_id}"
    taken = [name, *(f"{volume}/snapshots/{request.snapshot_id}" for volume in written(vm))]
    for row in taken:
        if snapshot.named(row) is not None:
            text = f"{row} exists; choose another id, or delete it first"
            refuse(reason_pb2.REASON_ALREADY_EXISTS, text, "snapshot_id")
    what = f"snapshot {request.snapshot_id} of {short(vm.name)} is to be taken"
    operation = accepted(call, request, vm, "CreateVmSnapshot", what, node=home(vm, call))
    return answer(call, operation, (), what)


def delete_snapshot(
    snapshot: Snapshot, request: api.DeleteVmSnapshotRequest, call: Call
) -> Mutation:
    """A job removes the volumes' snapshots, then the row."""
    row, vm = _the_snapshot(snapshot, request.name, request.etag)
    check_free(snapshot, vm.name, "snapshot")
    what = f"snapshot {row.name.rpartition('/')[2]} of {short(vm.name)} is to be removed"
    operation = accepted(call, request, vm, "DeleteVmSnapshot", what, node=home(vm, call))
    return answer(call, operation, (), what)


def rollback(snapshot: Snapshot, request: api.RollbackVmSnapshotRequest, call: Call) -> Mutation:
    """Refuses whole what could only go back in part."""
    row, vm = _the_snapshot(snapshot, request.name, request.etag)
    check_off(vm, "put back")
    check_free(snapshot, vm.name, "rollback")
    for kept in row.volume_snapshots:
        if snapshot.find(storage_pb2.Snapshot, kept) is None:
            raise PvcError(
                reason_pb2.REASON_DANGLING_REFERENCE,
                f"{kept}, a part of {row.name}, exists no longer; nothing was changed",
                field="name",
            )
    check_vm(Candidate(snapshot, rolled_back(vm, row), vm))
    what = f"{short(vm.name)} is to go back to {row.name.rpartition('/')[2]}"
    operation = accepted(call, request, vm, "RollbackVmSnapshot", what, node=home(vm, call))
    return answer(call, operation, (), what)


def rolled_back(vm: vm_pb2.Vm, row: vm_pb2.VmSnapshot) -> vm_pb2.Vm:
    """The VM with the spec that it had. Its power is the request's, not the snapshot's."""
    after = rows.copied(vm)
    after.spec.CopyFrom(row.spec)
    after.spec.uuid = vm.spec.uuid
    after.spec.power, after.spec.power_request = vm.spec.power, vm.spec.power_request
    if after.spec != vm.spec:
        after.meta.generation += 1
    return after


def written(vm: vm_pb2.Vm) -> list[str]:
    """The volumes that a snapshot takes in: those that the VM can write."""
    return [disk.volume for disk in vm.spec.disks if disk.volume and not disk.read_only]


def _the_snapshot(snapshot: Snapshot, name: str, etag: str) -> tuple[vm_pb2.VmSnapshot, vm_pb2.Vm]:
    row = snapshot.find(vm_pb2.VmSnapshot, name)
    if row is None:
        raise not_found(name)
    rows.check_etag(row, etag)
    return row, the_vm(snapshot, name.partition("/snapshots/")[0])

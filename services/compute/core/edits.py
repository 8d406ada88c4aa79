"""Requests that make, change, rename and remove VMs. Pure plans: snapshot and request in, changes
out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.compute.core import defaults, mask
from services.compute.core.checks import (
    Candidate,
    MacsOfOthers,
    Place,
    check_vm,
    in_spec,
    is_off,
)
from services.compute.core.companions import following
from services.compute.core.requests import (
    RUNNING,
    accepted,
    answer,
    any_vm,
    check_free,
    check_off,
    finished,
    home,
    short,
    the_vm,
    wishing,
)
from services.compute.core.status import state_name
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError, refuse
from services.mesh.holders import holders
from services.mesh.masks import take
from services.state.store import Change, Delete, Put, Snapshot

SUPERSEDED_AT_ONCE = 32


def new_vm(
    snapshot: Snapshot, call: Call, vm_id: str, given: vm_pb2.Vm, start: bool = False
) -> vm_pb2.Vm:
    """A VM as it will be, defaults filled in and everything checked. Raises ALREADY_EXISTS and what
    checks raise."""
    name = f"vms/{vm_id}"
    if snapshot.find(vm_pb2.Vm, name) is not None:
        refuse(reason_pb2.REASON_ALREADY_EXISTS, f"{name} exists; choose another id", "vm_id")
    vm = vm_pb2.Vm(name=name, meta=rows.new_meta(call, given.meta.labels), spec=given.spec)
    vm.spec.power, vm.spec.power_request = vm_pb2.POWER_STATE_UNSPECIFIED, 1
    defaults.fill(vm.spec, vm.meta.uid, MacsOfOthers(snapshot, name))
    if start:
        vm.spec.power = RUNNING
    check_vm(Candidate(snapshot, vm))
    return vm


def create(snapshot: Snapshot, request: api.CreateVmRequest, call: Call) -> Mutation:
    """A VM that is off is made as soon as it is written; one that is to start waits for that."""
    vm = new_vm(snapshot, call, request.vm_id, request.vm, request.start)
    what = f"{short(vm.name)} created"
    kept = api.CreateVmRequest(vm_id=request.vm_id, vm=vm, start=request.start)
    kept.validate_only = request.validate_only
    asked = vm.spec.power_request if request.start else 0
    operation = accepted(call, kept, vm, "CreateVm", what, power_request=asked)
    if not request.start:
        operation = finished(operation, call, vm)
    elif request.validate_only:
        operation.result.Pack(vm)
    return answer(call, operation, [Put(vm)], what)


def update(snapshot: Snapshot, request: api.UpdateVmRequest, call: Call) -> Mutation:
    """Takes over the fields of the mask and labels."""
    vm = the_vm(snapshot, request.vm.name, request.vm.meta.etag, "vm.name")
    paths = mask.paths_to_take(request.vm, request.update_mask)
    after = rows.copied(vm)
    for path in paths:
        take(request.vm, after, path)
    _keep(after, vm)
    return _changed(snapshot, call, request, "UpdateVm", vm, after, paths=paths)


def attach_disk(snapshot: Snapshot, request: api.AttachDiskRequest, call: Call) -> Mutation:
    """Adds a drive to the spec."""
    vm = the_vm(snapshot, request.name, request.etag)
    _check_new([disk.id for disk in vm.spec.disks], request.disk.id, "disk.id", vm.name)
    after = rows.copied(vm)
    after.spec.disks.append(request.disk)
    defaults.fill_disk(after.spec.disks[-1])
    if after.spec.disks[-1].bus == vm_pb2.DISK_BUS_SATA and not is_off(vm):
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            "SATA drives cannot be plugged in while the VM runs; use virtio-scsi, or shut it down",
            "disk.bus",
        )
    place = _last("disks", len(vm.spec.disks), "disk")
    return _changed(snapshot, call, request, "AttachDisk", vm, after, place)


def detach_disk(snapshot: Snapshot, request: api.DetachDiskRequest, call: Call) -> Mutation:
    """Takes a drive out of the spec."""
    vm = the_vm(snapshot, request.name, request.etag)
    index = _index([disk.id for disk in vm.spec.disks], request.disk_id, "disk_id", vm.name)
    if vm.spec.disks[index].bus == vm_pb2.DISK_BUS_SATA and not is_off(vm):
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            "SATA drives cannot be unplugged while the VM runs; shut it down first, or take only "
            "the disc out of a CD-ROM drive (update its volume to nothing)",
            "disk_id",
        )
    after = rows.copied(vm)
    del after.spec.disks[index]
    return _changed(snapshot, call, request, "DetachDisk", vm, after)


def attach_nic(snapshot: Snapshot, request: api.AttachNicRequest, call: Call) -> Mutation:
    """Adds an interface to the spec."""
    vm = the_vm(snapshot, request.name, request.etag)
    _check_new([nic.id for nic in vm.spec.nics], request.nic.id, "nic.id", vm.name)
    after = rows.copied(vm)
    after.spec.nics.append(request.nic)
    place = _last("nics", len(vm.spec.nics), "nic")
    return _changed(snapshot, call, request, "AttachNic", vm, after, place)


def detach_nic(snapshot: Snapshot, request: api.DetachNicRequest, call: Call) -> Mutation:
    """Takes an interface out of the spec."""
    vm = the_vm(snapshot, request.name, request.etag)
    index = _index([nic.id for nic in vm.spec.nics], request.nic_id, "nic_id", vm.name)
    after = rows.copied(vm)
    del after.spec.nics[index]
    return _changed(snapshot, call, request, "DetachNic", vm, after)


def rename(snapshot: Snapshot, request: api.RenameVmRequest, call: Call) -> Mutation:
    """The same rows under another name, in one commit. Nothing is left to be done for what is
    off."""
    vm = the_vm(snapshot, request.name, request.etag)
    name = f"vms/{request.new_vm_id}"
    check_off(vm, "renamed")
    check_free(snapshot, vm.name, "rename")
    if snapshot.find(vm_pb2.Vm, name) is not None:
        text = f"{name} exists; choose another id"
        refuse(reason_pb2.REASON_ALREADY_EXISTS, text, "new_vm_id")
    after = renamed(vm, name)
    what = f"{short(vm.name)} renamed to {request.new_vm_id}"
    operation = finished(accepted(call, request, vm, "RenameVm", what), call, after)
    changes: list[Change] = [Delete(vm.name, vm.meta.etag), Put(after)]
    changes += following(snapshot, vm.name, name)
    for old in snapshot.rows(vm_pb2.VmSnapshot, vm.name):
        changes += [
            Delete(old.name, old.meta.etag),
            Put(renamed(old, f"{name}/snapshots/{old.name.rpartition('/')[2]}")),
        ]
    return answer(call, operation, changes, what)


def delete(snapshot: Snapshot, request: api.DeleteVmRequest, call: Call) -> Mutation:
    """Marks the VM; its node's agent ends it and removes the row, a job its volumes. May be asked
    again."""
    vm = any_vm(snapshot, request.name, request.etag)
    check_free(snapshot, vm.name, "delete")
    if not request.force and not is_off(vm) and not vm.meta.HasField("delete_time"):
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{vm.name} is {state_name(vm.status.state)}; shut it down first, or delete it with "
            "force",
            "name",
        )
    if request.delete_volumes:
        _check_deletable(snapshot, vm)
    after = wishing(vm, vm_pb2.POWER_STATE_OFF)
    if not after.meta.HasField("delete_time"):
        after.meta.delete_time.CopyFrom(call.now)
    what = f"{short(vm.name)} is to be deleted" + (
        f" with {len(own_volumes(vm))} volumes" if request.delete_volumes else ""
    )
    operation = accepted(call, request, vm, "DeleteVm", what, node=home(vm, call))
    return answer(call, operation, [Put(after), *_superseded(snapshot, vm, call)], what)


def own_volumes(vm: vm_pb2.Vm) -> list[str]:
    """The volumes that go with a VM: those that it alone can write, and discs that bear its name,
    as its cloud-init data do. Other discs are somebody's, and stay."""

    def goes(disk: vm_pb2.DiskSpec) -> bool:
        named = disk.volume.endswith(f"/volumes/{vm.name.removeprefix('vms/')}-{disk.id}")
        return bool(disk.volume) and (not disk.read_only or named)

    return [disk.volume for disk in vm.spec.disks if goes(disk)]


def renamed(row: rows.R, name: str) -> rows.R:
    """A copy of a row under a name that has no row yet."""
    after = rows.copied(row)
    after.name = name  # type: ignore[attr-defined]
    after.meta.etag = ""  # type: ignore[attr-defined]
    return after


def _changed(
    snapshot: Snapshot,
    call: Call,
    request: api.UpdateVmRequest
    | api.AttachDiskRequest
    | api.DetachDiskRequest
    | api.AttachNicRequest
    | api.DetachNicRequest,
    name: str,
    vm: vm_pb2.Vm,
    after: vm_pb2.Vm,
    place: Place = in_spec,
    paths: Sequence[str] = (),
) -> Mutation:
    """Another spec for a VM, checked, with an operation that waits for it to be in effect."""
    check_free(snapshot, vm.name, "edit")
    defaults.grow_limits(after.spec, vm.spec, paths)
    defaults.fill(after.spec, vm.meta.uid, MacsOfOthers(snapshot, vm.name), order=False)
    check_vm(Candidate(snapshot, after, vm, place))
    same = after.spec == vm.spec
    if not same:
        after.meta.generation += 1
        after.meta.update_time.CopyFrom(call.now)
    what = f"{short(vm.name)} changed"
    operation = accepted(call, request, vm, name, what, generation=after.meta.generation)
    if same:
        operation = finished(operation, call, after)
    elif request.validate_only:
        operation.result.Pack(after)
    return answer(call, operation, [Put(after)] if after != vm else (), what)


def _keep(after: vm_pb2.Vm, vm: vm_pb2.Vm) -> None:
    """What an update never touches, whatever its mask says."""
    labels = dict(after.meta.labels)
    after.meta.CopyFrom(vm.meta)
    after.meta.labels.clear()
    after.meta.labels.update(labels)
    after.spec.power, after.spec.power_request = vm.spec.power, vm.spec.power_request
    after.spec.uuid = after.spec.uuid or vm.spec.uuid
    old = {nic.id: nic.mac for nic in vm.spec.nics}
    for nic in after.spec.nics:
        nic.mac = nic.mac or old.get(nic.id, "")


def _check_deletable(snapshot: Snapshot, vm: vm_pb2.Vm) -> None:
    """Refuses the whole deletion when another VM uses one of the volumes."""
    for volume in own_volumes(vm):
        for other in holders(snapshot, volume):
            if other.name != vm.name and any(x.volume == volume for x in other.spec.disks):
                raise PvcError(
                    reason_pb2.REASON_IN_USE,
                    f"{volume} is used by {other.name} too; nothing was removed",
                    field="delete_volumes",
                )


def _superseded(snapshot: Snapshot, vm: vm_pb2.Vm, call: Call) -> list[Change]:
    """Ends what nobody has taken up yet and the deletion makes pointless; the agent ends what is
    too much for this commit."""
    ended: list[Change] = []
    for operation in rows.unfinished(snapshot, vm.name):
        pending = operation.state == operation_pb2.Operation.STATE_PENDING
        if pending and not operation.method.endswith("/DeleteVm"):
            error = PvcError(reason_pb2.REASON_SUPERSEDED, f"{vm.name} is being deleted")
            failed = operation_pb2.Operation.STATE_FAILED
            ended.append(Put(rows.enter_operation(operation, failed, call.now, error=error)))
    return ended[:SUPERSEDED_AT_ONCE]


def _check_new(there: Sequence[str], id: str, field: str, vm: str) -> None:
    if id in there:
        refuse(reason_pb2.REASON_ALREADY_EXISTS, f"{vm} has a device {id}; use another id", field)


def _index(there: Sequence[str], id: str, field: str, vm: str) -> int:
    if id not in there:
        known = ", ".join(there) or "none"
        refuse(reason_pb2.REASON_NOT_FOUND, f"{vm} has no {id} (it has: {known})", field)
    return there.index(id)


def _last(kind: str, index: int, field: str) -> Callable[[str, int], str]:
    """The newest device of a kind came in a field of its own."""
    return lambda k, i: field if (k, i) == (kind, index) else in_spec(k, i)

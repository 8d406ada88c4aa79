"""Who uses a volume: VMs, copies on write, and operations that are under way.

Pure questions about a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.mesh import rows
from services.mesh.errors import PvcError, refuse
from services.mesh.holders import holders
from services.state.store import Snapshot
from services.storage.core.layout import id_of, volume_of

R = TypeVar("R", bound=Message)
Vm = vm_pb2.Vm
Volume = storage_pb2.Volume
Operation = operation_pb2.Operation

ALIVE = frozenset(
    {
        vm_pb2.VM_STATE_STARTING,
        vm_pb2.VM_STATE_RUNNING,
        vm_pb2.VM_STATE_PAUSED,
        vm_pb2.VM_STATE_STOPPING,
    }
)
"""States in which a VM's emulator has its volumes open."""


def vms_with(snapshot: Snapshot, volume: str) -> Iterator[Vm]:
    """The VMs that have a volume, as they should be or as they still are."""
    for vm in holders(snapshot, volume):
        if _drive_with(vm, volume):
            yield vm


def _drive_with(vm: Vm, volume: str) -> str:
    """The id of the drive that the volume is in, or comes to be in by a move; "" for none."""
    coming = vm.decision.migration.volumes
    volume = next((old for old, place in coming.items() if place == volume), volume)
    wanted = (drive.id for drive in vm.spec.disks if drive.volume == volume)
    there = (drive.id for drive in vm.status.disks if drive.volume == volume)
    return next(wanted, "") or next(there, "")


def open_in(snapshot: Snapshot, volume: str) -> Vm | None:
    """The VM whose emulator has a volume open; None when it is closed."""
    return next((vm for vm in vms_with(snapshot, volume) if vm.status.state in ALIVE), None)


def check_settled(vm: Vm) -> None:
    """Raises BUSY while a running VM is on its way to another node: two emulators have its volumes
    open."""
    if vm.decision.HasField("migration"):
        raise PvcError(
            reason_pb2.REASON_BUSY,
            f"{vm.name} is being moved to {vm.decision.migration.target}: ask again when it is "
            "there",
            metadata={"vm": vm.name},
        )


def copies_of(snapshot: Snapshot, volume: str) -> Iterator[Volume]:
    """The copies on write of a volume."""
    for other in snapshot.rows(Volume):
        if other.status.parent == volume:
            yield other


def operations_on(snapshot: Snapshot, volume: str, besides: str = "") -> Iterator[Operation]:
    """Operations under way that change a volume or read it, except the one named."""
    for operation in rows.unfinished(snapshot, "storage"):
        if operation.name != besides and volume in involved(operation):
            yield operation


def involved(operation: Operation) -> tuple[str, ...]:
    """The volumes that an operation works on or reads."""
    names = [volume_of(operation.target)]
    request = _unpacked(operation, storage_service_pb2.CreateVolumeRequest)
    if request is not None:
        spec = request.volume.spec
        names += [spec.source_volume, volume_of(spec.source_snapshot)]
    rename = _unpacked(operation, storage_service_pb2.RenameVolumeRequest)
    if rename is not None:
        names.append(f"{rename.name.rpartition('/')[0]}/{rename.new_volume_id}")
    return tuple(name for name in names if name)


def importing(snapshot: Snapshot, file: str) -> Operation | None:
    """The operation under way that reads a kept file."""
    for operation in rows.unfinished(snapshot):
        request = _unpacked(operation, storage_service_pb2.ImportVolumeRequest)
        if request is not None and request.file == file:
            return operation
    return None


def _unpacked(operation: Operation, kind: type[R]) -> R | None:
    request = kind()
    if operation.request.Unpack(request):
        return request
    return None


def check_not_busy(snapshot: Snapshot, volume: str, besides: str = "") -> None:
    """Raises BUSY while an operation works on the volume."""
    for operation in operations_on(snapshot, volume, besides):
        verb = operation.method.rpartition("/")[2]
        refuse(
            reason_pb2.REASON_BUSY,
            f"{volume} is being worked on by {operation.name} ({verb} of {operation.target}): wait "
            "for its end, or cancel it",
        )


def check_closed(snapshot: Snapshot, volume: str, instead: str) -> None:
    """Raises IN_USE while a running VM has the volume open; `instead` says what to do."""
    vm = open_in(snapshot, volume)
    if vm is not None:
        raise PvcError(
            reason_pb2.REASON_IN_USE,
            f"{vm.name} is running on {volume}: {instead}",
            metadata={"vm": vm.name},
        )


def check_unwritten(snapshot: Snapshot, volume: str, instead: str) -> None:
    """As `check_closed`, but VMs may run on it that only read it."""
    for vm in vms_with(snapshot, volume):
        drives = [drive for drive in vm.spec.disks if drive.volume == volume]
        if vm.status.state in ALIVE and not (drives and all(x.read_only for x in drives)):
            raise PvcError(
                reason_pb2.REASON_IN_USE,
                f"{vm.name} is running on {volume}: {instead}",
                metadata={"vm": vm.name},
            )


def check_unattached(snapshot: Snapshot, volume: str) -> None:
    """Raises IN_USE while any VM has the volume, running or not. One that is being deleted has it
    until its node let go of it; its row stays until the volumes that go with it are gone."""
    for vm in vms_with(snapshot, volume):
        if vm.meta.HasField("delete_time") and not vm.status.node:
            continue
        disk = _drive_with(vm, volume)
        raise PvcError(
            reason_pb2.REASON_IN_USE,
            f"{volume} is disk {disk} of {vm.name}: detach it, or delete the VM, first",
            field="name",
            metadata={"vm": vm.name},
        )


def check_no_copies(snapshot: Snapshot, volume: str) -> None:
    """Raises IN_USE while copies on write need the volume."""
    names = [copy.name for copy in copies_of(snapshot, volume)]
    if names:
        more = f" and {len(names) - 3} more" if names[3:] else ""
        refuse(
            reason_pb2.REASON_IN_USE,
            f"{volume} is the base of {', '.join(id_of(name) for name in names[:3])}{more}: "
            "delete them first",
            "name",
        )

"""What the provisioner asks a snapshot: who uses an image, who works on what, who made what.

Pure questions; the names of volumes that images and VMs get are decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2, vm_service_pb2
from pvc.core.v1 import operation_pb2
from pvc.provisioner.v1 import image_pb2, provisioner_service_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.mesh import rows
from services.mesh.holders import holders
from services.state.store import Snapshot
from services.state.table import Extract, Index

R = TypeVar("R", bound=Message)

Image = image_pb2.Image
ImageStatus = image_pb2.ImageStatus
Operation = operation_pb2.Operation
Vm = vm_pb2.Vm
Volume = storage_pb2.Volume

SERVICE = "provisioner"
PREFIX = "pvc.provisioner.v1.ProvisionerService/"
ROOT, SEED, NET0 = "root", "seed", "net0"

_BLOCKS_OF, _ROOT_OF, _SEED_OF = "blocks of ", "root disk of ", "cloud-init seed of "
_MADE_BY = ", made by "


def id_of(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def pool_of(volume: str) -> str:
    """ "pools/a/volumes/b" → "pools/a"."""
    return volume.partition("/volumes/")[0]


def node_of_file(file: str) -> str:
    """The node that keeps an uploaded file, "files/n1.id" → "nodes/n1"; "" where none is named."""
    node = file.removeprefix("files/").rpartition(".")[0]
    return f"nodes/{node}" if node else ""


def image_volume(pool: str, image_id: str) -> str:
    """The volume that an image's blocks are in."""
    return f"{pool}/volumes/image-{image_id}"


def vm_volume(pool: str, vm_id: str, drive: str) -> str:
    """The volume of a provisioned VM's drive "root" or "seed"."""
    return f"{pool}/volumes/{vm_id}-{drive}"


def image_mark(image: str, operation: str) -> str:
    """The description of an image's volume, by which its maker knows it again."""
    return f"{_BLOCKS_OF}{image}{_MADE_BY}{operation}"


def root_mark(vm: str, operation: str) -> str:
    """The description of a root volume, by which its maker knows it again."""
    return f"{_ROOT_OF}{vm}{_MADE_BY}{operation}"


def seed_mark(vm: str, operation: str) -> str:
    """The description of a seed's volume, by which its maker knows it again."""
    return f"{_SEED_OF}{vm}{_MADE_BY}{operation}"


def copies_of(snapshot: Snapshot, volume: str) -> list[str]:
    """The copies on write of a volume, by name."""
    if not volume:
        return []
    return [other.name for other in snapshot.rows(Volume) if other.status.parent == volume]


def unfinished(snapshot: Snapshot, target: str, service: str = "") -> Iterator[Operation]:
    """The operations of a service, or of any, that still work on a resource; oldest first."""
    for operation in rows.unfinished(snapshot, target):
        if service in ("", operation.service):
            yield operation


def using_image(snapshot: Snapshot, image: str) -> Operation | None:
    """An operation under way that makes a VM from the image."""
    for operation in rows.unfinished(snapshot, SERVICE):
        request = _unpacked(operation, provisioner_service_pb2.ProvisionVmRequest)
        if request is not None and request.image == image:
            return operation
    return None


def making_of(snapshot: Snapshot, target: str, mark: str) -> Operation | None:
    """The newest operation that makes `target` with our mark; it may have ended, well or not."""
    found = [
        operation
        for operation in snapshot.rows(Operation)
        if operation.target == target and _mark_of(operation) == mark
    ]
    return found[-1] if found else None


def _mark_of(operation: Operation) -> str:
    """The mark in a request that makes a volume or a VM; "" in any other."""
    if (made := _unpacked(operation, storage_service_pb2.CreateVolumeRequest)) is not None:
        return made.volume.spec.description
    if (imported := _unpacked(operation, storage_service_pb2.ImportVolumeRequest)) is not None:
        return imported.description
    if (vm := _unpacked(operation, vm_service_pb2.CreateVmRequest)) is not None:
        return vm.vm.spec.uuid
    return ""


def abandoned_seed(snapshot: Snapshot, volume: Volume) -> bool:
    """A seed of ours that nothing needs: no VM has it, its root volume is gone, and nobody works
    on either."""
    root = next(_root_beside(volume), "")
    if not root or snapshot.find(Volume, root) is not None or _in_a_vm(snapshot, volume.name):
        return False
    targets = (f"vms/{id_of(root).removesuffix(f'-{ROOT}')}", root, volume.name)
    return not any(any(unfinished(snapshot, target)) for target in targets)


def _root_beside(volume: Volume) -> Iterator[str]:
    """The root volume that a seed of ours is beside; nothing for other volumes."""
    if volume.spec.description.startswith(_SEED_OF) and volume.name.endswith(f"-{SEED}"):
        vm_id = id_of(volume.name).removesuffix(f"-{SEED}")
        yield vm_volume(pool_of(volume.name), vm_id, ROOT)


def replaceable_seed(snapshot: Snapshot, volume: Volume, vm: str) -> bool:
    """A seed that an earlier VM of this name left behind, and that no VM has."""
    ours = volume.spec.description.startswith(f"{_SEED_OF}{vm}{_MADE_BY}")
    return ours and not _in_a_vm(snapshot, volume.name)


def leftover(snapshot: Snapshot, volume: Volume) -> bool:
    """A volume of an operation of ours that failed and could not undo it, and that no VM has."""
    operation = snapshot.find(Operation, next(_maker(volume), ""))
    return (
        operation is not None
        and _failed(operation) is not None
        and not _in_a_vm(snapshot, volume.name)
        and not any(unfinished(snapshot, volume.name))
        and not any(unfinished(snapshot, operation.target))
    )


def _maker(volume: Volume) -> Iterator[str]:
    """The operation of ours that made it; nothing for other volumes."""
    subject, made_by, maker = volume.spec.description.rpartition(_MADE_BY)
    if made_by and subject.startswith((_BLOCKS_OF, _ROOT_OF, _SEED_OF)):
        yield maker


def _failed(operation: Operation) -> Operation | None:
    failed = operation.state in (Operation.STATE_FAILED, Operation.STATE_CANCELLED)
    return operation if failed and operation.service == SERVICE else None


def not_needed(snapshot: Snapshot) -> list[Volume]:
    """Volumes of ours that nothing needs any more, by name. All but those whose root volume is gone
    or whose maker failed are not even looked at: every VM may have some."""
    seeds = snapshot.indexed(SEEDS).items()
    alone = (x for root, some in seeds if snapshot.find(Volume, root) is None for x in some)
    made = (x for failed in snapshot.extract(FAILED) for x in snapshot.having(MADE, failed.name))
    found = {x.name: x for x in (*alone, *made)}
    return [
        found[name]
        for name in sorted(found)
        if abandoned_seed(snapshot, found[name]) or leftover(snapshot, found[name])
    ]


def _claim(operation: Operation) -> str | None:
    """What an operation that goes on has volumes for. What is only asked of a VM claims none."""
    asked = operation.service == "compute" and not operation.method.endswith("/DeleteVm")
    return None if operation.state in rows.FINAL or asked else operation.target


def _volumes(vm: Vm) -> tuple[str, ...]:
    return (*(x.volume for x in vm.spec.disks), *(x.volume for x in vm.status.disks))


SEEDS = Index(Volume, _root_beside)
MADE = Index(Volume, _maker)
FAILED = Extract(Operation, _failed)
CLAIMS = Extract(Operation, _claim)
VOLUMES_OF_VMS = Extract(Vm, _volumes)


def _in_a_vm(snapshot: Snapshot, volume: str) -> bool:
    for vm in holders(snapshot, volume):
        wanted = any(drive.volume == volume for drive in vm.spec.disks)
        if wanted or any(drive.volume == volume for drive in vm.status.disks):
            return True
    return False


def listed(names: list[str], most: int = 5) -> str:
    """Names for people: the first ones, and how many more."""
    more = f" and {len(names) - most} more" if names[most:] else ""
    return ", ".join(names[:most]) + more


def _unpacked(operation: Operation, kind: type[R]) -> R | None:
    request = kind()
    return request if operation.request.Unpack(request) else None

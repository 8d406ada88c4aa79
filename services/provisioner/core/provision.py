"""What a request for a VM from an image means: everything checked, everything left open filled in.

Pure. The accepted request carries no cloud-init text: those may hold secrets, and live on the seed.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable

from pvc.compute.v1 import vm_pb2, vm_service_pb2
from pvc.core.v1 import reason_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError, refuse, shown
from services.mesh.holders import holders
from services.provisioner.core import facts
from services.provisioner.core.facts import NET0, ROOT, SEED, Image, ImageStatus, Vm, vm_volume
from services.provisioner.core.requests import (
    accepted,
    check_not_busy,
    free_volume,
    usable_pool,
)
from services.state.store import Snapshot

DEFAULT_NETWORK = "networks/default"
DISKS_MAX = 32
"""Drives that a VM can have, with the two that are added; as VmSpec has it."""
MAC_PREFIX = "52:54:00"

_DRIVE = re.compile(r"spec\.disks\[([0-9]{1,4})\]")
_NAMESPACE = uuid.UUID("4d0c8f0e-7d2b-5a55-9a6e-2c1f1b7e9d30")


def provision_vm(snapshot: Snapshot, request: api.ProvisionVmRequest, call: Call) -> Mutation:
    """Raises ALREADY_EXISTS, BUSY, DANGLING_REFERENCE, WRONG_STATE, INVALID_FIELD, NOT_SUPPORTED.

    Cloud-init texts are checked where the seed is made of them.
    """
    name, operation_id = f"vms/{request.vm_id}", call.new_id()
    check_not_busy(snapshot, name, "vm_id")
    if snapshot.find(Vm, name) is not None:
        refuse(reason_pb2.REASON_ALREADY_EXISTS, f"{name} exists; choose another id", "vm_id")
    image = ready_image(snapshot, request.image)
    wanted = rows.copied(request)
    wanted.ClearField("cloud_init")
    wanted.pool = request.pool or facts.pool_of(image.status.volume)
    _check_pools(snapshot, wanted.pool, image)
    for drive in (ROOT, SEED):
        free_volume(snapshot, vm_volume(wanted.pool, request.vm_id, drive), "vm_id")
    wanted.root_size_bytes = _root_size(request, image)
    _check_drives(request.spec)
    _fill_interfaces(snapshot, wanted, operation_id)
    wanted.spec.uuid = wanted.spec.uuid or vm_uuid(operation_id)
    says = f"make {name} from {image.name} in {wanted.pool}"
    return accepted(call, wanted, "ProvisionVm", name, says, operation_id=operation_id)


def vm_uuid(operation_id: str) -> str:
    """The UUID of the VM that an operation makes: by it, the operation knows its own VM again."""
    return str(uuid.uuid5(_NAMESPACE, operation_id))


def ready_image(snapshot: Snapshot, name: str) -> Image:
    """The image to make a VM from. Raises DANGLING_REFERENCE, WRONG_STATE."""
    image = snapshot.find(Image, name)
    if image is None:
        refuse(reason_pb2.REASON_DANGLING_REFERENCE, f"{shown(name)} does not exist", "image")
    if image.meta.HasField("delete_time"):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{name} is being deleted", "image")
    if image.status.state != ImageStatus.STATE_READY:
        state = ImageStatus.State.Name(image.status.state).removeprefix("STATE_")
        why = f" ({image.status.why})" if image.status.why else ""
        refuse(reason_pb2.REASON_WRONG_STATE, f"{name} is {state}{why}; it must be READY", "image")
    return image


def drives(request: api.ProvisionVmRequest) -> list[vm_pb2.DiskSpec]:
    """The two drives that are added, of an accepted request."""
    root = vm_volume(request.pool, request.vm_id, ROOT)
    seed = vm_volume(request.pool, request.vm_id, SEED)
    # Cloud kernels have no AHCI driver: a CD-ROM on SATA would never be seen.
    return [
        vm_pb2.DiskSpec(id=ROOT, volume=root, boot_order=1),
        vm_pb2.DiskSpec(
            id=SEED,
            volume=seed,
            device=vm_pb2.DISK_DEVICE_CDROM,
            bus=vm_pb2.DISK_BUS_VIRTIO_SCSI,
            read_only=True,
        ),
    ]


def whole_spec(request: api.ProvisionVmRequest) -> vm_pb2.VmSpec:
    """The VM's spec with everything that is added, of an accepted request."""
    spec = rows.copied(request.spec)
    del spec.disks[:]
    spec.disks.extend([*drives(request), *request.spec.disks])
    return spec


def added_to(request: api.ProvisionVmRequest) -> vm_service_pb2.CreateVmRequest:
    """The VM without what is made for it, of an accepted request: to be checked by itself."""
    return vm_service_pb2.CreateVmRequest(
        vm_id=request.vm_id, vm=Vm(spec=request.spec), start=request.start, validate_only=True
    )


def at_our_field(error: PvcError, added: int = 0) -> PvcError:
    """A refusal of a VM at the field where that came in; `added` drives were put before its own."""
    field = error.field.removeprefix("vm.")
    drive = _DRIVE.match(field)
    if drive:
        index = int(drive.group(1)) - added
        field = f"spec.disks[{index}]{field[drive.end() :]}" if index >= 0 else "spec"
    return PvcError(error.reason, error.message, field=field, metadata=error.metadata)


def _check_pools(snapshot: Snapshot, name: str, image: Image) -> None:
    pool = usable_pool(snapshot, name)
    home = snapshot.find(type(pool), facts.pool_of(image.status.volume))
    if home is not None and len({home.spec.node, pool.spec.node} - {""}) > 1:
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            f"{image.name} is on {home.spec.node}, {name} on {pool.spec.node}: keep the image in a "
            "pool that all nodes share, or make or import it there under another name",
            "pool",
        )


def _root_size(request: api.ProvisionVmRequest, image: Image) -> int:
    if 0 < request.root_size_bytes < image.status.size_bytes:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{image.name} has {image.status.size_bytes} bytes, and {request.root_size_bytes} "
            "would cut it off",
            "root_size_bytes",
        )
    return request.root_size_bytes or image.status.size_bytes


def _check_drives(spec: vm_pb2.VmSpec) -> None:
    bad = reason_pb2.REASON_INVALID_FIELD
    if len(spec.disks) > DISKS_MAX - 2:
        refuse(bad, f"at most {DISKS_MAX - 2} drives: root and seed are added", "spec.disks")
    for index, disk in enumerate(spec.disks):
        if disk.id in (ROOT, SEED):
            text = f"a drive {disk.id!r} is added from the image; call this one differently"
            refuse(bad, text, f"spec.disks[{index}].id")
    orders = [(f"spec.disks[{i}]", disk.boot_order) for i, disk in enumerate(spec.disks)]
    orders += [(f"spec.nics[{i}]", nic.boot_order) for i, nic in enumerate(spec.nics)]
    for field, order in orders:
        if order == 1:
            text = "the drive root is the first to boot from; give this one a later place"
            refuse(bad, text, f"{field}.boot_order")


def _fill_interfaces(snapshot: Snapshot, wanted: api.ProvisionVmRequest, operation_id: str) -> None:
    """Hardware addresses are chosen here: the seed's network data names them."""
    if wanted.spec.nics and wanted.network:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "network is for an interface that is added; spec.nics has its own: leave one out",
            "network",
        )
    if not wanted.spec.nics:
        wanted.network = wanted.network or DEFAULT_NETWORK
        wanted.spec.nics.add(id=NET0, network=wanted.network)
    own = {nic.mac for nic in wanted.spec.nics}
    for index, nic in enumerate(wanted.spec.nics):
        field = "network" if wanted.network else f"spec.nics[{index}].network"
        if snapshot.find(network_pb2.Network, nic.network) is None:
            text = f"{shown(nic.network)} does not exist"
            refuse(reason_pb2.REASON_DANGLING_REFERENCE, text, field)
        nic.mac = nic.mac or _free_mac(
            f"{operation_id}/{nic.id}", lambda mac: mac in own or bool(holders(snapshot, mac))
        )
        own.add(nic.mac)


def _free_mac(seed: str, is_taken: Callable[[str], bool]) -> str:
    attempt = 0
    while is_taken(mac := _mac(f"{seed}/{attempt}")):
        attempt += 1
    return mac


def _mac(seed: str) -> str:
    digest = hashlib.sha256(seed.encode()).digest()
    return ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in digest[:3])])

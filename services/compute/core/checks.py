"""Refuses VM specs that cannot be, naming the field at fault. Pure; what the contract's own rules
check is not repeated here."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.core.companions import check_companions
from services.mesh.errors import refuse
from services.mesh.holders import holders
from services.mesh.validate import check_unchanged
from services.state.store import Snapshot

Place = Callable[[str, int], str]
"""("disks", 0) → the field of the request that this device came in."""


def in_spec(kind: str, index: int) -> str:
    """Where devices of a whole VM are."""
    return f"vm.spec.{kind}[{index}]"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A VM as it is to be, with defaults filled in, before it is accepted."""

    snapshot: Snapshot
    vm: vm_pb2.Vm
    before: vm_pb2.Vm | None = None
    """As it is now; None for a new one."""
    place: Place = in_spec


def check_vm(candidate: Candidate) -> None:
    """Raises PvcError for the first thing that cannot be."""
    check_machine(candidate.vm.spec)
    check_boot_order(candidate)
    check_identity(candidate)
    for index, disk in enumerate(candidate.vm.spec.disks):
        check_drive(disk, candidate.place("disks", index))
        check_volume(candidate, disk, f"{candidate.place('disks', index)}.volume")
    check_one_node(candidate)
    for index, nic in enumerate(candidate.vm.spec.nics):
        check_nic(candidate, nic, candidate.place("nics", index))
    check_companions(candidate.snapshot, candidate.vm, candidate.before)


def check_machine(spec: vm_pb2.VmSpec) -> None:
    """Processors and memory that fit their limits."""
    cpu, memory, bad = spec.cpu, spec.memory, reason_pb2.REASON_INVALID_FIELD
    product = cpu.sockets * cpu.cores * cpu.threads
    if product and product != cpu.max_vcpus:
        refuse(
            bad,
            f"{cpu.sockets} sockets × {cpu.cores} cores × {cpu.threads} threads make {product} "
            f"processors, and max_vcpus is {cpu.max_vcpus}; make them the same",
            "vm.spec.cpu.max_vcpus",
        )
    if cpu.vcpus > cpu.max_vcpus:
        refuse(
            bad,
            f"{cpu.vcpus} processors are more than max_vcpus, {cpu.max_vcpus}; raise that too "
            "(it takes effect at the next start)",
            "vm.spec.cpu.vcpus",
        )
    if memory.memory_mib > memory.max_memory_mib:
        refuse(
            bad,
            f"{memory.memory_mib} MiB are more than max_memory_mib, {memory.max_memory_mib}; raise "
            "that too (it takes effect at the next start)",
            "vm.spec.memory.memory_mib",
        )


def check_boot_order(candidate: Candidate) -> None:
    """No two devices have the same place."""
    seen: dict[int, str] = {}
    spec = candidate.vm.spec
    orders = [("disks", i, disk.id, disk.boot_order) for i, disk in enumerate(spec.disks)]
    orders += [("nics", i, nic.id, nic.boot_order) for i, nic in enumerate(spec.nics)]
    for kind, index, id, order in orders:
        if order in seen:
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{id} and {seen[order]} have the same place in the boot order, {order}; give "
                "each its own",
                f"{candidate.place(kind, index)}.boot_order",
            )
        if order:
            seen[order] = id


def check_identity(candidate: Candidate) -> None:
    """A UUID that is nobody else's and never changes."""
    vm, before = candidate.vm, candidate.before
    if before is not None:
        check_unchanged(before.spec, vm.spec, "vm.spec")
    for other in others(candidate, vm.spec.uuid):
        if other.spec.uuid == vm.spec.uuid:
            refuse(
                reason_pb2.REASON_IN_USE,
                f"the UUID {vm.spec.uuid} is {other.name}'s; leave it out to get a new one",
                "vm.spec.uuid",
            )


def check_drive(disk: vm_pb2.DiskSpec, field: str) -> None:
    """A drive that QEMU can build."""
    cdrom = disk.device == vm_pb2.DISK_DEVICE_CDROM
    if cdrom and disk.bus == vm_pb2.DISK_BUS_VIRTIO_BLK:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{disk.id}: virtio-blk has no CD-ROM drives; use SATA or virtio-scsi",
            f"{field}.bus",
        )
    if not disk.volume and not cdrom:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{disk.id}: a disk needs a volume; only a CD-ROM drive can be empty",
            f"{field}.volume",
        )
    if disk.read_only and not cdrom and disk.bus == vm_pb2.DISK_BUS_SATA:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{disk.id}: a SATA disk cannot be read-only; use virtio-scsi, or make it a "
            "CD-ROM drive",
            f"{field}.read_only",
        )


def check_volume(candidate: Candidate, disk: vm_pb2.DiskSpec, field: str) -> None:
    """A volume that exists, is ready, and is written by one drive at most."""
    if not disk.volume:
        return
    check_writers(candidate, disk, field)
    if _had(candidate.before, disk):
        return
    volume = candidate.snapshot.find(storage_pb2.Volume, disk.volume)
    if volume is None:
        refuse(reason_pb2.REASON_DANGLING_REFERENCE, f"{disk.volume} does not exist", field)
    ready = volume.status.state == storage_pb2.VolumeStatus.STATE_READY
    if not ready or volume.meta.HasField("delete_time"):
        state = storage_pb2.VolumeStatus.State.Name(volume.status.state).removeprefix("STATE_")
        state = "DELETING" if volume.meta.HasField("delete_time") else state
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{disk.volume} is {state}{_because(volume.status.why)}; it must be READY",
            field,
        )
    if volume.spec.sealed and not disk.read_only:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{disk.volume} is sealed: nobody writes it any more. Make a copy of it (a volume with "
            "this one as its source), or set read_only",
            field,
        )


def check_writers(candidate: Candidate, disk: vm_pb2.DiskSpec, field: str) -> None:
    """Several drives may read a volume; none may write it that another uses."""
    for owner, other in _uses(candidate, disk):
        if not (disk.read_only and other.read_only):
            refuse(
                reason_pb2.REASON_IN_USE,
                f"{disk.volume} is used by {owner} (drive {other.id}); a volume that is written "
                "belongs to one drive alone",
                field,
            )


def check_one_node(candidate: Candidate) -> None:
    """All volumes can be opened on the same node; on the VM's own while it runs."""
    vm, before = candidate.vm, candidate.before
    home, holder = "", ""
    if before is not None and before.decision.node and not is_off(before):
        home, holder = before.decision.node, f"{vm.name} runs"
    for index, disk in enumerate(vm.spec.disks):
        node = node_of_volume(candidate.snapshot, disk.volume)
        if node and home and node != home:
            refuse(
                reason_pb2.REASON_NOT_SUPPORTED,
                f"{disk.volume} is on {node}, and {holder} on {home}: no node can open both",
                f"{candidate.place('disks', index)}.volume",
            )
        if node and not home:
            home, holder = node, f"{disk.volume} is"


def check_nic(candidate: Candidate, nic: vm_pb2.NicSpec, field: str) -> None:
    """A network that exists, and an address that is nobody else's."""
    before = candidate.before.spec.nics if candidate.before is not None else ()
    known = any(old.id == nic.id and old.network == nic.network for old in before)
    if not known and candidate.snapshot.find(network_pb2.Network, nic.network) is None:
        refuse(
            reason_pb2.REASON_DANGLING_REFERENCE,
            f"{nic.network} does not exist",
            f"{field}.network",
        )
    same = [other for other in candidate.vm.spec.nics if other.mac == nic.mac]
    owners = [(other.name, x) for other in others(candidate, nic.mac) for x in other.spec.nics]
    owners += [(candidate.vm.name, x) for x in same[1:]]
    for owner, other in owners:
        if other.mac == nic.mac:
            refuse(
                reason_pb2.REASON_IN_USE,
                f"{nic.mac} is {owner}'s (interface {other.id}); leave it out to get a free one",
                f"{field}.mac",
            )


def others(candidate: Candidate, thing: str) -> Iterator[vm_pb2.Vm]:
    """All VMs but this one that have something to do with a volume, an address or a UUID."""
    for vm in holders(candidate.snapshot, thing):
        if vm.name != candidate.vm.name and (
            candidate.before is None or vm.name != candidate.before.name
        ):
            yield vm


@dataclass(frozen=True, slots=True)
class MacsOfOthers(Container[str]):
    """The hardware addresses of all VMs but one."""

    snapshot: Snapshot
    name: str

    def __contains__(self, mac: object) -> bool:
        return any(vm.name != self.name for vm in holders(self.snapshot, str(mac)))


def is_off(vm: vm_pb2.Vm) -> bool:
    """Nothing of it runs, and nothing is to run."""
    off = (
        vm_pb2.VM_STATE_UNSPECIFIED,
        vm_pb2.VM_STATE_STOPPED,
        vm_pb2.VM_STATE_CRASHED,
        vm_pb2.VM_STATE_FAILED,
    )
    wanted = (vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED)
    power = wish_of(vm)
    return vm.status.state in off and power not in wanted and vm.decision.power not in wanted


def wish_of(vm: vm_pb2.Vm) -> vm_pb2.PowerState.ValueType:
    """What is wanted of it now: what was asked for last, or what the coordinator made of that
    since, as when its node started anew or its guest switched itself off."""
    answered = vm.decision.power_request == vm.spec.power_request
    return vm.decision.power if answered else vm.spec.power


def node_of_volume(snapshot: Snapshot, volume: str) -> str:
    """The only node that can open a volume; "" when every node can or it is not known."""
    pool = snapshot.find(storage_pb2.Pool, volume.partition("/volumes/")[0]) if volume else None
    return pool.spec.node if pool is not None else ""


def _uses(candidate: Candidate, disk: vm_pb2.DiskSpec) -> Iterator[tuple[str, vm_pb2.DiskSpec]]:
    for other in candidate.vm.spec.disks:
        if other.id != disk.id and other.volume == disk.volume:
            yield candidate.vm.name, other
    for vm in others(candidate, disk.volume):
        for other in vm.spec.disks:
            if other.volume == disk.volume:
                yield vm.name, other


def _had(before: vm_pb2.Vm | None, disk: vm_pb2.DiskSpec) -> bool:
    """The VM had this very drive already: what became of its volume since is no reason to refuse
    another change."""
    return before is not None and any(old == disk for old in before.spec.disks)


def _because(why: str) -> str:
    return f" ({why})" if why else ""

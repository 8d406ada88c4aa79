"""Fills in what a VM's spec leaves open, and chooses hardware addresses. Pure: the same VM always
gets the same."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Container

from pvc.compute.v1 import vm_pb2

MEMORY_MIB = 1024
SHUTDOWN_TIMEOUT_S = 180
MAX_RESTARTS = 5
RESTART_DELAY_S = 2
PRIORITY = 500
START_AFTER_TIMEOUT_S = 300
MAX_TRIES = 3
MAX_DOWNTIME_MS = 500
MAC_PREFIX = "52:54:00"
"""Locally administered, and known everywhere as QEMU's."""
_NAMESPACE = uuid.UUID("6f1c0b3e-3c55-5c0e-9a55-0d3f5b0f7c11")


def fill(spec: vm_pb2.VmSpec, uid: str, taken: Container[str], order: bool = True) -> None:
    """Fills in a spec in place. uid: the VM's for ever; taken: hardware addresses of other VMs;
    order: give a boot order where there is none."""
    _fill_machine(spec)
    _fill_life(spec)
    _fill_companions(spec)
    if not spec.uuid:
        spec.uuid = uuid_of(uid)
    for disk in spec.disks:
        fill_disk(disk)
    if order:
        _fill_boot_order(spec)
    fill_nics(spec, uid, taken)


def uuid_of(uid: str) -> str:
    """The domain's UUID that goes with a VM's uid."""
    return str(uuid.uuid5(_NAMESPACE, uid))


def fill_disk(disk: vm_pb2.DiskSpec) -> None:
    """Fills in one drive in place."""
    disk.device = disk.device or vm_pb2.DISK_DEVICE_DISK
    cdrom = disk.device == vm_pb2.DISK_DEVICE_CDROM
    disk.bus = disk.bus or (vm_pb2.DISK_BUS_SATA if cdrom else vm_pb2.DISK_BUS_VIRTIO_SCSI)
    disk.cache = disk.cache or vm_pb2.DISK_CACHE_NONE
    disk.read_only = disk.read_only or cdrom
    if not disk.HasField("discard"):
        disk.discard = not disk.read_only


def fill_nics(spec: vm_pb2.VmSpec, uid: str, taken: Container[str]) -> None:
    """Fills in the interfaces in place; each address that is chosen is free among `taken` and its
    own VM's."""
    own = {nic.mac for nic in spec.nics if nic.mac}
    for nic in spec.nics:
        nic.model = nic.model or vm_pb2.NIC_MODEL_VIRTIO
        if not nic.mac:
            nic.mac = free_mac(uid, nic.id, taken, own)
            own.add(nic.mac)


def free_mac(uid: str, nic: str, *taken: Container[str]) -> str:
    """The first address that belongs to this interface and is not taken."""
    attempt = 0
    while any((mac := _mac(uid, nic, attempt)) in some for some in taken):
        attempt += 1
    return mac


def grow_limits(spec: vm_pb2.VmSpec, before: vm_pb2.VmSpec, paths: Collection[str]) -> None:
    """Lets a limit that only ever followed its value follow it up, unless the update names the
    limit itself."""
    cpu, memory = spec.cpu, spec.memory
    followed = before.cpu.max_vcpus == before.cpu.vcpus and not before.cpu.sockets
    if followed and cpu.vcpus > cpu.max_vcpus and "spec.cpu.max_vcpus" not in paths:
        cpu.max_vcpus = cpu.vcpus
    followed = before.memory.max_memory_mib == before.memory.memory_mib
    if (
        followed
        and memory.memory_mib > memory.max_memory_mib
        and "spec.memory.max_memory_mib" not in paths
    ):
        memory.max_memory_mib = memory.memory_mib


def _fill_machine(spec: vm_pb2.VmSpec) -> None:
    cpu, memory = spec.cpu, spec.memory
    if cpu.sockets or cpu.cores or cpu.threads:
        cpu.sockets, cpu.cores, cpu.threads = cpu.sockets or 1, cpu.cores or 1, cpu.threads or 1
        cpu.max_vcpus = cpu.max_vcpus or cpu.sockets * cpu.cores * cpu.threads
        cpu.vcpus = cpu.vcpus or cpu.max_vcpus
    cpu.vcpus = cpu.vcpus or 1
    cpu.max_vcpus = cpu.max_vcpus or cpu.vcpus
    memory.memory_mib = memory.memory_mib or memory.max_memory_mib or MEMORY_MIB
    memory.max_memory_mib = memory.max_memory_mib or memory.memory_mib
    spec.machine = spec.machine or "q35"
    spec.firmware = spec.firmware or vm_pb2.FIRMWARE_BIOS
    for device in ("serial_console", "vnc", "guest_agent", "rng"):
        if not spec.HasField(device):
            setattr(spec, device, True)


def _fill_life(spec: vm_pb2.VmSpec) -> None:
    policy = spec.crash_policy
    policy.action = policy.action or vm_pb2.CRASH_ACTION_RESTART
    policy.max_restarts = policy.max_restarts or MAX_RESTARTS
    policy.delay_s = policy.delay_s or RESTART_DELAY_S
    spec.autostart = spec.autostart or vm_pb2.AUTOSTART_LAST_STATE
    spec.shutdown_timeout_s = spec.shutdown_timeout_s or SHUTDOWN_TIMEOUT_S
    spec.power = spec.power or vm_pb2.POWER_STATE_OFF


def _fill_companions(spec: vm_pb2.VmSpec) -> None:
    """What becomes of it among nodes."""
    ha, placement, migration = spec.ha, spec.placement, spec.migration
    ha.policy = ha.policy or vm_pb2.NODE_FAILURE_POLICY_RESTART
    ha.priority = ha.priority or PRIORITY
    ha.start_after_timeout_s = ha.start_after_timeout_s or START_AFTER_TIMEOUT_S
    ha.max_tries = ha.max_tries or MAX_TRIES
    placement.selector = placement.selector or vm_pb2.NODE_SELECTOR_MEM
    if not placement.HasField("balance"):
        placement.balance = True
    migration.method = migration.method or vm_pb2.MIGRATION_METHOD_LIVE
    migration.max_downtime_ms = migration.max_downtime_ms or MAX_DOWNTIME_MS


def _fill_boot_order(spec: vm_pb2.VmSpec) -> None:
    """A VM that nobody gave an order boots from its first disk."""
    if any(disk.boot_order for disk in spec.disks) or any(nic.boot_order for nic in spec.nics):
        return
    disks = [disk for disk in spec.disks if disk.device == vm_pb2.DISK_DEVICE_DISK]
    if first := next(iter(disks or spec.disks), None):
        first.boot_order = 1


def _mac(uid: str, nic: str, attempt: int) -> str:
    digest = hashlib.sha256(f"{uid}/{nic}/{attempt}".encode()).digest()
    return ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in digest[:3])])

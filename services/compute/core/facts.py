"""What a status tells beside the state: hardware as it is, what is in effect, what waits for a
restart. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pvc.compute.v1 import vm_pb2
from services.compute.core.status import PAUSED, RUNNING, clear_running
from services.compute.drivers.observed import Observed


def facts_off(vm: vm_pb2.Vm, node: str, wanted: bool) -> vm_pb2.VmStatus:
    """The status of a VM of which nothing runs. wanted: it is to run, so that no request to be off
    is in effect."""
    after = vm_pb2.VmStatus()
    after.CopyFrom(vm.status)
    clear_running(after)
    after.node = node
    after.generation = vm.meta.generation
    if not wanted:
        after.power_request = vm.decision.power_request
        after.guest_shutdown = False
    return after


def facts_on(
    vm: vm_pb2.Vm,
    node: str,
    live: Observed,
    volumes: Mapping[str, tuple[str, int]],
    guest: vm_pb2.GuestStatus | None,
    pending: Sequence[str] | None,
) -> vm_pb2.VmStatus:
    """The status of a VM that runs. pending: what waits for a restart; None while that cannot be
    told."""
    after = vm_pb2.VmStatus()
    after.CopyFrom(vm.status)
    clear_running(after)
    after.node, after.vnc, after.accelerator = node, live.vnc, live.accelerator
    after.vcpus, after.memory_mib = live.vcpus, live.memory_mib
    for disk in sorted(live.disks.values(), key=lambda disk: disk.id):
        volume, size = volumes.get(disk.path, ("", 0))
        after.disks.add(id=disk.id, target=disk.target, volume=volume, size_bytes=size)
    for nic in sorted(live.nics.values(), key=lambda nic: nic.id):
        after.nics.add(id=nic.id, mac=nic.mac, device=nic.device)
    if guest is not None:
        after.guest.CopyFrom(guest)
    if pending is None:
        after.pending_restart.extend(vm.status.pending_restart)
    else:
        after.pending_restart.extend(pending)
        after.generation = vm.meta.generation
    wanted = {vm_pb2.POWER_STATE_RUNNING: RUNNING, vm_pb2.POWER_STATE_PAUSED: PAUSED}
    if wanted.get(vm.decision.power) == after.state:
        after.power_request = vm.decision.power_request
    return after

"""Fits a VM's spec to this node: which files and bridges its volumes and networks are here, and
what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pvc.compute.v1 import vm_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.drivers.domain_xml import Bridge, Machine, VolumeFile
from services.compute.parts import is_held_by, mtu_of, network_at, volume_at
from services.compute.settings import ComputeSettings
from services.state.store import Snapshot

_FORMATS = {storage_pb2.IMAGE_FORMAT_RAW: "raw"}


def machine_for(
    snapshot: Snapshot,
    vm: vm_pb2.Vm,
    settings: ComputeSettings,
    accelerator: str,
    targets: Mapping[str, str],
) -> Machine:
    """What the domain's XML must know of the node. targets: names that drives have already."""
    vm_id = vm.name.removeprefix("vms/")
    return Machine(
        accelerator=accelerator,
        console_log=str(settings.console_log(vm_id)),
        nvram=str(settings.nvram(vm_id)),
        volumes=dict(_files(snapshot, vm)),
        networks=dict(_bridges(snapshot, vm, settings.node)),
        targets=targets,
        cpu_model=settings.cpu_model,
    )


def missing(snapshot: Snapshot, vm: vm_pb2.Vm, node: str) -> str:
    """What keeps the VM from being started here, for people; "" when nothing does."""
    gap = next(gaps(snapshot, vm, node), "")
    return f"{gap}; waiting for it" if gap else ""


def gaps(
    snapshot: Snapshot, vm: vm_pb2.Vm, node: str, copied: Collection[str] = ()
) -> Iterator[str]:
    """All that a VM would need on the node and that is not there. copied: volumes that are copied
    there."""
    for disk in vm.spec.disks:
        if disk.volume and disk.volume not in copied:
            yield from _volume_gaps(snapshot, disk.volume, node)
    for name in dict.fromkeys(nic.network for nic in vm.spec.nics):
        network = snapshot.find(network_pb2.Network, name)
        here = network_at(network, node) if network is not None else None
        if here is None or not here.ready or not here.bridge:
            why = f" ({here.why})" if here is not None and here.why else ""
            yield f"{name} is not ready on this node{why}"


def copies(snapshot: Snapshot, vm: vm_pb2.Vm) -> dict[str, str]:
    """Images that are copied along in its migration → those that their content goes to."""
    found: dict[str, str] = {}
    for name, place in vm.decision.migration.volumes.items():
        here = snapshot.find(storage_pb2.Volume, name)
        there = snapshot.find(storage_pb2.Volume, place)
        if here is not None and there is not None:
            found[here.status.path] = there.status.path
    return found


def _volume_gaps(snapshot: Snapshot, name: str, node: str) -> Iterator[str]:
    volume = snapshot.find(storage_pb2.Volume, name)
    if volume is None or not _usable(volume):
        yield f"{name} is {'GONE' if volume is None else _volume_state(volume)}"
    if volume is not None and (why := volume_at(snapshot, volume, node)):
        yield f"{name} cannot be opened here ({why})"


def volumes_by_path(snapshot: Snapshot, vm: vm_pb2.Vm, node: str) -> dict[str, tuple[str, int]]:
    """Image file of this node → (volume, size in bytes), for all volumes that the VM has or still
    has. Another node's own pool may lie at the same path: its volumes are none of these."""
    found: dict[str, tuple[str, int]] = {}
    for name in {*(d.volume for d in vm.spec.disks), *(d.volume for d in vm.status.disks)} - {""}:
        volume = snapshot.find(storage_pb2.Volume, name)
        if volume is not None and volume.status.path and is_held_by(snapshot, volume, node):
            found[volume.status.path] = (name, volume.status.size_bytes or volume.spec.size_bytes)
    return found


def _files(snapshot: Snapshot, vm: vm_pb2.Vm) -> list[tuple[str, VolumeFile]]:
    volumes = [snapshot.find(storage_pb2.Volume, d.volume) for d in vm.spec.disks if d.volume]
    return [
        (volume.name, VolumeFile(volume.status.path, _FORMATS.get(volume.spec.format, "qcow2")))
        for volume in volumes
        if volume is not None and _usable(volume)
    ]


def _bridges(snapshot: Snapshot, vm: vm_pb2.Vm, node: str) -> list[tuple[str, Bridge]]:
    networks = [snapshot.find(network_pb2.Network, nic.network) for nic in vm.spec.nics]
    return [
        (network.name, Bridge(here.bridge, mtu_of(network)))
        for network in networks
        if network is not None and (here := network_at(network, node)).ready and here.bridge
    ]


def _usable(volume: storage_pb2.Volume) -> bool:
    return volume.status.state == storage_pb2.VolumeStatus.STATE_READY and bool(volume.status.path)


def _volume_state(volume: storage_pb2.Volume) -> str:
    state = storage_pb2.VolumeStatus.State.Name(volume.status.state).removeprefix("STATE_")
    return f"{state} ({volume.status.why})" if volume.status.why else state

"""Volumes that running VMs of this node have open: which VM it is, which file, and snapshots of
several at one moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.core.status import STARTING, WHILE_ON
from services.compute.drivers.hypervisor import OpenDisks
from services.mesh.errors import PvcError, not_found
from services.state.store import Store


@dataclass(slots=True)
class Moment:
    """One snapshot of several volumes: taken by whoever asks for the first of them."""

    volumes: tuple[str, ...]
    quiesced: bool | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class OpenVolumes:
    """One node's. Volumes are named as resources; the driver gets VMs and files."""

    def __init__(self, store: Store, disks: OpenDisks, node: str) -> None:
        self._store = store
        self._disks = disks
        self._node = node
        self._moments: dict[tuple[str, str], Moment] = {}

    def resize(self, volume: str, size_bytes: int) -> None:
        """Tells the emulator of the new size. Raises WRONG_STATE when no VM of this node has the
        volume open."""
        self._disks.resize(self._vm(volume), self._path(volume), size_bytes)

    def snapshot(self, volumes: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        """Snapshots inside the images; True if the file systems were frozen. When a snapshot of the
        whole VM goes on, all its volumes are taken with the first one, and the others are told what
        came of it."""
        vm = self._vm(volumes[0])
        for volume in volumes[1:]:
            if self._vm(volume) != vm:
                raise PvcError(
                    reason_pb2.REASON_INVALID_FIELD,
                    f"{volume} and {volumes[0]} are not open in the same VM",
                    field="volumes",
                )
        moment = self._moments.get((vm, snapshot_id))
        if moment is None or not set(volumes) <= set(moment.volumes):
            return self._take(vm, volumes, snapshot_id, quiesce)
        with moment.lock:
            if moment.quiesced is None:
                moment.quiesced = self._take(vm, moment.volumes, snapshot_id, quiesce)
            return moment.quiesced

    def delete_snapshot(self, volume: str, snapshot_id: str) -> None:
        """Not an error if there is none."""
        self._disks.delete_snapshot(self._vm(volume), self._path(volume), snapshot_id)

    @contextmanager
    def at_one_moment(
        self, vm: vm_pb2.Vm, snapshot_id: str, volumes: Sequence[str]
    ) -> Iterator[None]:
        """While this lasts, asking for a snapshot of one of the volumes takes all."""
        key = (vm.name.removeprefix("vms/"), snapshot_id)
        self._moments[key] = Moment(tuple(volumes))
        try:
            yield
        finally:
            del self._moments[key]

    def _take(self, vm: str, volumes: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        paths = [self._path(volume) for volume in volumes]
        return self._disks.snapshot(vm, paths, snapshot_id, quiesce)

    def _vm(self, volume: str) -> str:
        """The id of the VM that has the volume open here."""
        for vm in self._store.snapshot().rows(vm_pb2.Vm):
            on = vm.status.state in WHILE_ON or vm.status.state == STARTING
            names = {d.volume for d in vm.spec.disks} | {d.volume for d in vm.status.disks}
            if on and vm.status.node == self._node and volume in names:
                return vm.name.removeprefix("vms/")
        raise PvcError(
            reason_pb2.REASON_WRONG_STATE, f"no VM that runs on {self._node} has {volume} open"
        )

    def _path(self, volume: str) -> str:
        row = self._store.snapshot().find(storage_pb2.Volume, volume)
        if row is None:
            raise not_found(volume, "volume")
        return row.status.path

"""Which VMs have a thing: a volume, a hardware address, a UUID. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pvc.compute.v1 import vm_pb2
from services.state.store import Snapshot
from services.state.table import Index


def _things(vm: vm_pb2.Vm) -> Iterator[str]:
    yield vm.spec.uuid
    yield from (nic.mac for nic in vm.spec.nics)
    yield from (drive.volume for drive in vm.spec.disks)
    yield from (drive.volume for drive in vm.status.disks)
    for old, place in vm.decision.migration.volumes.items():
        yield from (old, place)


THINGS = Index(vm_pb2.Vm, _things)


def holders(snapshot: Snapshot, thing: str) -> tuple[vm_pb2.Vm, ...]:
    """The VMs that a volume, a hardware address or a UUID is in: in the spec, or for a volume also
    in the status or in a move that goes on. By name."""
    return snapshot.having(THINGS, thing) if thing else ()

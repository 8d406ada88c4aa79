"""Room that is kept free so that the VMs of failed nodes can be restarted on the others.

Counts memory only, and of the cluster as a whole: a promise that no single number can make exact.
Recovery itself is not held back by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.capacity import Load, Seat
from services.coordinator.core.world import World, memory_of

HERE = frozenset({cluster_pb2.NODE_STATE_ONLINE, cluster_pb2.NODE_STATE_DRAINING})
"""States of nodes whose VMs run there, as far as anybody knows."""


@dataclass(frozen=True, slots=True)
class Room:
    """Memory in MiB."""

    reserved_mib: int
    """Must stay free."""
    free_mib: int
    """Can be promised beyond that; below zero when a failure would leave VMs without room."""


def room_of(load: Load, reserve_nodes: int) -> Room:
    """When a node fails, what was free on it is lost and what is restarted has to go elsewhere: the
    worst nodes are those where both together are the most. VMs that have no node to run on now take
    room too."""
    seats = load.seats.values()
    free = sum(_free(seat) for seat in seats)
    homeless = sum(x.restarted_mib for x in seats if x.node.decision.state not in HERE)
    needs = sorted((_need(seat) for seat in seats), reverse=True)
    reserved = sum(needs[:reserve_nodes]) + (homeless if reserve_nodes else 0)
    return Room(reserved, free - reserved)


def start_refused(world: World, load: Load, vm: vm_pb2.Vm) -> str:
    """Why starting the VM, which does not count yet, would take the room of others; "" when it
    would not, or no room is promised."""
    nodes = world.spec.reserve_nodes
    if not nodes:
        return ""
    room, wanted = room_of(load, nodes), memory_of(vm)
    if wanted <= room.free_mib:
        return ""
    return (
        f"its {wanted} MiB would take room that is kept for the VMs of {nodes} failed "
        f"{'node' if nodes == 1 else 'nodes'}: {max(room.free_mib, 0)} MiB can be promised beyond "
        f"the {room.reserved_mib} MiB that stay free (see reserve_nodes of the cluster)"
    )


def _free(seat: Seat) -> int:
    return 0 if seat.closed else max(seat.free_mib, 0)


def _need(seat: Seat) -> int:
    here = seat.node.decision.state in HERE
    return seat.restarted_mib + _free(seat) if here else 0

"""Puts the gateway together: what answers inside the mesh, and the doors to the outside."""

from __future__ import annotations

from dataclasses import dataclass

from pvc.gateway.v1 import access_service_pb2_grpc as api_grpc
from services.gateway.door import Door, Peers
from services.gateway.doors import Doors, Settings
from services.gateway.tokens import AccessService
from services.mesh.clock import Clock
from services.mesh.desk import Desk
from services.mesh.parts import Parts
from services.state.store import Store


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway of one node. The process starts `parts` with the others, and opens `doors` last
    and closes them first: `await doors.start()`, `await doors.stop()`."""

    parts: Parts
    doors: Doors


def build(
    settings: Settings,
    store: Store,
    clock: Clock,
    peers: Peers,
    *,
    node: str,
    cluster_name: str,
    version: str,
) -> Gateway:
    """node: "nodes/n1". Raises INVALID_CONFIG."""
    access = AccessService(Desk(store, clock, node), cluster_name, version)
    return Gateway(
        Parts(servicers=((api_grpc.add_AccessServiceServicer_to_server, access),)),
        Doors(settings, Door(store, clock, peers)),
    )

"""Puts the coordinator together."""

from __future__ import annotations

from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from services.coordinator.cluster_service import ClusterService
from services.coordinator.event_service import EventService
from services.coordinator.letting_in import LettingIn
from services.coordinator.loop import PERIOD_S, READS, Coordinator
from services.coordinator.node_service import NodeService
from services.coordinator.operation_service import OperationService
from services.coordinator.placement_service import PlacementService
from services.coordinator.settings import Membership, membership_of
from services.mesh.clock import Clock
from services.mesh.desk import Desk
from services.mesh.errors import PvcError
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.state.store import Store


def build_on(ground: Ground) -> Parts:
    """From a node's configuration."""
    config = ground.config
    membership = membership_of(config)
    return build(ground.store, ground.clock, config.node_name, config.cluster.name, membership)


def build(
    store: Store, clock: Clock, node: str, cluster_name: str, membership: Membership | None = None
) -> Parts:
    """node: "nodes/n1". membership: what new machines are told; without it none can join."""
    letting_in = LettingIn(membership or Membership(cluster_name), clock)
    desk = Desk(store, clock, node)
    coordinator = Coordinator(store, clock, node)
    return Parts(
        servicers=(
            (api_grpc.add_NodeServiceServicer_to_server, NodeService(desk, letting_in, no_seal)),
            (api_grpc.add_ClusterServiceServicer_to_server, ClusterService(desk, cluster_name)),
            (api_grpc.add_OperationServiceServicer_to_server, OperationService(desk)),
            (api_grpc.add_EventServiceServicer_to_server, EventService(desk)),
            (api_grpc.add_PlacementServiceServicer_to_server, PlacementService(desk)),
        ),
        loops=(Loop("coordinator", coordinator.step, PERIOD_S, READS),),
        close=(coordinator.lead.close,),
    )


def no_seal(name: str, secret: bytes) -> bytes:
    """Stands where no key of the cluster is."""
    raise PvcError(
        reason_pb2.REASON_NOT_SUPPORTED, "this version cannot keep passwords of controllers yet"
    )

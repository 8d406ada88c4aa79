"""Puts the coordinator together."""

from __future__ import annotations

from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from services.coordinator.cluster_service import ClusterService
from services.coordinator.event_service import EventService
from services.coordinator.loop import PERIOD_S, READS, Coordinator
from services.coordinator.node_service import NodeService
from services.coordinator.operation_service import OperationService
from services.coordinator.placement_service import PlacementService
from services.mesh.clock import Clock
from services.mesh.desk import Desk
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.state.store import Store


def build_on(ground: Ground) -> Parts:
    """From a node's configuration."""
    config = ground.config
    return build(ground.store, ground.clock, config.node_name, config.cluster.name)


def build(store: Store, clock: Clock, node: str, cluster_name: str) -> Parts:
    """node: "nodes/n1"."""
    desk = Desk(store, clock, node)
    coordinator = Coordinator(store, clock, node)
    return Parts(
        servicers=(
            (api_grpc.add_NodeServiceServicer_to_server, NodeService(desk)),
            (api_grpc.add_ClusterServiceServicer_to_server, ClusterService(desk, cluster_name)),
            (api_grpc.add_OperationServiceServicer_to_server, OperationService(desk)),
            (api_grpc.add_EventServiceServicer_to_server, EventService(desk)),
            (api_grpc.add_PlacementServiceServicer_to_server, PlacementService(desk)),
        ),
        loops=(Loop("coordinator", coordinator.step, PERIOD_S, READS),),
        close=(coordinator.lead.close,),
    )

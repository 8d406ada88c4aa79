"""Puts the coordinator together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from services.coordinator.cluster_service import ClusterService
from services.coordinator.controllers import PERIOD_S as CHECK_PERIOD_S
from services.coordinator.controllers import ControllerChecks, Controllers
from services.coordinator.drivers.ipmi import Ipmi
from services.coordinator.drivers.power import PowerDriver
from services.coordinator.drivers.redfish import Redfish
from services.coordinator.drivers.storage_fence import NoStorageFence
from services.coordinator.event_service import EventService
from services.coordinator.fencer import PERIOD_S as FENCE_PERIOD_S
from services.coordinator.fencer import Fencer, pursuits
from services.coordinator.letting_in import LettingIn
from services.coordinator.loop import PERIOD_S, READS, Coordinator
from services.coordinator.node_service import NodeService
from services.coordinator.operation_service import OperationService
from services.coordinator.placement_service import PlacementService
from services.coordinator.runner import ThreadRunner
from services.coordinator.settings import Membership, membership_of
from services.coordinator.switcher import PERIOD_S as SWITCH_PERIOD_S
from services.coordinator.switcher import Switcher
from services.mesh.clock import Clock
from services.mesh.desk import Desk
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.mesh.sealing import read_key, seal
from services.state.store import Lease, Snapshot, Store

PowerDrivers: TypeAlias = "Mapping[cluster_pb2.PowerControl.Protocol.ValueType, PowerDriver]"
DRIVERS: PowerDrivers = {
    cluster_pb2.PowerControl.PROTOCOL_REDFISH: Redfish(),
    cluster_pb2.PowerControl.PROTOCOL_IPMI: Ipmi(),
}


def build_on(ground: Ground) -> Parts:
    """From a node's configuration."""
    config = ground.config
    membership = membership_of(config)
    return build(ground.store, ground.clock, config.node_name, config.cluster.name, membership)


def build(
    store: Store,
    clock: Clock,
    node: str,
    cluster_name: str,
    membership: Membership | None = None,
    drivers: PowerDrivers = DRIVERS,
) -> Parts:
    """node: "nodes/n1". membership: what new machines are told; without it none can join. drivers:
    of the controllers of nodes' power, by language."""
    membership = membership or Membership(cluster_name)
    letting_in = LettingIn(membership, clock)
    desk = Desk(store, clock, node)
    coordinator = Coordinator(store, clock, node)
    key = partial(read_key, membership.tls_dir)
    controllers = Controllers(drivers, key)
    nodes = NodeService(
        desk, letting_in, lambda name, secret: seal(key(), name, secret), controllers.is_on
    )
    return Parts(
        servicers=(
            (api_grpc.add_NodeServiceServicer_to_server, nodes),
            (api_grpc.add_ClusterServiceServicer_to_server, ClusterService(desk, cluster_name)),
            (api_grpc.add_OperationServiceServicer_to_server, OperationService(desk)),
            (api_grpc.add_EventServiceServicer_to_server, EventService(desk)),
            (api_grpc.add_PlacementServiceServicer_to_server, PlacementService(desk)),
        ),
        loops=(
            Loop("coordinator", coordinator.step, PERIOD_S, READS),
            *fencing(store, clock, node, coordinator, controllers),
            switching(store, clock, node, coordinator, controllers),
        ),
        close=(coordinator.lead.close,),
    )


def fencing(
    store: Store, clock: Clock, node: str, coordinator: Coordinator, controllers: Controllers
) -> tuple[Loop, Loop]:
    """What proves that nodes are dead, and what sees to it in time that it can."""

    def lease() -> Lease | None:
        return coordinator.lead.lease

    def gone_s(_snapshot: Snapshot, row: cluster_pb2.Node) -> float:
        return coordinator.evidence.gone_for(row, clock.monotonic())

    runner, asking = ThreadRunner(), ThreadRunner()
    pursue = pursuits(controllers, NoStorageFence(), runner, clock, gone_s)
    fencer = Fencer(store, clock, node, lease, pursue)
    checks = ControllerChecks(store, clock, controllers, asking, lease)
    fence_loop = Loop("coordinator-fencer", fencer.step, FENCE_PERIOD_S, ("nodes",))
    check_loop = Loop("coordinator-controllers", checks.step, CHECK_PERIOD_S, ("nodes",))
    runner.wake, asking.wake = fence_loop.wake, check_loop.wake
    return fence_loop, check_loop


def switching(
    store: Store, clock: Clock, node: str, coordinator: Coordinator, controllers: Controllers
) -> Loop:
    """What switches fenced machines on again."""

    def lease() -> Lease | None:
        return coordinator.lead.lease

    def gone_s(row: cluster_pb2.Node) -> float:
        return coordinator.evidence.gone_s(clock.monotonic()).get(row.name, 0.0)

    runner = ThreadRunner()
    switcher = Switcher(store, clock, node, lease, controllers, runner, gone_s)
    loop = Loop("coordinator-switcher", switcher.step, SWITCH_PERIOD_S, ("nodes",))
    runner.wake = loop.wake
    return loop

"""Puts the network service of a node together; touches nothing until its loop runs."""

from __future__ import annotations

from pvc.network.v1.network_service_pb2_grpc import add_NetworkServiceServicer_to_server
from services.mesh.clock import Clock
from services.mesh.config import Config
from services.mesh.desk import Desk
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.network.agent import READS, NetworkAgent
from services.network.core.naming import NAMESPACE_MARK
from services.network.drivers.fabric import Fabric
from services.network.drivers.linux import LinuxFabric
from services.network.service import NetworkService
from services.network.settings import NetworkSettings
from services.state.store import Store

PERIOD_S = 10.0
"""How long a death of a server, or somebody else's hand in our things, goes unseen."""


def settings_of(config: Config) -> NetworkSettings:
    """What a node's configuration says."""
    section = config.network
    folder = f"{config.node.run_dir}/network"
    return NetworkSettings(
        section.namespace, folder, section.uplink, section.default_cidr, config.mesh.listen
    )


def build_on(ground: Ground) -> Parts:
    """From a node's configuration; makes its namespace, so that others can be started in it."""
    settings = settings_of(ground.config)
    prepare(settings)
    return build(ground.store, ground.clock, ground.config.node_name, settings)


def build(store: Store, clock: Clock, node: str, settings: NetworkSettings) -> Parts:
    """node: "nodes/n1"."""
    return assemble(store, clock, node, settings, fabric_of(settings))


def assemble(
    store: Store, clock: Clock, node: str, settings: NetworkSettings, fabric: Fabric
) -> Parts:
    """As `build`, with any fabric."""
    agent = NetworkAgent(store, clock, fabric, settings.place, node)
    return Parts(
        servicers=(
            (add_NetworkServiceServicer_to_server, NetworkService(Desk(store, clock, node))),
        ),
        loops=(Loop("network-agent", agent.step, PERIOD_S, READS),),
    )


def prepare(settings: NetworkSettings) -> None:
    """Makes the namespace, for what must be started inside it before the agent's first round.
    Raises FabricError. May be called at any time."""
    fabric_of(settings).make_namespace(NAMESPACE_MARK)


def fabric_of(settings: NetworkSettings) -> LinuxFabric:
    """The node's network, for the agent, for cleaning up, and for reaching guests from the node."""
    return LinuxFabric(settings.namespace, settings.path)

"""Puts the gateway together: what answers inside the mesh, and the doors to the outside."""

from __future__ import annotations

from pvc.gateway.v1 import access_service_pb2_grpc as api_grpc
from pvc.gateway.v1 import audit_service_pb2_grpc as audit_grpc
from services.gateway.audit_service import AuditService
from services.gateway.door import Door, Peers
from services.gateway.doors import Doors, Settings, is_loopback
from services.gateway.tokens import AccessService
from services.mesh.clock import Clock
from services.mesh.config import Config
from services.mesh.desk import Desk
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.mesh.version import VERSION
from services.state.store import Store


def settings_of(config: Config) -> Settings:
    """What a node's configuration says. Doors beyond this machine speak TLS, with the node's own
    certificate unless another is given."""
    section = config.gateway
    certificate, key = section.certificate, section.key
    addresses = filter(None, (section.grpc_listen, section.rest_listen))
    if not certificate and not all(map(is_loopback, addresses)):
        certificate, key = (str(config.tls_dir / name) for name in ("node.crt", "node.key"))
    return Settings(
        grpc_address=section.grpc_listen,
        rest_address=section.rest_listen,
        socket=section.socket or f"{config.node.run_dir}/pvc.sock",
        certificate=certificate,
        key=key,
        allowed_origins=tuple(section.allowed_origins),
    )


def build_on(ground: Ground) -> Parts:
    """From a node's configuration."""
    config = ground.config
    return build(
        settings_of(config),
        ground.store,
        ground.clock,
        ground.peers,
        node=config.node_name,
        cluster_name=config.cluster.name,
        version=VERSION,
    )


def build(
    settings: Settings,
    store: Store,
    clock: Clock,
    peers: Peers,
    *,
    node: str,
    cluster_name: str,
    version: str,
) -> Parts:
    """node: "nodes/n1". Raises INVALID_CONFIG."""
    desk = Desk(store, clock, node)
    access = AccessService(desk, cluster_name, version)
    return Parts(
        servicers=(
            (api_grpc.add_AccessServiceServicer_to_server, access),
            (audit_grpc.add_AuditServiceServicer_to_server, AuditService(desk)),
        ),
        doors=(Doors(settings, Door(store, clock, peers, settings.tries_per_s)),),
    )

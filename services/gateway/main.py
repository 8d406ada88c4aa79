"""Puts the gateway together: what answers inside the mesh, and the doors to the outside."""

from __future__ import annotations

from pathlib import Path

from pvc.gateway.v1 import access_service_pb2_grpc as api_grpc
from pvc.gateway.v1 import audit_service_pb2_grpc as audit_grpc
from services.gateway.audit_service import AuditService
from services.gateway.door import Door, Peers
from services.gateway.doors import Doors, Settings, is_loopback
from services.gateway.limits import Bounds, Limits
from services.gateway.recorder import PERIOD_S, Recorder
from services.gateway.tokens import AccessService
from services.gateway.uses import PERIOD_S as USES_PERIOD_S
from services.gateway.uses import Uses
from services.mesh.clock import Clock
from services.mesh.config import Config
from services.mesh.desk import Desk
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.mesh.version import VERSION
from services.state.store import Store

JOURNAL = "audit.journal"


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
        allowed_origins=section.allowed_origins,
        bounds=Bounds(
            tries_per_s=section.tries_per_s,
            requests_per_s=section.requests_per_s,
            streams_per_caller=section.streams_per_caller,
            connections=section.connections,
        ),
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
        journal=Path(config.node.state_dir) / "gateway" / JOURNAL,
        strict=config.audit.strict,
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
    journal: Path | None = None,
    strict: bool = False,
) -> Parts:
    """node: "nodes/n1". journal: the file of calls that are not in the state yet; without one those
    of a process that dies are forgotten. strict: no change is let in that is not in it.
    Raises INVALID_CONFIG."""
    desk = Desk(store, clock, node)
    recorder = Recorder(store, clock, node, journal, strict=strict)
    uses = Uses(store, clock, node)
    door = Door(store, clock, peers, Limits(settings.bounds), recorder, uses, node)
    access = AccessService(desk, cluster_name, version)
    return Parts(
        servicers=(
            (api_grpc.add_AccessServiceServicer_to_server, access),
            (audit_grpc.add_AuditServiceServicer_to_server, AuditService(desk, recorder)),
        ),
        loops=(
            Loop("audit", recorder.step, PERIOD_S, ()),
            Loop("token-uses", uses.step, USES_PERIOD_S, ()),
        ),
        doors=(Doors(settings, door),),
        close=(recorder.close, uses.close),
    )

"""What the coordinator service of a node is told about the cluster that it lets machines into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.mesh.config import Config
from services.mesh.opening import credentials

FIRST_PORT = 7380


@dataclass(frozen=True, slots=True)
class Membership:
    """What a new machine is given, beside its certificate."""

    cluster: str
    tls_dir: Path = Path("/nonexistent")
    """Where the node's certificates are; and ca.key, where the node lets others in."""
    state_hosts: tuple[str, ...] = ()
    """Empty: the state is kept in a file of this machine, and no other can join."""
    state_credentials: str = ""
    state_tls: bool = False
    state_session_timeout_s: int = 0
    state_tick_ms: int = 0
    first_port: int = FIRST_PORT


def membership_of(config: Config) -> Membership:
    """What a node's configuration says. Raises INVALID_CONFIG."""
    state = config.state
    shared = state.driver == "zookeeper"
    return Membership(
        cluster=config.cluster.name,
        tls_dir=config.tls_dir,
        state_hosts=state.hosts if shared else (),
        state_credentials=credentials(state.credentials_file) if shared else "",
        state_tls=state.tls,
        state_session_timeout_s=state.session_timeout_s,
        state_tick_ms=state.tick_ms,
        first_port=config.mesh.first_port,
    )

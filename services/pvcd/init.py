"""Begins a cluster on this machine: its certificates, its first rows, and the first admin's token.

May be repeated: what is there is kept, what broke off half-way is mended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.gateway.tokens import ensure_first_token
from services.mesh import identity, rows
from services.mesh.clock import Clock, SystemClock
from services.mesh.config import Config, load
from services.mesh.desk import Call
from services.mesh.errors import PvcError
from services.mesh.opening import open_store
from services.network.service import default_network
from services.state.store import Put, Store
from services.storage.main import default_pool, settings_of

THIS_CLUSTER = "clusters/this"
CALLER = "cluster init"


@dataclass(frozen=True, slots=True)
class Begun:
    """What `init` made or found."""

    cluster: str
    node: str
    token_file: Path
    made: tuple[str, ...]
    """What was not there before, by name."""


def token_file(config: Config) -> Path:
    """Where the first admin's token is written, for root alone."""
    return Path(config.node.state_dir) / "admin.token"


def init(path: Path | None = None, clock: Clock | None = None) -> Begun:
    """Begins the cluster that the configuration at `path` describes. Raises PvcError, before
    anything is changed where a setting is at fault, or while pvcd runs."""
    config, clock = load(path), clock or SystemClock()
    state_dir = Path(config.node.state_dir)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    addresses = [config.mesh.listen] if config.mesh.listen else ["127.0.0.1"]
    store = open_store(config)
    try:
        identity.create_cluster(
            config.tls_dir, config.cluster.name, config.node.name, addresses, clock.now()
        )
        made = tuple(_first_rows(config, store, clock))
        ensure_first_token(store, clock, token_file(config))
    finally:
        store.close()
    return Begun(config.cluster.name, config.node_name, token_file(config), made)


def _first_rows(config: Config, store: Store, clock: Clock) -> Iterator[str]:
    """Writes what is missing of the first rows; the cluster's own comes last."""
    call = Call(clock.now(), CALLER, config.node_name, clock.new_id)
    there = store.snapshot().find(cluster_pb2.ClusterIdentity, THIS_CLUSTER)
    if there is not None:
        _check_name(there, config)
        return
    wanted = (
        default_pool(settings_of(config), clock),
        default_network(call, config.network.default_cidr),
        cluster_pb2.ClusterIdentity(
            name=THIS_CLUSTER, meta=rows.new_meta(call), display_name=config.cluster.name
        ),
    )
    for row in wanted:
        if store.snapshot().named(row.name) is None:
            store.commit([Put(row)])
            yield row.name


def _check_name(there: cluster_pb2.ClusterIdentity, config: Config) -> None:
    if there.display_name != config.cluster.name:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONFIG,
            f"{config.node.state_dir} holds the cluster {there.display_name!r}, and the "
            f"configuration says {config.cluster.name!r}: use another state_dir, or that name",
        )

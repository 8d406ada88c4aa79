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
from services.mesh.enrolment import make_cluster_key
from services.mesh.errors import PvcError
from services.mesh.identity import LOCAL_NAMES
from services.mesh.opening import open_store
from services.network.service import default_network
from services.state.store import Put, Store
from services.storage.main import default_pool, settings_of

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
    """Begins the cluster that the configuration at `path` describes, with this machine as its first
    node. Raises PvcError, before anything is changed where a setting is at fault, while pvcd runs,
    or where the cluster has been begun on another machine."""
    config, clock = load(path), clock or SystemClock()
    _check_settings(config)
    state_dir = Path(config.node.state_dir)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if config.state.tls:
        _certify(config, clock)  # the state is not shown to anybody without
    store = open_store(config)
    try:
        _check_ours(config, store)
        _certify(config, clock)
        made = tuple(_first_rows(config, store, clock))
        ensure_first_token(store, clock, token_file(config))
    finally:
        store.close()
    return Begun(config.cluster.name, config.node_name, token_file(config), made)


def _certify(config: Config, clock: Clock) -> None:
    """The cluster's authority and keys, and this node's certificate."""
    folder, name = config.tls_dir, config.cluster.name
    addresses = [*_addresses(config), *LOCAL_NAMES]
    identity.create_cluster(folder, name, config.node.name, addresses, clock.now())
    make_cluster_key(folder)


def _addresses(config: Config) -> Iterator[str]:
    """Where other machines find this one."""
    if config.mesh.listen:
        yield config.mesh.listen
    for door in (config.gateway.grpc_listen, config.gateway.rest_listen):
        host = door.rpartition(":")[0].strip("[]")
        if host and host not in (*LOCAL_NAMES, "0.0.0.0", "::", "::1", config.mesh.listen):
            yield host


def _check_settings(config: Config) -> None:
    if config.state.driver == "zookeeper" and not config.mesh.listen:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONFIG,
            "a cluster of several machines (state.driver is zookeeper) needs mesh.listen: this "
            "machine's address for the others",
        )


def _check_ours(config: Config, store: Store) -> None:
    """Raises INVALID_CONFIG when the state is another cluster's, or was begun elsewhere."""
    snapshot = store.snapshot()
    there = snapshot.find(cluster_pb2.ClusterIdentity, rows.THIS_CLUSTER)
    if there is None:
        return
    _check_name(there, config)
    known = snapshot.find(cluster_pb2.Node, config.node_name) is not None
    if config.state.driver == "zookeeper" and not known:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONFIG,
            f"the cluster {there.display_name!r} was begun on another machine already; to be a "
            f"node of it: 'pvc node add {config.node.name}' there, then 'pvc cluster join' here",
        )


def _first_rows(config: Config, store: Store, clock: Clock) -> Iterator[str]:
    """Writes what is missing of the first rows; the cluster's own comes last."""
    call = Call(clock.now(), CALLER, config.node_name, clock.new_id)
    if store.snapshot().find(cluster_pb2.ClusterIdentity, rows.THIS_CLUSTER) is not None:
        return
    wanted = (
        default_pool(settings_of(config), clock),
        default_network(call, config.network.default_cidr),
        first_node(call, config.mesh.listen),
        cluster_pb2.ClusterIdentity(
            name=rows.THIS_CLUSTER, meta=rows.new_meta(call), display_name=config.cluster.name
        ),
    )
    for row in wanted:
        if store.snapshot().named(row.name) is None:
            store.commit([Put(row)])
            yield row.name


def first_node(call: Call, address: str) -> cluster_pb2.Node:
    """The row of the node that the cluster begins with: it leads, until there are others."""
    spec = cluster_pb2.NodeSpec(coordinator=True, address=address)
    return cluster_pb2.Node(name=call.node, meta=rows.new_meta(call), spec=spec)


def _check_name(there: cluster_pb2.ClusterIdentity, config: Config) -> None:
    if there.display_name != config.cluster.name:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONFIG,
            f"{config.node.state_dir} holds the cluster {there.display_name!r}, and the "
            f"configuration says {config.cluster.name!r}: use another state_dir, or that name",
        )

"""The state as `decide` is shown it. What did not change since the last look is not counted
together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.copying import CREATE
from services.coordinator.core.world import Outage, World
from services.mesh import rows
from services.state.store import Snapshot
from services.state.table import Extract

T = TypeVar("T")
Operation = operation_pb2.Operation

COPY_WORKS = Extract(Operation, lambda x: x if x.method == CREATE else None)


class Pictures:
    """Makes worlds of snapshots."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[object, ...], Any]] = {}
        self._stages: tuple[object, ...] = ()

    def world(
        self, snapshot: Snapshot, gone_s: Mapping[str, float], outage: Outage | None = None
    ) -> World:
        """What `decide` is shown. gone_s, outage: see World."""

        def part(make: Callable[[Snapshot], T], *tables: str) -> T:
            return self._part(make, tuple(snapshot.tables.get(table) for table in tables), snapshot)

        identity = snapshot.find(cluster_pb2.ClusterIdentity, rows.THIS_CLUSTER)
        return World(
            nodes=part(_nodes, "nodes"),
            vms=snapshot.by_name(vm_pb2.Vm),
            present=frozenset(name for name in snapshot.leases if name.startswith("nodes/")),
            volume_nodes=part(_volume_nodes, "pools", "pools/volumes"),
            operations=part(_operations, "operations"),
            spec=identity.spec if identity is not None else cluster_pb2.ClusterSpec(),
            cluster=identity,
            gone_s=gone_s,
            outage=outage,
            not_ready=part(_not_ready, "pools", "networks", "nodes"),
            shared_pools=part(_shared_pools, "pools"),
            pools=part(_pools, "pools"),
            volumes=part(_volumes, "pools/volumes"),
            snapshots=part(_snapshots, "pools/volumes/snapshots"),
            copy_works=part(_copy_works, "operations"),
        )

    def stages(self, snapshot: Snapshot) -> object:
        """Where the operations that have not ended stand: the same object as long as that is the
        same, whatever progress they make."""
        table = (snapshot.tables.get("operations"),)
        fresh = self._part(_stages, table, snapshot)
        if fresh != self._stages:
            self._stages = fresh
        return self._stages

    def _part(
        self, make: Callable[[Snapshot], T], tables: tuple[object, ...], snapshot: Snapshot
    ) -> T:
        """Tables are never changed, only replaced: the same table says the same."""
        known, made = self._kept.get(make.__name__, ((), None))
        if len(known) != len(tables) or any(a is not b for a, b in zip(known, tables, strict=True)):
            made = make(snapshot)
            self._kept[make.__name__] = (tables, made)
        return made  # type: ignore[no-any-return]


def world_of(snapshot: Snapshot) -> World:
    """One world, for those who ask once."""
    return Pictures().world(snapshot, {})


def _nodes(snapshot: Snapshot) -> Mapping[str, cluster_pb2.Node]:
    return {node.name: node for node in snapshot.rows(cluster_pb2.Node)}


def _operations(snapshot: Snapshot) -> tuple[Operation, ...]:
    return rows.unfinished(snapshot)


def _stages(snapshot: Snapshot) -> tuple[object, ...]:
    return tuple((x.name, x.state, x.node, x.cancel_requested) for x in _operations(snapshot))


def _shared_pools(snapshot: Snapshot) -> frozenset[str]:
    return frozenset(x.name for x in snapshot.rows(storage_pb2.Pool) if x.spec.shared)


def _pools(snapshot: Snapshot) -> Mapping[str, storage_pb2.Pool]:
    return {pool.name: pool for pool in snapshot.rows(storage_pb2.Pool)}


def _volumes(snapshot: Snapshot) -> Mapping[str, storage_pb2.Volume]:
    return snapshot.by_name(storage_pb2.Volume)


def _snapshots(snapshot: Snapshot) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in snapshot.rows(storage_pb2.Snapshot):
        volume, _, snapshot_id = row.name.partition("/snapshots/")
        found[volume] = (*found.get(volume, ()), snapshot_id)
    return found


def _copy_works(snapshot: Snapshot) -> Mapping[str, Operation]:
    return {x.target: x for x in snapshot.extract(COPY_WORKS)}


def _volume_nodes(snapshot: Snapshot) -> Mapping[str, str]:
    pools = {
        pool.name: "" if pool.spec.shared else pool.spec.node
        for pool in snapshot.rows(storage_pb2.Pool)
    }
    named = [(v.name, v.name.partition("/volumes/")[0]) for v in snapshot.rows(storage_pb2.Volume)]
    return {volume: pools[pool] for volume, pool in named if pools.get(pool)}


def _not_ready(snapshot: Snapshot) -> Mapping[str, Mapping[str, str]]:
    nodes = [node.name for node in snapshot.rows(cluster_pb2.Node)]
    found = {
        pool.name: dict(_away(pool.status.nodes, nodes))
        for pool in snapshot.rows(storage_pb2.Pool)
        if pool.spec.shared
    }
    for network in snapshot.rows(network_pb2.Network):
        found[network.name] = dict(_away(network.status.nodes, nodes))
    return {name: away for name, away in found.items() if away}


def _away(parts: Mapping[str, Any], nodes: list[str]) -> Iterator[tuple[str, str]]:
    """Nodes that cannot use it, by what each of them said. Before any has spoken nothing is known
    against any."""
    for node in nodes if parts else ():
        part = parts.get(node.removeprefix("nodes/"))
        if part is None:
            yield node, "it is not set up there yet"
        elif not part.ready:
            yield node, part.why or "it is not ready there"

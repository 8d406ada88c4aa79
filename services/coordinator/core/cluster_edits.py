"""How the cluster is to behave, changed on request. Pure."""

from __future__ import annotations

from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.asked import THIS_CLUSTER, paths_of, taken_over, told
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import not_found
from services.state.store import Change, Put, Snapshot

CHANGEABLE = tuple(f"spec.{name}" for name in cluster_pb2.ClusterSpec.DESCRIPTOR.fields_by_name)
FENCE_MAX_PERCENT = 34
FENCE_DELAY_MS = 500
RESTART_GRACE_S = 60
MIGRATIONS_PER_NODE = 2
MIGRATIONS_PER_CLUSTER = 8
BALANCE_THRESHOLD_PERCENT = 20

Identity = cluster_pb2.ClusterIdentity


def update(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Takes over what is named; the answer is the cluster's row. Raises NOT_FOUND,
    INVALID_FIELD."""
    there = snapshot.find(Identity, THIS_CLUSTER)
    if there is None:
        raise not_found(THIS_CLUSTER, "")
    wanted = Identity(spec=request.spec)
    mask = [path if path == "*" else f"spec.{path}" for path in request.update_mask.paths]
    after = taken_over(there, wanted, paths_of(mask, wanted, CHANGEABLE), call)
    if after is there:
        return Mutation((), after)
    changes: list[Change] = [Put(after), told(call, THIS_CLUSTER, _what(there, after))]
    return Mutation(changes, after)


def _what(before: Identity, after: Identity) -> str:
    """What changed, for people: "the cluster's maintenance is on, fence_delay_ms is 800"."""
    words = []
    for field in cluster_pb2.ClusterSpec.DESCRIPTOR.fields:
        old, new = getattr(before.spec, field.name), getattr(after.spec, field.name)
        if old != new:
            shown = ("on" if new else "off") if isinstance(new, bool) else str(new)
            words.append(f"{field.name} is {shown}")
    return f"the cluster's {', '.join(words)}"


def filled(spec: cluster_pb2.ClusterSpec) -> cluster_pb2.ClusterSpec:
    """The spec with its defaults, as it is shown."""
    full = rows.copied(spec)
    full.fence_max_percent = full.fence_max_percent or FENCE_MAX_PERCENT
    full.fence_delay_ms = full.fence_delay_ms or FENCE_DELAY_MS
    full.restart_grace_s = full.restart_grace_s or RESTART_GRACE_S
    full.migrations_per_node = full.migrations_per_node or MIGRATIONS_PER_NODE
    full.migrations_per_cluster = full.migrations_per_cluster or MIGRATIONS_PER_CLUSTER
    full.balance_threshold_percent = full.balance_threshold_percent or BALANCE_THRESHOLD_PERCENT
    return full

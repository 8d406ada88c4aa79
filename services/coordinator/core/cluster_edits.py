"""How the cluster is to behave, changed on request. Pure."""

from __future__ import annotations

from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.asked import paths_of, taken_over, told
from services.coordinator.core.limits import filled
from services.mesh.desk import Call, Mutation
from services.mesh.errors import not_found
from services.mesh.rows import THIS_CLUSTER
from services.state.store import Change, Put, Snapshot

CHANGEABLE = tuple(f"spec.{name}" for name in cluster_pb2.ClusterSpec.DESCRIPTOR.fields_by_name)

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
    there, here = filled(before.spec), filled(after.spec)
    for field in cluster_pb2.ClusterSpec.DESCRIPTOR.fields:
        old, new = getattr(there, field.name), getattr(here, field.name)
        if old != new:
            shown = ("on" if new else "off") if isinstance(new, bool) else str(new)
            words.append(f"{field.name} is {shown}")
    return f"the cluster's {', '.join(words)}"

"""What requests about pools mean: each a pure function from state and request to a Mutation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import not_found, refuse
from services.state.store import Put, Snapshot
from services.storage.core import usage
from services.storage.core.accept import Pool, Volume, accepted, already_exists
from services.storage.core.layout import id_of, overlaps
from services.storage.core.room import RESERVE_BYTES
from services.storage.core.sharing import worker

_CHANGEABLE = ("spec.description", "spec.reserve_bytes", "meta.labels")


def new_pool(name: str, path: str, node: str, meta: meta_pb2.Meta, reserve_bytes: int = 0) -> Pool:
    """A pool that keeps its volumes in a folder of a node, or of all without one; the agents make
    it usable."""
    spec = storage_pb2.PoolSpec(
        directory=storage_pb2.DirectoryPool(path=path),
        node=node,
        reserve_bytes=reserve_bytes or RESERVE_BYTES,
        shared=not node,
    )
    return Pool(name=name, meta=meta, spec=spec)


def create_pool(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises ALREADY_EXISTS, INVALID_FIELD, DANGLING_REFERENCE, IN_USE."""
    name = f"pools/{request.pool_id}"
    if snapshot.find(Pool, name) is not None:
        raise already_exists(name, "pool_id")
    spec = request.pool.spec
    if spec.WhichOneof("driver") != "directory":
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "say what keeps the volumes: spec.directory.path",
            "pool.spec.directory",
        )
    if spec.shared:
        return _create_shared(snapshot, request, call)
    node = spec.node or call.node
    if node != call.node and snapshot.find(cluster_pb2.Node, node) is None:
        refuse(reason_pb2.REASON_DANGLING_REFERENCE, f"{node} does not exist", "pool.spec.node")
    _check_folder(snapshot, spec.directory.path, node)
    says = f"make {name} in {spec.directory.path} on {node}"
    pool = _asked_for(name, request, node, call)
    return accepted(call, request, "CreatePool", name, node, says, [Put(pool)])


def _create_shared(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """The node that takes the request takes the folder; the others recognise it."""
    spec, name = request.pool.spec, f"pools/{request.pool_id}"
    if spec.node:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "a shared pool is every node's: leave node out, or do not share it",
            "pool.spec.node",
        )
    _check_folder(snapshot, spec.directory.path, "")
    says = f"make {name} in {spec.directory.path}, which all nodes share"
    pool = _asked_for(name, request, "", call)
    return accepted(call, request, "CreatePool", name, call.node, says, [Put(pool)])


def _asked_for(name: str, request: Any, node: str, call: Call) -> Pool:
    spec, meta = request.pool.spec, rows.new_meta(call, request.pool.meta.labels)
    pool = new_pool(name, spec.directory.path, node, meta, spec.reserve_bytes)
    pool.spec.description = spec.description
    return pool


def _check_folder(snapshot: Snapshot, path: str, node: str) -> None:
    """`node` "" for all of them: a shared folder is on each."""
    for other in snapshot.rows(Pool):
        together = "" in (node, other.spec.node) or other.spec.node == node
        if together and overlaps(other.spec.directory.path, path):
            refuse(
                reason_pb2.REASON_IN_USE,
                f"{path} overlaps with the folder of {other.name} ({other.spec.directory.path}): "
                "a pool needs a folder of its own",
                "pool.spec.directory.path",
            )


def update_pool(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, IMMUTABLE_FIELD, INVALID_FIELD."""
    wanted = request.pool
    pool = snapshot.find(Pool, wanted.name)
    if pool is None:
        raise not_found(wanted.name, "pool.name")
    rows.check_etag(pool, wanted.meta.etag, "pool.meta.etag")
    after = rows.copied(pool)
    for path in _paths(request.update_mask.paths, pool, wanted):
        match path:
            case "spec.description":
                after.spec.description = wanted.spec.description
            case "spec.reserve_bytes":
                after.spec.reserve_bytes = wanted.spec.reserve_bytes or RESERVE_BYTES
            case _:
                after.meta.labels.clear()
                after.meta.labels.update(wanted.meta.labels)
    if after != pool:
        after.meta.generation += 1
        after.meta.update_time.CopyFrom(call.now)
    return Mutation([Put(after)] if after != pool else [], after)


def _paths(mask: Sequence[str], pool: Pool, wanted: Pool) -> list[str]:
    """The fields to take over, of those that may change; refuses the others unless they are as they
    were.
    """
    asked = list(mask)
    if not asked:
        if wanted.spec.description:
            asked.append("spec.description")
        if wanted.spec.reserve_bytes:
            asked.append("spec.reserve_bytes")
        if wanted.meta.labels:
            asked.append("meta.labels")
        fixed = wanted.spec
        if fixed.WhichOneof("driver") and fixed.directory != pool.spec.directory:
            asked.append("spec.directory")
        if fixed.node not in ("", pool.spec.node):
            asked.append("spec.node")
        if fixed.shared and not pool.spec.shared:
            asked.append("spec.shared")
    if "*" in asked or "spec" in asked:
        asked = [*_CHANGEABLE[:2], *(["meta.labels"] if "*" in asked else [])]
    for path in asked:
        if path.startswith(("spec.directory", "spec.node", "spec.shared")):
            refuse(
                reason_pb2.REASON_IMMUTABLE_FIELD,
                f"{path} of a pool never changes: make a new pool and copy the volumes",
                f"pool.{path}",
            )
        if path not in _CHANGEABLE:
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{path} cannot be changed; these can: {', '.join(_CHANGEABLE)}",
                "update_mask",
            )
    return asked


def delete_pool(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, IN_USE, and with force WRONG_STATE, BUSY."""
    pool = snapshot.find(Pool, request.name)
    if pool is None:
        raise not_found(request.name)
    rows.check_etag(pool, request.etag)
    says = f"forget {pool.name}; foreign files in {pool.spec.directory.path} are left alone"
    if request.force:
        check_lost(snapshot, pool)
        says += f"; forget its {sum(1 for _ in snapshot.rows(Volume, pool.name))} volumes too"
    else:
        check_no_volumes(snapshot, pool.name)
    after = rows.copied(pool)
    after.meta.delete_time.CopyFrom(call.now)
    node = worker(snapshot, pool, call.node)
    return accepted(call, request, "DeletePool", pool.name, node, says, [Put(after)])


def check_lost(snapshot: Snapshot, pool: Pool) -> None:
    """Raises WRONG_STATE, IN_USE or BUSY unless all that the pool holds may be given up."""
    if pool.status.state != storage_pb2.PoolStatus.STATE_FAILED:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{pool.name} can be used, so its volumes can be deleted one by one: force is for a "
            "pool that is FAILED",
            "force",
        )
    for volume in snapshot.rows(Volume, pool.name):
        usage.check_unattached(snapshot, volume.name)
        usage.check_not_busy(snapshot, volume.name)


def check_no_volumes(snapshot: Snapshot, pool: str) -> None:
    """Raises IN_USE while the pool holds volumes."""
    names = [id_of(volume.name) for volume in snapshot.rows(Volume, pool)]
    if names:
        more = f" and {len(names) - 3} more" if names[3:] else ""
        row = snapshot.find(Pool, pool)
        lost = row is not None and row.status.state == storage_pb2.PoolStatus.STATE_FAILED
        otherwise = "; if its disk is gone for good, say force" if lost else ""
        refuse(
            reason_pb2.REASON_IN_USE,
            f"{pool} holds {', '.join(names[:3])}{more}: delete these volumes first{otherwise}",
            "name",
        )

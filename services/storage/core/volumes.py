"""What requests about volumes mean: each a pure function from state and request to a Mutation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import refuse
from services.state.store import Put, Snapshot
from services.storage.core import layout, usage
from services.storage.core.accept import (
    Pool,
    PoolStatus,
    Volume,
    VolumeStatus,
    accepted,
    already_exists,
    changed,
    found_snapshot,
    found_volume,
    node_of,
    ready_volume,
    usable_pool,
    worker_of,
    writable_volume,
)
from services.storage.core.room import EMPTY_BYTES, amount, check_room, contents_bytes
from services.storage.core.sharing import worker


def create_volume(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ALREADY_EXISTS, INVALID_FIELD, NOT_SUPPORTED, DANGLING_REFERENCE,
    WRONG_STATE, IN_USE, BUSY, OUT_OF_SPACE.
    """
    pool = usable_pool(snapshot, request.parent)
    name = _free_name(snapshot, request.parent, request.volume_id)
    spec = rows.copied(request.volume.spec)
    spec.ClearField("source_file")
    spec.format = _kept_format(spec.format, "volume.spec.format")
    source = source_of(snapshot, spec)
    spec.size_bytes = _size(spec.size_bytes, source.status.size_bytes if source else 0)
    needs = needed_bytes(snapshot, spec, pool, source)
    _check_room(pool, spec.size_bytes, needs)
    volume = _new_volume(call, name, pool, spec, request.volume.meta.labels)
    if is_clone(spec, pool, source):
        volume.status.parent = spec.source_volume
    accepted_request = rows.copied(request)
    accepted_request.volume.spec.CopyFrom(spec)
    says = f"make {name}: {_words(volume)}"
    # A pool that only one node can reach has the work done there, else a source does.
    held = node_of(snapshot, source.name) if source else ""
    node = pool.spec.node or held or worker(snapshot, pool, call.node)
    return accepted(call, accepted_request, "CreateVolume", name, node, says, [Put(volume)])


def source_of(snapshot: Snapshot, spec: storage_pb2.VolumeSpec) -> Volume | None:
    """The volume that a new one begins as, or is a snapshot of; None for an empty one.

    Raises NOT_FOUND's kin for a source that cannot be used now.
    """
    match spec.WhichOneof("source"):
        case "source_volume":
            field = "volume.spec.source_volume"
            if snapshot.find(Volume, spec.source_volume) is None:
                refuse(
                    reason_pb2.REASON_DANGLING_REFERENCE,
                    f"{spec.source_volume} does not exist",
                    field,
                )
            source = ready_volume(snapshot, spec.source_volume, field)
            if not source.spec.sealed:
                usage.check_unwritten(
                    snapshot, source.name, "shut it down, or copy a snapshot of the volume"
                )
        case "source_snapshot":
            field = "volume.spec.source_snapshot"
            if snapshot.find(storage_pb2.Snapshot, spec.source_snapshot) is None:
                refuse(
                    reason_pb2.REASON_DANGLING_REFERENCE,
                    f"{spec.source_snapshot} does not exist",
                    field,
                )
            source = ready_volume(snapshot, layout.volume_of(spec.source_snapshot), field)
        case _:
            return None
    _check_not_changing(snapshot, source.name)
    return source


_READERS = ("CreateVolume", "ExportVolume")


def _check_not_changing(snapshot: Snapshot, volume: str) -> None:
    """Raises BUSY while an operation changes the volume; others may read it at the same time."""
    for operation in usage.operations_on(snapshot, volume):
        reads = operation.method.endswith(_READERS) and (
            operation.target != volume or operation.method.endswith("ExportVolume")
        )
        if not reads:
            usage.check_not_busy(snapshot, volume)


def is_clone(spec: storage_pb2.VolumeSpec, pool: Pool, source: Volume | None) -> bool:
    """The volume is a copy on write: of a whole sealed volume, in the same pool, kept as qcow2."""
    return (
        source is not None
        and spec.WhichOneof("source") == "source_volume"
        and source.spec.sealed
        and layout.pool_of(source.name) == pool.name
        and spec.format == layout.QCOW2
    )


def needed_bytes(
    snapshot: Snapshot, spec: storage_pb2.VolumeSpec, pool: Pool, source: Volume | None
) -> int:
    """Room that making the volume takes at once."""
    if source is None or is_clone(spec, pool, source):
        return EMPTY_BYTES
    return contents_bytes(snapshot, source)


def import_volume(
    snapshot: Snapshot, request: Any, call: Call, file: storage_service_pb2.FileInfo
) -> Mutation:
    """`file` is the kept file that the request names. Raises as create_volume does."""
    pool = usable_pool(snapshot, request.parent)
    name = _free_name(snapshot, request.parent, request.volume_id)
    spec = storage_pb2.VolumeSpec(
        description=request.description,
        size_bytes=request.size_bytes,
        format=_kept_format(request.format, "format"),
        source_file=request.file,
        sealed=request.sealed,
    )
    _check_room(pool, request.size_bytes, EMPTY_BYTES)
    volume = _new_volume(call, name, pool, spec, {})
    says = f"check {file.name} ({amount(file.size_bytes)}) and make {name} of it"
    node = worker(snapshot, pool, call.node)
    return accepted(call, request, "ImportVolume", name, node, says, [Put(volume)])


def resize_volume(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY, INVALID_FIELD, OUT_OF_SPACE."""
    volume = writable_volume(snapshot, request.name, etag=request.etag)
    usage.check_not_busy(snapshot, volume.name)
    if request.size_bytes < volume.status.size_bytes:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{volume.name} has {amount(volume.status.size_bytes)}, and is never made smaller: "
            "that would cut data off",
            "size_bytes",
        )
    pool = usable_pool(snapshot, layout.pool_of(volume.name), "name")
    _check_room(pool, request.size_bytes, 0)
    after = changed(volume, call.now)
    after.spec.size_bytes = request.size_bytes
    before, wanted = amount(volume.status.size_bytes), amount(request.size_bytes)
    says = f"grow {volume.name} from {before} to {wanted}"
    node = worker(snapshot, pool, call.node)
    return accepted(call, request, "ResizeVolume", volume.name, node, says, [Put(after)])


def rename_volume(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """The new name is taken at once, by a copy of the row in state CREATING.

    Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY, IN_USE, ALREADY_EXISTS.
    """
    volume = ready_volume(snapshot, request.name, etag=request.etag)
    pool = usable_pool(snapshot, layout.pool_of(volume.name), "name")
    check_movable(snapshot, volume.name)
    name = _free_name(snapshot, pool.name, request.new_volume_id, "new_volume_id")
    taken = changed(volume, call.now)
    taken.name = name
    taken.meta.etag = ""
    taken.status.state = VolumeStatus.STATE_CREATING
    taken.status.path = ""
    taken.status.why = f"being renamed from {volume.name}"
    says = f"rename {volume.name} to {name}"
    node = worker(snapshot, pool, call.node)
    return accepted(call, request, "RenameVolume", volume.name, node, says, [Put(taken)])


def check_movable(snapshot: Snapshot, volume: str, besides: str = "") -> None:
    """Raises BUSY or IN_USE unless nothing needs the volume under its name."""
    usage.check_not_busy(snapshot, volume, besides)
    usage.check_unattached(snapshot, volume)
    usage.check_no_copies(snapshot, volume)


def delete_volume(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, BUSY, IN_USE."""
    volume = found_volume(snapshot, request.name, etag=request.etag)
    check_movable(snapshot, volume.name)
    snapshots = [layout.id_of(row.name) for row in snapshot.rows(storage_pb2.Snapshot, volume.name)]
    if snapshots and not request.force:
        refuse(
            reason_pb2.REASON_IN_USE,
            f"{volume.name} still has {_counted(snapshots)}: delete them first, or say force",
            "force",
        )
    after = rows.copied(volume)
    after.status.state = VolumeStatus.STATE_DELETING
    after.meta.delete_time.CopyFrom(call.now)
    says = f"remove {volume.name}" + (f" and {_counted(snapshots)}" if snapshots else "")
    node = worker_of(snapshot, volume.name, call) or volume.status.node
    return accepted(call, request, "DeleteVolume", volume.name, node, says, [Put(after)])


def _counted(snapshots: Sequence[str]) -> str:
    """ "2 snapshots (a, b)"."""
    more = ", …" if snapshots[3:] else ""
    plural = "s" if snapshots[1:] else ""
    return f"{len(snapshots)} snapshot{plural} ({', '.join(snapshots[:3])}{more})"


def export_volume(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY, IN_USE, NOT_SUPPORTED."""
    volume = ready_volume(snapshot, request.name, etag=request.etag)
    if request.snapshot_id:
        found_snapshot(snapshot, f"{volume.name}/snapshots/{request.snapshot_id}", "snapshot_id")
    elif not volume.spec.sealed:
        usage.check_unwritten(
            snapshot, volume.name, "shut it down, or export a snapshot of the volume (snapshot_id)"
        )
    _check_not_changing(snapshot, volume.name)
    wanted = rows.copied(request)
    wanted.format = request.format or layout.QCOW2
    if wanted.compress and wanted.format == layout.RAW:
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            "raw images cannot be compressed: ask for qcow2 or vmdk, or leave compress out",
            "compress",
        )
    says = f"write {volume.name} as {layout.WORDS[wanted.format]}"
    node = worker_of(snapshot, volume.name, call)
    return accepted(call, wanted, "ExportVolume", volume.name, node, says)


def _free_name(snapshot: Snapshot, pool: str, volume_id: str, field: str = "volume_id") -> str:
    name = f"{pool}/volumes/{layout.checked_id(volume_id, field)}"
    if snapshot.find(Volume, name) is not None:
        raise already_exists(name, field)
    return name


def _kept_format(format: int, field: str) -> storage_pb2.ImageFormat.ValueType:
    if format == layout.VMDK:
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            "volumes are kept as qcow2 or raw; VMDK is for import and export only",
            field,
        )
    return storage_pb2.ImageFormat.ValueType(format or layout.QCOW2)


def _size(wanted: int, source: int) -> int:
    field = "volume.spec.size_bytes"
    if not wanted and not source:
        refuse(reason_pb2.REASON_INVALID_FIELD, "an empty volume needs a size", field)
    if 0 < wanted < source:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"the source has {source} bytes, and {wanted} would cut it off",
            field,
        )
    return wanted or source


def _check_room(pool: Pool, size_bytes: int, needs: int) -> None:
    """By what the agent last saw; a pool it never saw is judged when the work begins."""
    if pool.status.state == PoolStatus.STATE_READY:
        check_room(pool, pool.status.capacity_bytes, pool.status.available_bytes, size_bytes, needs)


def _new_volume(
    call: Call, name: str, pool: Pool, spec: storage_pb2.VolumeSpec, labels: Any
) -> Volume:
    return Volume(
        name=name,
        meta=rows.new_meta(call, labels),
        spec=spec,
        status=VolumeStatus(
            state=VolumeStatus.STATE_CREATING, size_bytes=spec.size_bytes, node=pool.spec.node
        ),
    )


def _words(volume: Volume) -> str:
    spec = volume.spec
    form = f"{amount(spec.size_bytes)}, {layout.WORDS[spec.format]}"
    if volume.status.parent:
        return f"{form}, copy on write of {volume.status.parent}"
    source = spec.source_volume or spec.source_snapshot
    return f"{form}, full copy of {source}" if source else f"{form}, empty"

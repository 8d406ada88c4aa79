"""What the agent should write, given what is stored and what it found: the status of a pool and of
its volumes. Pure.

Nothing is removed here, whatever was found: a file without a volume is only told of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pvc.core.v1 import operation_pb2
from services.mesh import rows
from services.mesh.members import id_of
from services.state.store import Snapshot
from services.storage.core import layout, sharing, usage
from services.storage.core.accept import PREFIX, SERVICE, Pool, PoolStatus, Volume, VolumeStatus
from services.storage.core.room import differs, promised_bytes

GIVEN_UP = "the operation was cancelled before it began, or given up"

Operation = operation_pb2.Operation

ALLOCATION_STEP_BYTES = 1 << 20
"""A volume's allocation is written again when it changed by a hundredth and at least this much: a
volume that fills up from nothing to a TiB is written some thousand times in its life."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool's folder as it was found: `why` it cannot be used ("" when it can), its size, and the
    files where its volumes lie, path → room taken.
    """

    why: str
    capacity_bytes: int = 0
    available_bytes: int = 0
    files: Mapping[str, int] | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A row as it should be written, and the sentence to tell; "" when it is not worth one."""

    row: Pool | Volume
    says: str = ""
    why: str = ""
    removed: bool = False
    """The row is to go, with those of its snapshots."""
    wrong: bool = False
    """What is told is an error, though the row as a whole may be well."""


def busy_names(snapshot: Snapshot) -> frozenset[str]:
    """Pools and volumes that an operation is working on: their rows are its business."""
    names: set[str] = set()
    for operation in rows.unfinished(snapshot, SERVICE):
        names.update((operation.target, *usage.involved(operation)))
    return frozenset(names)


def never_made(snapshot: Snapshot, pool: Pool) -> bool:
    """The operation that was to make the pool has ended without making it."""
    return pool.status.generation == 0 and any(
        operation.target == pool.name
        and operation.method == f"{PREFIX}CreatePool"
        and operation.state in (Operation.STATE_CANCELLED, Operation.STATE_FAILED)
        and operation.meta.create_time.ToNanoseconds() >= pool.meta.create_time.ToNanoseconds()
        for operation in snapshot.rows(Operation)
    )


def part_finding(pool: Pool, seen: Seen, node: str) -> Finding | None:
    """The row with this node's part of a shared pool; None when nothing is worth writing."""
    after = rows.copied(pool)
    sharing.take_part(after, node, sharing.part_of(seen.why))
    if after == pool:
        return None
    before = pool.status.nodes.get(id_of(node))
    was, now = before is None or before.ready, not seen.why
    name = f"pool {layout.id_of(pool.name)}"
    says = "" if was == now else f"{name} can{'' if now else 'not'} be used on {id_of(node)}"
    return Finding(after, says, seen.why, wrong=not now)


def pool_finding(snapshot: Snapshot, pool: Pool, seen: Seen, node: str) -> Finding | None:
    """The pool's row with its new status; None when nothing is worth writing."""
    after = rows.copied(pool)
    if pool.spec.shared:
        sharing.forget_gone(snapshot, after)
        sharing.take_part(after, node, sharing.part_of(seen.why))
    after.meta.ClearField("delete_time")  # no operation removes it any more
    status = after.status
    status.generation = pool.meta.generation if not seen.why else pool.status.generation
    status.promised_bytes = promised_bytes(snapshot, pool.name)
    if seen.why:
        status.state = PoolStatus.STATE_FAILED
        status.why = sharing.elsewhere(snapshot, after) or seen.why
    else:
        whys = (_strangers(snapshot, pool, seen), sharing.elsewhere(snapshot, after))
        status.state, status.why = PoolStatus.STATE_READY, "; ".join(filter(None, whys))
        status.mark = seen.mark
        status.capacity_bytes = seen.capacity_bytes
        if differs(pool.status.available_bytes, seen.available_bytes):
            status.available_bytes = seen.available_bytes
    if after == pool:
        return None
    return Finding(after, _moved(pool, after), status.why)


def _moved(before: Pool, after: Pool) -> str:
    if before.status.state == after.status.state and before.status.why == after.status.why:
        return ""
    name = PoolStatus.State.Name
    words = (name(row.status.state).removeprefix("STATE_") for row in (before, after))
    old, new = (word.replace("UNSPECIFIED", "NEW") for word in words)
    return f"pool {layout.id_of(after.name)} {old} → {new}"


def _strangers(snapshot: Snapshot, pool: Pool, seen: Seen) -> str:
    folder = pool.spec.directory.path
    known: set[str] = set()
    for volume in snapshot.rows(Volume, pool.name):
        known.add(volume.status.path)
        known.add(layout.volume_path(folder, volume.name, volume.spec.format))
    strange = sorted(layout.id_of(path) for path in seen.files or {} if path not in known)
    if not strange:
        return ""
    names = ", ".join(ascii(name)[1:-1][:80] for name in strange[:5])
    more = f" and {len(strange) - 5} more" if strange[5:] else ""
    return f"{folder}/volumes holds what is no volume's: {names}{more}; it is left alone"


def gone(path: str) -> str:
    """Why a volume cannot be used whose file is missing."""
    return f"its file {path} is gone: put it back, or delete the volume"


def volume_finding(volume: Volume, files: Mapping[str, int]) -> Finding | None:
    """The row of a volume that no operation works on, with its new status; None when all is as it
    is written.
    """
    state, path = volume.status.state, volume.status.path
    after = rows.copied(volume)
    match state, path in files:
        case VolumeStatus.STATE_CREATING, _ if not path:
            return Finding(volume, f"volume {volume.name} is not made", GIVEN_UP, removed=True)
        case VolumeStatus.STATE_CREATING, _:
            return _failed(after, "making it was given up: delete it, and make it again")
        case VolumeStatus.STATE_DELETING, True:
            after.meta.ClearField("delete_time")
            if volume.status.why:  # it had failed before
                return _failed(after, volume.status.why)
            after.status.state = VolumeStatus.STATE_READY
            return Finding(after, f"volume {volume.name} DELETING → READY", GIVEN_UP)
        case VolumeStatus.STATE_DELETING, False:
            return Finding(volume, f"volume {volume.name} is gone", GIVEN_UP, removed=True)
        case VolumeStatus.STATE_READY, False:
            return _failed(after, gone(path))
        case VolumeStatus.STATE_FAILED, True if volume.status.why == gone(path):
            after.status.state, after.status.why = VolumeStatus.STATE_READY, ""
            return Finding(after, f"volume {volume.name} FAILED → READY", "its file is back")
        case VolumeStatus.STATE_READY, True:
            return _measured(after, files[path])
    return None


def unsettled(volume: Volume) -> bool:
    """Its spec wants what no operation will bring about any more: a resize was given up."""
    return (
        volume.status.state == VolumeStatus.STATE_READY
        and volume.status.generation != volume.meta.generation
    )


def settled(volume: Volume, size_bytes: int) -> Finding:
    """The row with the size that the volume really has."""
    after = rows.copied(volume)
    after.spec.size_bytes = after.status.size_bytes = size_bytes
    after.status.generation = after.meta.generation
    return Finding(after, f"volume {volume.name} has {size_bytes} bytes", "a change was given up")


def _failed(after: Volume, why: str) -> Finding:
    old = VolumeStatus.State.Name(after.status.state).removeprefix("STATE_")
    after.status.state, after.status.why = VolumeStatus.STATE_FAILED, why
    return Finding(after, f"volume {after.name} {old} → FAILED", why)


def _measured(after: Volume, allocated: int) -> Finding | None:
    old = after.status.allocated_bytes
    if not differs(old, allocated) or abs(old - allocated) < ALLOCATION_STEP_BYTES:
        return None
    after.status.allocated_bytes = allocated
    return Finding(after)

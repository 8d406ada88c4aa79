"""Whether a pool has room for something. Pure sums."""

from __future__ import annotations

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.errors import refuse
from services.state.store import Snapshot

RESERVE_BYTES = 1 << 30
"""What new volumes leave free, unless the pool says otherwise."""
EMPTY_BYTES = 1 << 20
"""What a volume without contents takes at most."""


def amount(count: int) -> str:
    """Bytes for people: "3 GiB", "1.5 MiB"; without a decimal point where it is exact."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def check_room(
    pool: storage_pb2.Pool, capacity_bytes: int, available_bytes: int, size_bytes: int, needs: int
) -> None:
    """Raises OUT_OF_SPACE unless a volume of this size, which takes `needs` bytes at once, may be
    made.
    """
    reserve = pool.spec.reserve_bytes or RESERVE_BYTES
    if size_bytes > capacity_bytes:
        refuse(
            reason_pb2.REASON_OUT_OF_SPACE,
            f"a volume of {amount(size_bytes)} could never be filled: the whole file system of "
            f"{pool.name} has {amount(capacity_bytes)}",
        )
    if available_bytes - needs < reserve:
        refuse(
            reason_pb2.REASON_OUT_OF_SPACE,
            f"{pool.name} has {amount(available_bytes)} free, of which {amount(reserve)} are kept "
            f"in reserve; this needs {amount(needs)}: delete volumes or snapshots, or lower "
            "reserve_bytes",
        )


def contents_bytes(snapshot: Snapshot, volume: storage_pb2.Volume) -> int:
    """What a full copy of a volume takes at most: its own blocks and those of its bases."""
    total, seen = 0, set[str]()
    at: storage_pb2.Volume | None = volume
    while at is not None and at.name not in seen:
        seen.add(at.name)
        total += at.status.allocated_bytes
        at = snapshot.find(storage_pb2.Volume, at.status.parent) if at.status.parent else None
    return min(total, volume.status.size_bytes) + EMPTY_BYTES


def promised_bytes(snapshot: Snapshot, pool: str) -> int:
    """The sum of the sizes of a pool's volumes as their guests see them."""
    return sum(volume.status.size_bytes for volume in snapshot.rows(storage_pb2.Volume, pool))


def differs(old: int, new: int) -> bool:
    """A measurement changed by more than a hundredth: worth writing."""
    return abs(new - old) * 100 > max(old, new)

"""Whether an image from outside can be let in: judged by its first bytes before any tool opens it,
then by what a confined tool reads in it. Pure.

An image may name other files to be read with it, promise sizes beyond all measure, or not be what
it says. Whatever is not understood is refused.
"""

from __future__ import annotations

import re
import struct
from typing import NoReturn, Protocol

from pvc.core.v1 import reason_pb2
from services.mesh.errors import refuse
from services.storage.core.layout import QCOW2, RAW, VMDK, WORDS
from services.storage.core.room import amount

HEAD_BYTES = 1 << 16
"""How much of a file's beginning the judgement needs."""
SIZE_MAX = 64 << 40
SIZE_MIN = 1 << 20
SECTOR = 512

_L1_BYTES_MAX = 32 << 20
_REFCOUNTS_BYTES_MAX = 8 << 20
_SNAPSHOTS_MAX = 65536
_DATA_FILE = 0x44415441
"""Type of the qcow2 header extension that names a file outside."""
_CORRUPT, _OUTSIDE = 1 << 1, 1 << 2
_KNOWN_FEATURES = 0b11111
"""Dirty, corrupt, data outside, compression type, extended L2."""

_VMDK_DESCRIPTOR = re.compile(rb"\s*(#[^\n]*\n\s*)*#\s*Disk\s+DescriptorFile", re.IGNORECASE)
_FOREIGN = (
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a VHD image"),
    (b"<<< ", "a VDI image"),
    (b"QED\0", "a QED image"),
    (b"LUKS\xba\xbe", "an encrypted (LUKS) image"),
    (b"COWD", "a VMDK image of version 3"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"PK\x03\x04", "a ZIP archive"),
)


class Facts(Protocol):
    """What a driver's `inspect` found."""

    @property
    def format(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def backing(self) -> str: ...
    @property
    def references(self) -> tuple[str, ...]: ...
    @property
    def encrypted(self) -> bool: ...
    @property
    def corrupt(self) -> bool: ...


def format_of(head: bytes, said: int) -> int:
    """The ImageFormat to read a file as, from its first bytes and what the caller says it is.

    Raises INVALID_CONTENT when both do not agree, NOT_SUPPORTED for what is recognised but not
    taken.
    """
    if said == RAW:
        return RAW
    found = RAW
    if head.startswith(b"QFI\xfb"):
        found = QCOW2
    elif head.startswith(b"KDMV") or _VMDK_DESCRIPTOR.match(head[:4096]):
        found = VMDK
    if said and found != said:
        _bad(f"it does not begin like a {WORDS[said]} image")
    if found == RAW:
        for magic, what in _FOREIGN:
            if head.startswith(magic):
                refuse(
                    reason_pb2.REASON_NOT_SUPPORTED,
                    f"the file is {what}: convert or unpack it to raw, qcow2 or vmdk first, or say "
                    "source_format RAW if a guest really wrote that into its first blocks",
                    "source_format",
                )
    return found


def check_head(head: bytes, format: int, file_bytes: int) -> None:
    """Raises INVALID_CONTENT for an image that no tool should even open."""
    if format == QCOW2:
        _check_qcow2(head, file_bytes)
    elif format == VMDK:
        _check_vmdk(head, file_bytes)


def check_facts(facts: Facts, format: int, capacity_bytes: int) -> None:
    """Raises INVALID_CONTENT for an image that must not become a volume, OUT_OF_SPACE if it could
    never be filled.
    """
    if facts.format != WORDS[format]:
        _bad(f"it reads as {facts.format[:40]!r}, not as {WORDS[format]}")
    if facts.backing:
        _continues(facts.backing)
    if facts.references:
        _bad(f"its blocks are in other files ({_quoted(facts.references[0])})")
    if facts.encrypted:
        _bad("it is encrypted")
    if facts.corrupt:
        _bad("it is damaged or cut off: its tables point at what is not there")
    _check_size(facts.size_bytes)
    if facts.size_bytes > capacity_bytes:
        refuse(
            reason_pb2.REASON_OUT_OF_SPACE,
            f"the image's disk of {amount(facts.size_bytes)} is larger than the pool's whole file "
            f"system ({amount(capacity_bytes)})",
            "file",
        )


def volume_size(image_bytes: int, wanted_bytes: int) -> int:
    """How large the volume of an image becomes.

    Raises INVALID_FIELD when it was asked to be smaller.
    """
    least = max(image_bytes + -image_bytes % SECTOR, SIZE_MIN)
    if wanted_bytes and wanted_bytes < least:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"the image's disk has {image_bytes} bytes, and {wanted_bytes} would cut it off: ask "
            f"for {least} or more",
            "size_bytes",
        )
    return max(least, wanted_bytes)


def _check_qcow2(head: bytes, file_bytes: int) -> None:
    if len(head) < 72:
        _bad("it is cut off in its header")
    (_, version, backing_at, backing_bytes, cluster_bits, size, crypt, l1_entries, l1_at,
     refcounts_at, refcount_clusters, snapshots, _) = struct.unpack(
        ">4sIQIIQIIQQIIQ", head[:72])  # fmt: skip
    if version not in (2, 3):
        _bad(f"qcow2 version {version} is unknown")
    if backing_at or backing_bytes:
        name = head[backing_at : backing_at + min(backing_bytes, 1023)]
        _continues(name.decode("utf-8", "replace") or "somewhere")
    if crypt:
        _bad("it is encrypted")
    if not 9 <= cluster_bits <= 21:
        _bad(f"clusters of 2^{cluster_bits} bytes are absurd")
    _check_size(size)
    cluster = 1 << cluster_bits
    if l1_entries * 8 > _L1_BYTES_MAX or refcount_clusters * cluster > _REFCOUNTS_BYTES_MAX:
        _bad("the sizes of its tables are absurd")
    if snapshots > _SNAPSHOTS_MAX:
        _bad(f"{snapshots} snapshots are absurd")
    if l1_at + l1_entries * 8 > file_bytes or refcounts_at >= file_bytes:
        _bad("it is cut off: its tables lie beyond its end")
    if version == 3:
        _check_qcow2_features(head)


def _check_qcow2_features(head: bytes) -> None:
    if len(head) < 104:
        _bad("it is cut off in its header")
    features, _, _, _, length = struct.unpack(">QQQII", head[72:104])
    if features & _OUTSIDE:
        _bad("its blocks are in another file")
    if features & _CORRUPT:
        _bad("it is marked as corrupt")
    if features & ~_KNOWN_FEATURES:
        _bad(f"it needs features that are unknown here ({features:#x})")
    at = length
    while at + 8 <= len(head):
        kind, size = struct.unpack(">II", head[at : at + 8])
        if kind == 0:
            return
        if kind == _DATA_FILE:
            _bad("it names another file for its blocks")
        at += 8 + size + -size % 8
    _bad("its header does not end")


def _check_vmdk(head: bytes, file_bytes: int) -> None:
    if not head.startswith(b"KDMV"):
        _bad("it is only a description; its blocks are in other files (export it as one file)")
    if len(head) < 79:
        _bad("it is cut off in its header")
    (_, _, _, capacity, granularity, described_at, described, entries, _, _, _) = struct.unpack(
        "<4sIIQQQQIQQQ", head[:72]
    )
    if capacity == 0:
        _bad("it is only a description; its blocks are in other files (export it as one file)")
    _check_size(capacity * SECTOR)
    if not 1 <= granularity <= 0x200000 or not 1 <= entries <= 512:
        _bad("the sizes of its tables are absurd")
    if described_at and (described_at + min(described, 20)) * SECTOR > min(file_bytes, len(head)):
        _bad("it is cut off: its description lies beyond its beginning")
    start = described_at * SECTOR
    # Tools look for the description at the second sector, whatever the header says.
    texts = (head[SECTOR : SECTOR * 21], head[start : start + described * SECTOR])
    if any(b"parentfilenamehint" in text.lower() for text in texts):
        _continues("its parent")


def _check_size(size_bytes: int) -> None:
    if not 0 < size_bytes <= SIZE_MAX:
        _bad(f"a disk of {size_bytes} bytes is absurd (at most {SIZE_MAX})")


def _continues(name: str) -> NoReturn:
    _bad(f"it is not whole: it continues another file ({_quoted(name)})")


def _quoted(name: str) -> str:
    return ascii(name[:80])


def _bad(why: str) -> NoReturn:
    refuse(reason_pb2.REASON_INVALID_CONTENT, f"the image is refused: {why}", "file")

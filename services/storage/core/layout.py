"""Which name lies where: resource names to paths and back.

Nothing that a user writes leaves its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.errors import refuse

QCOW2 = storage_pb2.IMAGE_FORMAT_QCOW2
RAW = storage_pb2.IMAGE_FORMAT_RAW
VMDK = storage_pb2.IMAGE_FORMAT_VMDK

WORDS: Mapping[int, str] = {QCOW2: "qcow2", RAW: "raw", VMDK: "vmdk"}
"""ImageFormat → the word that a driver and a file name have for it."""

_VOLUME_ID = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_FILE_ID = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)\.([0-9a-hjkmnp-tv-z]{26})")


def checked_id(text: str, field: str) -> str:
    """The id of a volume or snapshot.

    Raises INVALID_FIELD unless it can be nothing but a plain name.
    """
    if not _VOLUME_ID.fullmatch(text):
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{text[:80]!r} is no id: lower-case letters, digits, dots, underscores and hyphens, "
            "1 to 63, beginning and ending with a letter or digit",
            field,
        )
    return text


def volume_path(folder: str, volume: str, format: int) -> str:
    """Where a volume lies: folder of its pool, its name or id, its format → absolute path."""
    volume_id = checked_id(volume.rpartition("/")[2], "name")
    assert format in (QCOW2, RAW), f"volumes are not kept as {format}"
    return f"{folder}/volumes/{volume_id}.{WORDS[format]}"


def volume_at(path: str) -> tuple[str, int] | None:
    """The id and format of the volume that lies at a path; None if none of ours can be there."""
    file_name = path.rpartition("/")[2]
    volume_id, _, suffix = file_name.rpartition(".")
    for format in (QCOW2, RAW):
        if WORDS[format] == suffix and _VOLUME_ID.fullmatch(volume_id):
            return volume_id, format
    return None


def pool_of(name: str) -> str:
    """The pool that a volume or snapshot is in: "pools/a/volumes/b" → "pools/a"."""
    return "/".join(name.split("/")[:2])


def volume_of(name: str) -> str:
    """The volume that a snapshot is of, or the volume itself."""
    return "/".join(name.split("/")[:4])


def id_of(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def file_name_for(node: str, unique_id: str) -> str:
    """The name of a kept file, which says whose it is: ("nodes/n1", id) → "files/n1.id"."""
    return f"files/{id_of(node)}.{unique_id}"


def node_of_file(name: str) -> str:
    """The node that keeps a file: "files/n1.id" → "nodes/n1".

    Raises NOT_FOUND: no file is called that.
    """
    found = _FILE_ID.fullmatch(name.removeprefix("files/"))
    if found is None or not name.startswith("files/"):
        refuse(reason_pb2.REASON_NOT_FOUND, f"{name[:120]} does not exist", "name")
    return f"nodes/{found.group(1)}"


def overlaps(one: str, other: str) -> bool:
    """Two folders are the same, or one lies in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")

"""Which messages are rows, what their names look like, and how they become bytes and come back.

Read off the contracts (`pvc.core.v1.stored`); nothing here knows where rows are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from google.protobuf.message import DecodeError, Message
from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, meta_pb2, operation_pb2, options_pb2, reason_pb2, store_pb2
from pvc.gateway.v1 import token_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_pb2

from services.mesh.errors import PvcError

_FILES = (
    vm_pb2,
    cluster_pb2,
    event_pb2,
    operation_pb2,
    token_pb2,
    network_pb2,
    image_pb2,
    storage_pb2,
)

ROW_BYTES_MAX = 512 * 1024
"""Largest row. ZooKeeper refuses 1 MiB with no better answer than a lost connection."""


@runtime_checkable
class Resource(Protocol):
    """Any message that can be a row: it has a name and a Meta."""

    name: str

    @property
    def meta(self) -> meta_pb2.Meta: ...


R = TypeVar("R", bound=Message)

Upgrade = Callable[[bytes], bytes]
"""Turns the bytes of one schema into those of the next."""


def _stored_types() -> Mapping[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for file in _FILES:
        for name, descriptor in file.DESCRIPTOR.message_types_by_name.items():
            if descriptor.GetOptions().HasExtension(options_pb2.stored):
                stored = descriptor.GetOptions().Extensions[options_pb2.stored]
                found[stored.collection] = getattr(file, name)
    return found


TYPES: Mapping[str, type[Message]] = _stored_types()
"""Collection path ("pools/volumes") → message type."""

COLLECTIONS: Mapping[type[Message], str] = {kind: path for path, kind in TYPES.items()}
"""Message type → collection path."""

UPGRADES: dict[tuple[str, int], Upgrade] = {}
"""(collection path, schema) → what brings a row of that schema to the next."""

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def collection_of(name: str) -> str:
    """The collection path of a resource name: "pools/a/volumes/b" → "pools/volumes".

    Raises ValueError if it is not the name of any resource.
    """
    parts = name.split("/")
    path = "/".join(parts[::2])
    ids = parts[1::2]
    if len(parts) % 2 or path not in TYPES or not all(_ID.fullmatch(part) for part in ids):
        raise ValueError(f"{name!r} is not the name of a resource")
    return path


def schema_of(collection: str) -> int:
    """The schema that this build writes for a collection."""
    options = TYPES[collection].DESCRIPTOR.GetOptions()
    return int(options.Extensions[options_pb2.stored].schema)


def to_stored(value: Message, revision: int) -> store_pb2.StoredRow:
    """A resource as it is kept, without its etag. Raises PvcError TOO_LARGE beyond ROW_BYTES_MAX."""
    row: Any = type(value)()
    row.CopyFrom(value)
    row.meta.etag = ""
    payload = row.SerializeToString(deterministic=True)
    if len(payload) > ROW_BYTES_MAX:
        raise PvcError(
            reason_pb2.REASON_TOO_LARGE,
            f"{row.name} takes {len(payload)} bytes; at most {ROW_BYTES_MAX} can be kept",
        )
    return store_pb2.StoredRow(
        schema=schema_of(COLLECTIONS[type(value)]), value=payload, revision=revision
    )


def from_stored(name: str, row: store_pb2.StoredRow) -> Message:
    """A kept row as a resource, upgraded to this build's schema, its etag set to its revision.

    Raises PvcError SCHEMA_TOO_NEW for a row of a newer build, ValueError for one that is damaged.
    """
    collection = collection_of(name)
    value: Any = TYPES[collection]()
    try:
        value.ParseFromString(_upgraded(name, collection, row))
    except DecodeError as error:
        raise ValueError(f"the stored row {name} is damaged: {error}") from error
    value.meta.etag = str(row.revision)
    return value  # type: ignore[no-any-return]


def _upgraded(name: str, collection: str, row: store_pb2.StoredRow) -> bytes:
    newest = schema_of(collection)
    if row.schema > newest:
        raise PvcError(
            reason_pb2.REASON_SCHEMA_TOO_NEW,
            f"{name} was written with schema {row.schema}, and this version knows {newest}: "
            "run the newer version of PVC on this node",
        )
    payload = row.value
    for schema in range(row.schema, newest):
        payload = UPGRADES[collection, schema](payload)
    return payload

"""Reading lists the way the API promises: filter, order, pages, field masks, watches.

Pure but for `follow`, which waits for the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from pvc.core.v1 import meta_pb2

from services.state.store import Snapshot, Store

R = TypeVar("R", bound=Message)
A = TypeVar("A", bound=Message)


def masked(row: R, mask: FieldMask) -> R:
    """The row with only the fields of the mask; the row itself when the mask is empty."""
    if not mask.paths:
        return row
    cut = type(row)()
    mask.MergeMessage(row, cut)
    return cut


def page(snapshot: Snapshot, kind: type[Message], request: Any, response: type[A]) -> A:
    """The page that a List request asks for."""
    raise AssertionError("arrives with the mesh")


def follow(store: Store, kind: type[Message], request: Any, response: type[A]) -> AsyncIterator[A]:
    """The stream that a Watch request asks for."""
    raise AssertionError("arrives with the mesh")


_ = (asyncio, meta_pb2)

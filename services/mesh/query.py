"""Reading lists the way the API promises: filter, order, pages, field masks, watches.

Pure but for `follow`, which waits for the store.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh import masks
from services.mesh.contract import descriptor, holding
from services.mesh.errors import refuse
from services.mesh.order import Order, after_token, ordered, query_hash, token
from services.mesh.selection import selected
from services.mesh.watches import follow
from services.state.store import Snapshot

__all__ = ["follow", "masked", "page"]

R = TypeVar("R", bound=Message)
A = TypeVar("A", bound=Message)

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000


def masked(row: R, mask: FieldMask) -> R:
    """What an answer may show of a row: the fields of the mask, all when it is empty, no secrets.

    The row itself when that is all of it. Raises INVALID_FIELD for an unknown path.
    """
    return masks.cut(row, mask.paths)


def page(snapshot: Snapshot, kind: type[Message], request: Any, response: type[A]) -> A:
    """The page that a List request asks for. Raises INVALID_QUERY, INVALID_FIELD, NOT_FOUND."""
    resource = descriptor(kind)
    order = ordered(resource, request.order_by)
    masks.check_mask(resource, request.read_mask.paths, "read_mask")
    rows = selected(snapshot, kind, request)
    parent = getattr(request, "parent", "")
    query = query_hash(resource.full_name, parent, request.filter, request.order_by)
    shown, more = _cut(rows, order, query, request)
    answer: Any = response(total_size=len(rows), revision=snapshot.revision)
    held = getattr(answer, holding(descriptor(response), resource).name)
    held.extend(masked(row, request.read_mask) for row in shown)
    if more:
        answer.next_page_token = token(query, order.plain(shown[-1]))
    return answer  # type: ignore[no-any-return]


def _cut(
    rows: Sequence[Message], order: Order, query: str, request: Any
) -> tuple[Sequence[Message], bool]:
    """The rows of the page, and whether there are more after it."""
    size = _page_size(request.page_size)
    if not order.by_name:
        rows = sorted(rows, key=order.key)
    begin = 0
    if request.page_token:
        begin = bisect_right(rows, after_token(request.page_token, query, order), key=order.key)
    return rows[begin : begin + size], begin + size < len(rows)


def _page_size(asked: int) -> int:
    if not 0 <= asked <= PAGE_SIZE_MAX:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"page_size must be between 1 and {PAGE_SIZE_MAX} (got {asked})",
            "page_size",
        )
    return asked or PAGE_SIZE

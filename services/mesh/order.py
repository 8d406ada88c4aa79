"""The order of a list, and page tokens that say where in it to go on.

Pure. A token carries the sort key of the last row shown, so that pages stay right while rows come
and go, and a hash of the query, so that it is of no use for another one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor

from pvc.core.v1 import reason_pb2
from services.mesh.errors import refuse, shown
from services.mesh.paths import FieldPath, Shape, find_path

FIELDS_MAX = 8
_TEXT_BUDGET = 120
"""Characters of texts that take part in the order, for all fields together: tokens stay short."""
_PART = re.compile(r"\s*([\w.-]+)(?:\s+(asc|desc))?\s*")
_TIMES = (Shape.TIMESTAMP, Shape.DURATION)
_ORDERLESS = (Shape.MESSAGE, Shape.MAP, Shape.BYTES)


class Reversed:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: Reversed) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reversed) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((Reversed, self.value))


Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """An order of rows of one kind; rows never tie, because names come last."""

    reads: tuple[Callable[[Any], Any], ...]
    """Each gives a plain value: text, number or list of numbers."""
    descending: tuple[bool, ...]
    samples: tuple[Any, ...]
    """What an empty row would be sorted by, to tell what kind of values belong there."""

    @property
    def by_name(self) -> bool:
        """It is the order in which the store gives rows anyway."""
        return not self.reads

    def plain(self, row: Any) -> list[Any]:
        """What a row is sorted by, as a token carries it."""
        return [*(read(row) for read in self.reads), row.name]

    def key(self, row: Any) -> Key:
        """What a row is sorted by."""
        return self.key_of(self.plain(row))

    def key_of(self, plain: list[Any]) -> Key:
        """The sort key of a plain one."""
        *values, name = plain
        turned = (
            Reversed(value) if down else value
            for value, down in zip(values, self.descending, strict=True)
        )
        return (*turned, name)


@lru_cache(maxsize=256)
def ordered(kind: Descriptor, text: str) -> Order:
    """The order that a request asks for. Raises INVALID_QUERY."""
    parts = [part for part in text.split(",") if part.strip()]
    if len(parts) > FIELDS_MAX:
        _refuse(f"at most {FIELDS_MAX} fields can give the order")
    reads, descending, samples = [], [], []
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None:
            _refuse(f'{shown(part.strip())} is no order: write "path" or "path desc"')
        path = find_path(kind, match[1].split("."), "order_by")
        samples.append(_sample(path))
        reads.append(_reader(path, samples[-1], _TEXT_BUDGET // len(parts)))
        descending.append(match[2] == "desc")
    return Order(tuple(reads), tuple(descending), tuple(samples))


def _sample(path: FieldPath) -> Any:
    in_map = path.in_map
    if path.shape in _ORDERLESS or (path.many and not in_map):
        _refuse(f"{path.text} has no order: it is a list, a map, a message or bytes")
    return [0, 0] if path.shape in _TIMES else path.field.default_value


def _reader(path: FieldPath, sample: Any, length: int) -> Callable[[Any], Any]:
    plain = _PLAIN.get(path.shape, _itself)
    if path.shape == Shape.STRING:
        plain = itemgetter(slice(length))
    if path.many:
        return lambda row: next((plain(value) for value in path.values(row)), sample)
    read = path.reader()
    return lambda row: plain(read(row))


def _itself(value: Any) -> Any:
    return value


def _number(value: Any) -> Any:
    """Not-a-number has no place in an order: it comes first."""
    return value if value == value else float("-inf")


_PLAIN: dict[Shape, Callable[[Any], Any]] = {
    Shape.NUMBER: _number,
    Shape.TIMESTAMP: lambda value: [value.seconds, value.nanos],
    Shape.DURATION: lambda value: [value.seconds, value.nanos],
}


def query_hash(*parts: str) -> str:
    """What makes two queries the same."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def token(query: str, plain: list[Any]) -> str:
    """Where the next page begins: after the row with this plain key."""
    text = json.dumps([query, plain], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def after_token(text: str, query: str, order: Order) -> Key:
    """The key to go on after. Raises INVALID_QUERY for a token of another query, or none at all."""
    try:
        padded = text + "=" * (-len(text) % 4)
        of, plain = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        _refuse(f"{shown(text, 20)} is not the next_page_token of an answer", "page_token")
    if of != query:
        _refuse(
            "the page token is that of another query: parent, filter and order_by must stay the "
            "same from page to page",
            "page_token",
        )
    if not _fits(plain, order):
        _refuse(f"{shown(text, 20)} is not the next_page_token of an answer", "page_token")
    return order.key_of(plain)


def _fits(plain: Any, order: Order) -> bool:
    """The values are of the kinds that rows have, and can be compared with them."""
    samples = [*order.samples, ""]
    if not isinstance(plain, list) or len(plain) != len(samples):
        return False
    return all(_alike(value, sample) for value, sample in zip(plain, samples, strict=True))


def _alike(value: Any, sample: Any) -> bool:
    if isinstance(sample, str):
        return isinstance(value, str)
    if isinstance(sample, list):
        two = isinstance(value, list) and len(value) == 2
        return two and all(isinstance(part, int) for part in value)
    return isinstance(value, int | float) and value == value


def _refuse(message: str, where: str = "order_by") -> NoReturn:
    refuse(reason_pb2.REASON_INVALID_QUERY, message, where)

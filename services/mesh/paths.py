"""Field paths of resources ("spec.disks.volume", "meta.labels.owner"): found, and read from rows.

Pure. Resolved once against a descriptor; reading a row afterwards looks no names up.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pvc.core.v1 import reason_pb2
from services.mesh.contract import field_named, inside, is_list, is_map, rules
from services.mesh.errors import nearest, refuse, shown


class Shape(enum.Enum):
    """What a path leads to, as far as comparing goes."""

    STRING = "a text"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    ENUM = "an enum"
    TIMESTAMP = "a time"
    DURATION = "a duration"
    MESSAGE = "a message"
    MAP = "a map"
    BYTES = "bytes"


Step = Callable[[Iterable[Any]], Iterable[Any]]
"""From the values at one point of a path to those at the next."""


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path that exists in a kind of resource."""

    text: str
    field: FieldDescriptor
    shape: Shape
    many: bool
    """It goes through a list or into a map: a row has any number of values there."""
    attributes: str
    """The path for attrgetter; of use only when not `many`."""
    steps: tuple[Step, ...]
    holders: tuple[Step, ...]
    """Steps to what holds the field; for a map's value those to the value itself."""

    @property
    def in_map(self) -> bool:
        """It leads to one value of a map."""
        message = self.field.containing_type
        return message is not None and message.GetOptions().map_entry

    def values(self, row: Any) -> Iterable[Any]:
        """All values of a row at this path."""
        found: Iterable[Any] = (row,)
        for step in self.steps:
            found = step(found)
        return found

    def reader(self) -> Callable[[Any], Any]:
        """Reads the one value at this path, fast."""
        assert not self.many
        return attrgetter(self.attributes)

    def present(self, row: Any) -> bool:
        """There is something at this path: it is set, not empty, not zero."""
        found: Iterable[Any] = (row,)
        for step in self.holders:
            found = step(found)
        name, presence = self.field.name, self.field.has_presence
        if self.holders == self.steps:
            return any(True for _ in found)
        return any(x.HasField(name) if presence else bool(getattr(x, name)) for x in found)


def find_path(kind: Descriptor, segments: Sequence[str], where: str) -> FieldPath:
    """The path of these names. Raises INVALID_QUERY at field `where` naming the nearest one."""
    message: Descriptor | None = kind
    steps, holders = list[Step](), list[Step]()
    names, many, field = list[str](), False, None
    for place, name in enumerate(segments):
        if field is not None and is_map(field):
            steps.append(partial(_entries, _key(field, name, where)))
            field, many, holders = _value_field(field), True, list(steps)
            message = field.message_type
            continue
        if message is None or (field is not None and _shape(field) in _CLOSED):
            _refuse_deeper(segments[:place], where)
        field = _known(message, name, where)
        holders = list(steps)
        names.append(field.name)
        steps.append(partial(_attributes, field.name))
        if is_list(field):
            many = True
            steps.append(_items)
        message = field.message_type
    assert field is not None
    shape = Shape.MAP if is_map(field) else _shape(field)
    return FieldPath(
        ".".join(segments), field, shape, many, ".".join(names), tuple(steps), tuple(holders)
    )


_CLOSED = frozenset({Shape.TIMESTAMP, Shape.DURATION})
_TIMES = {
    "google.protobuf.Timestamp": Shape.TIMESTAMP,
    "google.protobuf.Duration": Shape.DURATION,
}
_SHAPES = {
    FieldDescriptor.CPPTYPE_STRING: Shape.STRING,
    FieldDescriptor.CPPTYPE_BOOL: Shape.BOOLEAN,
    FieldDescriptor.CPPTYPE_ENUM: Shape.ENUM,
}


def _shape(field: FieldDescriptor) -> Shape:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return Shape.BYTES
    if field.message_type is not None:
        return _TIMES.get(field.message_type.full_name, Shape.MESSAGE)
    return _SHAPES.get(field.cpp_type, Shape.NUMBER)


def _known(message: Descriptor, name: str, where: str) -> FieldDescriptor:
    field = field_named(message, name)
    if field is None or rules(field).secret:
        known = [known.name for known in message.fields if not rules(known).secret]
        refuse(
            reason_pb2.REASON_INVALID_QUERY,
            f"{message.name} has no field {shown(name)}{nearest(name, known)}",
            where,
        )
    return field


def _refuse_deeper(segments: Sequence[str], where: str) -> NoReturn:
    refuse(
        reason_pb2.REASON_INVALID_QUERY,
        f"{'.'.join(segments)} has no fields of its own; compare it as a whole",
        where,
    )


def _key(field: FieldDescriptor, text: str, where: str) -> Any:
    key = inside(field).fields_by_name["key"]
    if _shape(key) == Shape.STRING:
        return text
    try:
        return int(text)
    except ValueError:
        refuse(
            reason_pb2.REASON_INVALID_QUERY,
            f"the keys of {field.name} are numbers, and {shown(text)} is none",
            where,
        )


def _value_field(field: FieldDescriptor) -> FieldDescriptor:
    return inside(field).fields_by_name["value"]


def _attributes(name: str, found: Iterable[Any]) -> Iterable[Any]:
    return [getattr(value, name) for value in found]


def _items(found: Iterable[Any]) -> Iterable[Any]:
    return [item for items in found for item in items]


def _entries(key: Any, found: Iterable[Any]) -> Iterable[Any]:
    return [entries[key] for entries in found if key in entries]

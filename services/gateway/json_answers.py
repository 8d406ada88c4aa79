"""Messages to JSON by protobuf's own rules, but quickly: what has to be done for each type is found
out once, and fields without presence are always there. Pure but for what it remembers.
"""

from __future__ import annotations

import base64
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message

from pvc.core.v1 import options_pb2

KEPT_BYTES = 16 * 1024 * 1024
"""Room for rows that were told before, as they came and as they went."""
Encode = Callable[[Any], Any]
"""A value as JSON has it."""

WELL_KNOWN = "google.protobuf."
ANY = "google.protobuf.Any"
STRUCT = "google.protobuf.Struct"
IN_WORDS = frozenset(f"{WELL_KNOWN}{name}" for name in ("Timestamp", "Duration", "FieldMask"))
"""Types that JSON has as strings."""
_INT64 = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_DOUBLE = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})


def to_json(message: Message) -> Mapping[str, Any]:
    """The message as JSON: int64 as strings, enums by name, times in RFC 3339."""
    descriptor: Any = message.DESCRIPTOR
    shown: Mapping[str, Any] = encoder(descriptor)(message)
    return shown


def dumped(value: Any) -> bytes:
    """JSON text of a value."""
    return msgspec.json.encode(value)


@cache
def encoder(descriptor: Descriptor) -> Encode:
    """What makes JSON of messages of a type."""
    if descriptor.full_name == ANY:
        return _any
    if descriptor.full_name in IN_WORDS:
        return lambda message: message.ToJsonString()
    if descriptor.full_name.startswith(WELL_KNOWN):
        return json_format.MessageToDict
    return _Plan(descriptor).encode


class Told:
    """Rows as JSON text, by their bytes. Most of a list is what it was in the last one, and all who
    watch are told the same: it is made once. The row that was asked for longest ago goes first."""

    def __init__(self, room_bytes: int = KEPT_BYTES) -> None:
        self._room_bytes = room_bytes
        self._kept: OrderedDict[tuple[str, bytes], msgspec.Raw] = OrderedDict()
        self.size_bytes = 0

    def text(self, message: Any) -> msgspec.Raw:
        """The JSON text of a row."""
        key = message.DESCRIPTOR.full_name, message.SerializeToString()
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        made = msgspec.Raw(dumped(encoder(message.DESCRIPTOR)(message)))
        self._kept[key] = made
        self.size_bytes += len(key[1]) + len(bytes(made))
        while self.size_bytes > self._room_bytes:
            (_, row), text = self._kept.popitem(last=False)
            self.size_bytes -= len(row) + len(bytes(text))
        return made


_told = Told()


class _Plan:
    """How messages of one type become JSON."""

    def __init__(self, descriptor: Descriptor) -> None:
        fields = descriptor.fields
        always = [f for f in fields if not f.has_presence]
        self._names = tuple(f.json_name for f in always)
        self._values = _getter([f.name for f in always])
        # Scalars that JSON has as they are need no further look.
        self._changed = tuple(
            (f.json_name, encode) for f in always if (encode := _field(f)) is not _same
        )
        self._present = tuple((f.name, f.json_name, _Lazy(f)) for f in fields if f.has_presence)

    def encode(self, message: Any) -> Mapping[str, Any]:
        """The message as JSON."""
        shown = dict(zip(self._names, self._values(message), strict=True))
        for name, encode in self._changed:
            shown[name] = encode(shown[name])
        for field, name, lazy in self._present:
            if message.HasField(field):
                shown[name] = lazy.encode(getattr(message, field))
        return shown


class _Lazy:
    """The encoder of a field, found when first needed: types may hold themselves."""

    def __init__(self, field: FieldDescriptor) -> None:
        self._field = field
        self.encode: Encode = self._first

    def _first(self, value: Any) -> Any:
        self.encode = _single(self._field)
        return self.encode(value)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda message: (only(message),)
    return attrgetter(*names)


def _field(field: FieldDescriptor) -> Encode:
    """The encoder of a field without presence."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return _map(inner)
    if not field.is_repeated:
        return _single(field)
    one = _Lazy(field)
    return lambda values: [one.encode(value) for value in values]


def _map(entry: Descriptor) -> Encode:
    one = _Lazy(entry.fields_by_name["value"])
    key_is_bool = entry.fields_by_name["key"].type == FieldDescriptor.TYPE_BOOL

    def encode(values: Mapping[Any, Any]) -> Mapping[str, Any]:
        return {
            str(key).lower() if key_is_bool else str(key): one.encode(value)
            for key, value in values.items()
        }

    return encode


def _single(field: FieldDescriptor) -> Encode:
    """The encoder of one value of a field."""
    if field.message_type is not None:
        is_row = field.message_type.GetOptions().HasExtension(options_pb2.stored)
        return _told.text if is_row else encoder(field.message_type)
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.type in _INT64:
        return str
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return _double if field.type in _DOUBLE else _same


def _same(value: Any) -> Any:
    return value


def _enum(enum: EnumDescriptor) -> Encode:
    words = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: words.get(number, number)


def _double(value: float) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _any(packed: Any) -> Mapping[str, Any]:
    """What is packed, with its type. What this build does not know stays bytes."""
    if not packed.type_url:
        return {}
    try:
        kind = Default().FindMessageTypeByName(packed.TypeName())
        message = message_factory.GetMessageClass(kind).FromString(packed.value)
    except (KeyError, DecodeError):
        return {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}
    shown = encoder(kind)(message)
    if isinstance(shown, dict) and kind.full_name != STRUCT:
        return {"@type": packed.type_url, **shown}
    return {"@type": packed.type_url, "value": shown}

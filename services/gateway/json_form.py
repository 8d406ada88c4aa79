"""JSON to messages by protobuf's own rules, but strict, and with errors that name the field and say
what is wrong. Pure.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError, shown

R = TypeVar("R", bound=Message)

DEPTH_MAX = 64
WELL_KNOWN = "google.protobuf."
FIELD_MASK = "google.protobuf.FieldMask"
BYTES_VALUE = "google.protobuf.BytesValue"
_DIGITS = re.compile(r"-?[0-9]{1,20}")
_BASE64 = re.compile(r"([A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}")
_WHOLE = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_WRAPPING = re.compile(r"Failed to parse (\w+) field: ")
_TAIL = re.compile(r" at [\w.\[\]]+\.?$|\.+$")


def invalid(path: str, problem: str) -> PvcError:
    """The field is not what it should be."""
    where = f"{path}: " if path else "the body "
    return PvcError(reason_pb2.REASON_INVALID_FIELD, f"{where}{problem}", field=path)


def read_json(body: bytes, path: str = "") -> Any:
    """The JSON value of a body. Raises INVALID_FIELD."""
    try:
        return json.loads(body, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise invalid(path, f"is not JSON: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def to_message(value: Any, message: R, path: str = "") -> R:
    """Fills the message from a JSON value. Raises INVALID_FIELD naming field and problem."""
    descriptor: Any = message.DESCRIPTOR
    tidy = _checked(value, descriptor, path, 0)
    try:
        json_format.ParseDict(tidy, message)
    except (json_format.ParseError, ValueError, TypeError, OverflowError) as error:
        fields = _WRAPPING.findall(str(error))
        problem = _TAIL.sub("", _TAIL.sub("", _WRAPPING.sub("", str(error)))).rstrip(".")
        snake = [re.sub("([A-Z])", lambda c: "_" + c.group().lower(), one) for one in fields]
        raise invalid(".".join([*filter(None, [path]), *snake]), problem) from None
    return message


def field_named(descriptor: Descriptor, name: str, path: str) -> FieldDescriptor:
    """The field of that name, JSON's or the contract's. Raises INVALID_FIELD with the nearest."""
    found = _named(descriptor).get(name)
    if found is not None:
        return found
    near = difflib.get_close_matches(name, [f.json_name for f in descriptor.fields], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise invalid(_joined(path, name), f"{descriptor.name} has no such field{hint}")


@cache
def _named(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Fields by both names; the contract's own goes before another field's JSON name."""
    fields = descriptor.fields
    return {field.json_name: field for field in fields} | {field.name: field for field in fields}


def _checked(value: Any, descriptor: Descriptor, path: str, depth: int) -> Any:
    """The value with every key known and every object where one belongs."""
    if depth > DEPTH_MAX:
        raise invalid(path, "is nested too deeply")
    if descriptor.full_name == FIELD_MASK:
        return _mask(value, path)
    if descriptor.full_name.startswith(WELL_KNOWN):
        if descriptor.full_name == BYTES_VALUE and isinstance(value, str):
            _check_base64(value, path)
        return value
    if not isinstance(value, dict):
        raise invalid(path, f"must be an object, not {_kind(value)}")
    tidy: dict[str, Any] = {}
    for key, inner in value.items():
        field = field_named(descriptor, key, path)
        if field.json_name in tidy:
            raise invalid(_joined(path, field.name), "is there twice, under two spellings")
        tidy[field.json_name] = _checked_field(inner, field, _joined(path, field.name), depth)
    _check_choices(tidy, descriptor, path)
    return tidy


def _check_choices(tidy: Mapping[str, Any], descriptor: Descriptor, path: str) -> None:
    """At most one field of each group of which one is to be chosen."""
    for choice in descriptor.oneofs:
        given = [field.name for field in choice.fields if tidy.get(field.json_name) is not None]
        if len(given) > 1:
            raise invalid(_joined(path, choice.name), f"is only one of {' and '.join(given)}")


def _checked_field(value: Any, field: FieldDescriptor, path: str, depth: int) -> Any:
    inner = field.message_type
    if value is None:
        return None
    if inner is not None and inner.GetOptions().map_entry:
        if not isinstance(value, dict):
            raise invalid(path, f"must be an object, not {_kind(value)}")
        if None in value.values():
            raise invalid(path, "has no null in it")
        of = inner.fields_by_name["value"]
        return {k: _checked_field(v, of, f"{path}[{k}]", depth + 1) for k, v in value.items()}
    if field.is_repeated:
        if not isinstance(value, list):
            raise invalid(path, f"must be a list, not {_kind(value)}")
        return [_checked_one(v, field, f"{path}[{i}]", depth) for i, v in enumerate(value)]
    return _checked_one(value, field, path, depth)


def _checked_one(value: Any, field: FieldDescriptor, path: str, depth: int) -> Any:
    if field.message_type is not None:
        return _checked(value, field.message_type, path, depth + 1)
    if isinstance(value, (dict, list)):
        raise invalid(path, f"must be a single value, not {_kind(value)}")
    if field.cpp_type in _WHOLE and isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise invalid(path, f"must be a whole number, not {shown(value)}")
    if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
        _check_base64(value, path)
    if field.type == FieldDescriptor.TYPE_ENUM and isinstance(value, str) and _DIGITS.match(value):
        raise invalid(path, f"must be a name or a number, not a number in quotes: {shown(value)}")
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(path, "holds an unpaired surrogate") from None
    return value


def _check_base64(value: str, path: str) -> None:
    """The parser would leave out what does not belong there, and take something else than was
    sent."""
    if not _BASE64.fullmatch(value) or len(value.rstrip("=")) % 4 == 1:
        raise invalid(path, f"must be base64, not {shown(value)}")


def _mask(value: Any, path: str) -> str:
    """A field mask in JSON's spelling; the contract's ("spec.memory_mib") is taken too."""
    if not isinstance(value, str):
        raise invalid(path, f"must be field names with commas between, not {_kind(value)}")
    return re.sub("_([a-z])", lambda letter: letter.group(1).upper(), value)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return kinds.get(type(value), "null" if value is None else "a number")


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def mask_of(value: Mapping[str, Any], descriptor: Descriptor, path: str = "") -> list[str]:
    """The field mask that says what a JSON object sets: its leaves, in the contract's names."""
    paths: list[str] = []
    for key, inner in value.items():
        field = field_named(descriptor, key, path)
        here = _joined(path, field.name)
        kind = field.message_type
        plain = kind is None or field.is_repeated or kind.full_name.startswith(WELL_KNOWN)
        if kind is None or plain or not isinstance(inner, dict) or not inner:
            paths.append(here)
        else:
            paths += mask_of(inner, kind, here)
    return paths

"""Checks requests against their contracts before a service looks at them.

Pure. What a message must obey is read off its descriptor once; see pvc/core/v1/options.proto for
the rules. Fields that only the cluster writes are cleared, as AIP-203 has it, and not refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NoReturn, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pvc.core.v1 import options_pb2, reason_pb2
from services.mesh.contract import (
    descriptor,
    immutable,
    inside,
    is_list,
    is_map,
    output_only,
    required,
    rules,
)
from services.mesh.errors import PvcError, refuse, shown
from services.mesh.values import Check, checks_of, key_check, string_checks

ITEMS_MAX = 256
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""The largest message that a service takes."""

FieldCheck: TypeAlias = Callable[[Any, str], None]
"""Checks one field of a message that stands at a path; raises INVALID_FIELD."""

_TIME_RANGES = {
    "google.protobuf.Timestamp": (-62_135_596_800, 253_402_300_799),
    "google.protobuf.Duration": (-315_576_000_000, 315_576_000_000),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a request a message stands, as far as the rules differ by it."""

    partial: bool = False
    """Only fields to be changed are given: what is required may be missing."""
    naming: bool = False
    """The name must be given: it says what to change."""
    nameless: bool = False
    """The name is ignored: it is being made from an id."""
    wildcards: bool = False
    """The parent may be "pools/-"."""


def check_request(request: Message) -> None:
    """Clears what only the cluster writes, then checks all else.

    Raises INVALID_FIELD naming field and rule, TOO_LARGE.
    """
    size = request.ByteSize()
    if size > MESSAGE_BYTES_MAX:
        raise PvcError(
            reason_pb2.REASON_TOO_LARGE,
            f"the request takes {size} bytes; at most {MESSAGE_BYTES_MAX} are taken",
        )
    kind = descriptor(type(request))
    listing = kind.name.startswith(("List", "Watch"))
    for check in _compiled(kind, Place(wildcards=listing)):
        check(request, "")


def check_message(message: Message, path: str = "") -> None:
    """Checks a message that is no request, such as a part of one made by a program."""
    _check_message(message, path, descriptor(type(message)), Place())


def check_unchanged(before: Message, after: Message, path: str = "") -> None:
    """Raises IMMUTABLE_FIELD when a field differs that can be given at creation only."""
    changed = changed_immutable(before, after)
    if changed:
        where = f"{path}.{changed}" if path else changed
        refuse(
            reason_pb2.REASON_IMMUTABLE_FIELD,
            f"{where} can be given at creation only; leave it as it is",
            where,
        )


def changed_immutable(before: Message, after: Message) -> str:
    """The path of the first field that differs though its contract says it never changes."""
    return next(_changed(before, after, ""), "")


def _changed(before: Any, after: Any, inside_of: str) -> Iterator[str]:
    for field in descriptor(type(before)).fields:
        path, name = f"{inside_of}{field.name}", field.name
        old, new = getattr(before, name), getattr(after, name)
        if immutable(field):
            if old != new:
                yield path
        elif is_list(field) and field.message_type is not None:
            for old_item, new_item, place in _pairs(field, old, new):
                yield from _changed(old_item, new_item, f"{path}[{place}].")
        elif field.message_type is not None and not is_map(field):
            yield from _changed(old, new, f"{path}.")


def _pairs(field: FieldDescriptor, old: Any, new: Any) -> Iterator[tuple[Any, Any, int]]:
    """Items of two lists that are the same thing: by the field that names them."""
    key = rules(field).unique
    if not key or key == ".":
        return
    there = {getattr(item, key): item for item in old}
    for place, item in enumerate(new):
        if getattr(item, key) in there:
            yield there[getattr(item, key)], item, place


@cache
def _compiled(kind: Descriptor, place: Place) -> tuple[FieldCheck, ...]:
    """The checks of a message's fields, those that clear first."""
    if kind.full_name in _TIME_RANGES:
        return (_time_check(*_TIME_RANGES[kind.full_name]),)
    cleared = [field for field in kind.fields if output_only(field)]
    if place.nameless:
        cleared += [field for field in kind.fields if field.name == "name"]
    checked = [field for field in kind.fields if field not in cleared]
    clear: list[FieldCheck] = [_clearing([field.name for field in cleared])] if cleared else []
    return (*clear, *(_field_check(kind, field, place) for field in checked))


def _below(kind: Descriptor, field: FieldDescriptor, place: Place) -> Place:
    """The place of what a field of a request, or of a message inside one, holds."""
    if kind.name.endswith("Request") and _is_resource(field):
        if kind.name.startswith("Update"):
            return Place(partial=True, naming=True)
        if kind.name.startswith("Create"):
            return Place(nameless=True)
    return replace(place, naming=False, nameless=False)


def _is_resource(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and message.GetOptions().HasExtension(options_pb2.stored)


def _clearing(names: Sequence[str]) -> FieldCheck:
    def clear(message: Any, path: str) -> None:
        for name in names:
            message.ClearField(name)

    return clear


def _time_check(low: int, high: int) -> FieldCheck:
    def check(message: Any, path: str) -> None:
        if not low <= message.seconds <= high or abs(message.nanos) >= 1_000_000_000:
            _refuse(path, "lie within the years 1 to 9999", f"{message.seconds} s", secret=False)

    return check


def _field_check(kind: Descriptor, field: FieldDescriptor, place: Place) -> FieldCheck:
    named = place.naming and field.name == "name"
    must, below = named or (required(field) and not place.partial), _below(kind, field, place)
    if is_map(field):
        return _map_check(field, must, below)
    if is_list(field):
        return _list_check(field, must, below)
    if field.message_type is not None:
        return _message_check(field, must, below)
    return _scalar_check(field, must, below)


def _scalar_check(field: FieldDescriptor, must: bool, place: Place) -> FieldCheck:
    name, presence = field.name, field.has_presence
    checks = checks_of(field, place.wildcards and name == "parent")
    secret = rules(field).secret

    def check(message: Any, path: str) -> None:
        value = getattr(message, name)
        if message.HasField(name) if presence else value:
            _check_value(value, checks, path + name, secret)
        elif must:
            _refuse_missing(path + name)

    return check


def _message_check(field: FieldDescriptor, must: bool, place: Place) -> FieldCheck:
    name, kind = field.name, inside(field)

    def check(message: Any, path: str) -> None:
        if message.HasField(name):
            _check_message(getattr(message, name), path + name, kind, place)
        elif must:
            _refuse_missing(path + name)

    return check


def _check_message(message: Any, path: str, kind: Descriptor, place: Place) -> None:
    # Compiled only now: a message may hold others of its own kind.
    is_time = kind.full_name in _TIME_RANGES
    for check in _compiled(kind, place):
        check(message, path if is_time or not path else f"{path}.")


def _list_check(field: FieldDescriptor, must: bool, place: Place) -> FieldCheck:
    name, rule = field.name, rules(field)
    kind, checks, secret = field.message_type, checks_of(field), rules(field).secret
    # An item that is given is given whole, also where its list is a change to something.
    item_place = replace(place, partial=False)

    def check(message: Any, path: str) -> None:
        items, where = getattr(message, name), path + name
        if not items and must:
            _refuse_missing(where)
        _check_count(len(items), rule, where)
        for place_, item in enumerate(items):
            if kind is not None:
                _check_message(item, f"{where}[{place_}]", kind, item_place)
            else:
                _check_value(item, checks, f"{where}[{place_}]", secret)
        if rule.unique:
            _check_unique(items, rule.unique, where)

    return check


def _map_check(field: FieldDescriptor, must: bool, place: Place) -> FieldCheck:
    name, rule = field.name, rules(field)
    key_field, value_field = (inside(field).fields_by_name[x] for x in ("key", "value"))
    text_keys = key_field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    kind, checks = value_field.message_type, _map_value_checks(field, value_field)

    def check(message: Any, path: str) -> None:
        entries, where = getattr(message, name), path + name
        if not entries and must:
            _refuse_missing(where)
        _check_count(len(entries), rule, where)
        for key in sorted(entries):
            if text_keys and (words := key_check(key)):
                _refuse(where, words, key, rule.secret)
            at = f"{where}[{shown(key) if text_keys else key}]"
            if kind is not None:
                _check_message(entries[key], at, kind, place)
            else:
                _check_value(entries[key], checks, at, rule.secret)

    return check


def _map_value_checks(field: FieldDescriptor, value: FieldDescriptor) -> tuple[Check, ...]:
    """Rules of a map are those of its values."""
    if value.cpp_type == FieldDescriptor.CPPTYPE_STRING and value.type == field.TYPE_STRING:
        return string_checks(rules(field))
    return checks_of(value)


def _check_value(value: Any, checks: tuple[Check, ...], path: str, secret: bool) -> None:
    for check in checks:
        if words := check(value):
            _refuse(path, words, value, secret)


def _check_count(count: int, rule: options_pb2.Rules, path: str) -> None:
    most = rule.max_items or ITEMS_MAX
    if count > most:
        _refuse(path, f"have at most {most} items", count, secret=False)
    if count and count < rule.min_items:
        _refuse(path, f"have at least {rule.min_items} items", count, secret=False)


def _check_unique(items: Any, key: str, path: str) -> None:
    seen: set[Any] = set()
    for place, item in enumerate(items):
        value = item if key == "." else getattr(item, key)
        if value in seen:
            where = f"{path}[{place}]" if key == "." else f"{path}[{place}].{key}"
            _refuse(where, "differ from those before it", value, secret=False)
        seen.add(value)


def _refuse_missing(path: str) -> NoReturn:
    refuse(reason_pb2.REASON_INVALID_FIELD, f"{path} must be given", path)


def _refuse(path: str, words: str, value: object, secret: bool) -> NoReturn:
    got = "" if secret else f" (got {value if isinstance(value, int | float) else shown(value)})"
    refuse(reason_pb2.REASON_INVALID_FIELD, f"{path} must {words}{got}", path)

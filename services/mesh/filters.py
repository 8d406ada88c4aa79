"""Filters on resources, compiled once into a Python function.

Pure. The language is `filter_syntax`'s; here it meets a kind of resource: fields must exist, and
values must be what the fields hold.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import reason_pb2
from services.mesh.errors import nearest, refuse, shown
from services.mesh.filter_syntax import And, Comparison, Not, Or, Tree, parse
from services.mesh.paths import FieldPath, Shape, find_path

Test: TypeAlias = Callable[[Any], bool]

_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ":": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ANYTHING = ("", "")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@lru_cache(maxsize=512)
def compiled(kind: Descriptor, text: str) -> Test | None:
    """The filter as a function of a row; None for the empty filter, which every row passes.

    Raises INVALID_QUERY naming what is wrong and the nearest thing that is right.
    """
    tree = parse(text)
    return None if tree is None else _test(kind, tree)


def _test(kind: Descriptor, tree: Tree) -> Test:
    match tree:
        case Comparison():
            return _comparison(find_path(kind, tree.path, "filter"), tree)
        case Not(part):
            return _opposite(_test(kind, part))
        case And(parts):
            every = [_test(kind, part) for part in parts]
            return lambda row: all(test(row) for test in every)
        case Or(parts):
            some = [_test(kind, part) for part in parts]
            return lambda row: any(test(row) for test in some)


def _opposite(test: Test) -> Test:
    return lambda row: not test(row)


def _comparison(path: FieldPath, comparison: Comparison) -> Test:
    if comparison.operator == "!=":
        same = Comparison(comparison.path, "=", comparison.pieces)
        return _opposite(_comparison(path, same))
    if comparison.pieces == _ANYTHING and comparison.operator == ":":
        return path.present
    if path.shape == Shape.MAP and comparison.operator == ":":
        return _has_key(path, _glob(comparison.pieces))
    accepts = _accepts(path, comparison)
    if path.many:
        return lambda row: any(accepts(value) for value in path.values(row))
    read = path.reader()
    return lambda row: accepts(read(row))


def _has_key(path: FieldPath, fits: Test) -> Test:
    return lambda row: any(fits(str(key)) for entries in path.values(row) for key in entries)


def _accepts(path: FieldPath, comparison: Comparison) -> Test:
    """What a value at the path must pass."""
    match path.shape:
        case Shape.STRING:
            return _string(path, comparison)
        case Shape.NUMBER:
            return _ordered(comparison, _number(path, _plain(path, comparison)))
        case Shape.BOOLEAN:
            return _equal(path, comparison, _boolean(path, _plain(path, comparison)))
        case Shape.ENUM:
            kind = path.field.enum_type
            assert kind is not None
            number = enum_number(kind, _plain(path, comparison), path.text)
            return _equal(path, comparison, number)
        case Shape.TIMESTAMP | Shape.DURATION:
            return _time(path, comparison)
        case Shape.MESSAGE | Shape.MAP | Shape.BYTES:
            _refuse(f"{path.text} is {path.shape.value}: only {path.text}:* can be asked of it")


def _string(path: FieldPath, comparison: Comparison) -> Test:
    if comparison.operator not in "=:":
        return _ordered(comparison, _plain(path, comparison))
    if len(comparison.pieces) == 1:
        return _ordered(comparison, comparison.pieces[0])
    return _glob(comparison.pieces)


def _ordered(comparison: Comparison, wanted: Any) -> Test:
    compare = _ORDERED[comparison.operator]
    return lambda value: compare(value, wanted)


def _equal(path: FieldPath, comparison: Comparison, wanted: Any) -> Test:
    if comparison.operator not in "=:":
        _refuse(f"{path.text} is {path.shape.value}: compare it with = or !=")
    return lambda value: bool(value == wanted)


def _time(path: FieldPath, comparison: Comparison) -> Test:
    """An unset time is neither before nor after any other."""
    wanted = _moment(path, _plain(path, comparison))
    compare = _ORDERED[comparison.operator]

    def accepts(value: Any) -> bool:
        moment = (value.seconds, value.nanos)
        return moment != (0, 0) and compare(moment, wanted)

    return (
        accepts
        if path.shape == Shape.TIMESTAMP
        else lambda value: compare((value.seconds, value.nanos), wanted)
    )


def _plain(path: FieldPath, comparison: Comparison) -> str:
    if len(comparison.pieces) > 1:
        kind = path.shape.value
        _refuse(
            f"{path.text} is {kind}: wildcards go with texts and = only; to match an asterisk "
            "itself write \\*"
        )
    return comparison.pieces[0]


def _number(path: FieldPath, text: str) -> int | float:
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        if not math.isnan(number):
            return number
    _refuse(f"{path.text} is a number, and {shown(text)} is none")


def _boolean(path: FieldPath, text: str) -> bool:
    if text not in ("true", "false"):
        _refuse(f"{path.text} is true or false, not {shown(text)}")
    return text == "true"


def _moment(path: FieldPath, text: str) -> tuple[int, int]:
    is_time = path.shape == Shape.TIMESTAMP
    moment = Timestamp() if is_time else Duration()
    try:
        moment.FromJsonString(f"{text}T00:00:00Z" if _DATE.fullmatch(text) and is_time else text)
    except (ValueError, OverflowError):
        form = "a time such as 2026-01-31T12:00:00Z" if is_time else "a duration such as 20s"
        _refuse(f"{path.text} is {form}, and {shown(text)} is none")
    return moment.seconds, moment.nanos


def enum_prefix(kind: EnumDescriptor) -> str:
    """What all names of an enum's values begin with: "VM_STATE_"."""
    first: str = kind.values[0].name
    return first.removesuffix("UNSPECIFIED") if first.endswith("_UNSPECIFIED") else ""


def enum_number(kind: EnumDescriptor, text: str, path: str) -> int:
    """The number of an enum value, named with or without its prefix. Raises INVALID_QUERY."""
    prefix = enum_prefix(kind)
    for name in (text, prefix + text, text.upper(), prefix + text.upper()):
        if name in kind.values_by_name:
            return int(kind.values_by_name[name].number)
    known = [value.name.removeprefix(prefix) for value in kind.values]
    _refuse(f"{path} cannot be {shown(text)}{nearest(text.upper(), known)}")


def _glob(pieces: tuple[str, ...]) -> Test:
    """Matches a text against pieces with anything between them, in time linear in both."""
    first, *middle, last = pieces if len(pieces) > 1 else (pieces[0], "")
    exact = len(pieces) == 1

    def fits(text: str) -> bool:
        if exact:
            return text == first
        if len(text) < len(first) + len(last):
            return False
        if not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return fits


def _refuse(message: str) -> NoReturn:
    refuse(reason_pb2.REASON_INVALID_QUERY, message, "filter")

"""All contracts of PVC, and messages of them filled with whatever a hostile caller may think of."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from services.mesh.contract import is_map

GENERATED = Path(__file__).parents[2] / "clients/python/gen"

STRINGS = [
    *("", "web", "We b", "-", "..", "../../etc/passwd", "a/b", "vms/web", "pools/a/volumes/b"),
    *("pools/-", "vms/..", "vms/-", "vms/web\n", "\0", "a\0b", "\x1b[2J", "\u202egnp.exe"),
    *("e\u0301", "\ufeffweb", "\u200b", "x" * 257, "x" * 70_000, "\U000e0041", "🐙", "<a>&'\""),
    *("$(reboot)", "; rm -rf /", "%s%n", "10.0.0.1", "10.0.0.1/8", "10.0.0.0/24", "010.1.1.1"),
    *("52:54:00:00:00:01", "01:00:5e:00:00:01", "::1", "example.org", "EXAMPLE", "a..b", "1" * 30),
    *("*", "name", "spec.cpu", "a=b", "١٢٣", "ⅷ", "vms/ｗeb", "pools/a/volumes/b/snapshots/c"),
]
NUMBERS = [0, 1, -1, 2, 63, 64, 512, 513, 4096, 1 << 20, 2**31 - 1, -(2**31)]
LONG_NUMBERS = [*NUMBERS, 2**63 - 1, -(2**63), 1 << 40]
FLOATS = [0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e308]


def modules() -> Iterator[ModuleType]:
    """Every generated module of messages."""
    for path in sorted(GENERATED.rglob("*_pb2.py")):
        yield importlib.import_module(".".join(path.relative_to(GENERATED).with_suffix("").parts))


def services() -> list[ServiceDescriptor]:
    """Every service of every contract."""
    return [x for m in modules() for x in m.DESCRIPTOR.services_by_name.values()]


def requests() -> list[Descriptor]:
    """Every type that a method takes."""
    found = {x.input_type.full_name: x.input_type for s in services() for x in s.methods}
    return list(found.values())


def hostile(kind: Descriptor, chance: random.Random, depth: int = 0) -> Any:
    """A message with some fields set to hostile values: sometimes few, sometimes most."""
    message = GetMessageClass(kind)()
    share = chance.choice([0.15, 0.6]) if depth < 5 else 0.05
    for field in kind.fields:
        if chance.random() < share:
            _fill(message, field, chance, depth)
    return message


def _fill(message: Any, field: FieldDescriptor, chance: random.Random, depth: int) -> None:
    if is_map(field):
        assert field.message_type is not None
        value = field.message_type.fields_by_name["value"]
        for _ in range(chance.choice([1, 2, 70])):
            key, entries = chance.choice(STRINGS), getattr(message, field.name)
            if value.message_type is not None:
                entries[key].CopyFrom(hostile(value.message_type, chance, depth + 1))
            else:
                entries[key] = _value(value, chance)
    elif field.is_repeated:
        for _ in range(chance.choice([1, 2, 3, 40 if depth < 2 else 1])):
            items = getattr(message, field.name)
            if field.message_type is not None:
                items.add().CopyFrom(hostile(field.message_type, chance, depth + 1))
            else:
                items.append(_value(field, chance))
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(hostile(field.message_type, chance, depth + 1))
    else:
        setattr(message, field.name, _value(field, chance))


def _value(field: FieldDescriptor, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = chance.choice(STRINGS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice([0, 1, 2, 3, 99, -1])
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice(FLOATS)
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice(LONG_NUMBERS)
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return abs(chance.choice(NUMBERS))
        case _:
            return chance.choice(NUMBERS)


def strings(message: Any) -> Iterator[tuple[FieldDescriptor, str]]:
    """Every text in a message, however deep."""
    for field, value in message.ListFields():
        values = value.values() if is_map(field) else value if field.is_repeated else [value]
        if is_map(field):
            yield from ((field, str(key)) for key in value)
        for one in values:
            if isinstance(one, str):
                yield field, one
            elif hasattr(one, "ListFields"):
                yield from strings(one)

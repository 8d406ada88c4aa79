"""Fields of messages by their path ("spec.cpu.vcpus", "meta.labels.owner"): found, read, told.
Pure.

What a path may be comes from the contract's descriptors and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

NEAR_MAX = 3
_MESSAGE = 10
"""FieldDescriptor.CPPTYPE_MESSAGE, without loading protobuf for it."""
_NUMBERS = frozenset(range(1, 7))
_BOOLEAN, _TEXT = 7, 9
TIME = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"


_NAMING = {
    "home": "nodes",
    "image": "images",
    "network": "networks",
    "node": "nodes",
    "operation": "operations",
    "parent": "pools/volumes",
    "pool": "pools",
    "vm": "vms",
    "volume": "pools/volumes",
    "waits_for": "vms",
}
"""What fields name that no user writes, and that have no rule therefore."""


class UnknownField(ValueError):
    """There is no such field. near: what was probably meant."""

    def __init__(self, path: str, near: Sequence[str]) -> None:
        super().__init__(f"there is no field or column {path!r}")
        self.path = path
        self.near = tuple(near)


@dataclass(frozen=True, slots=True)
class Field:
    """A path that exists in a kind of message."""

    path: str
    """As the contract spells it."""
    steps: tuple[str, ...]
    leaf: Any
    """Its FieldDescriptor; of a map's value that of the value."""
    many: bool
    """A row has any number of values there."""

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.leaf.cpp_type in _NUMBERS

    @property
    def is_boolean(self) -> bool:
        """Whether its values are yes or no."""
        return bool(self.leaf.cpp_type == _BOOLEAN)

    @property
    def is_message(self) -> bool:
        """Whether its values have fields of their own; times do not."""
        return self.leaf.cpp_type == _MESSAGE and self.message not in (TIME, DURATION)

    @property
    def message(self) -> str:
        """The full name of the kind of message that it holds; "" for what is none."""
        kind = self.leaf.message_type
        return str(kind.full_name) if kind is not None else ""

    @property
    def resource(self) -> str:
        """The collections ("pools/volumes") whose resources it names; "" for none."""
        from pvc.core.v1 import options_pb2

        found = str(self.leaf.GetOptions().Extensions[options_pb2.rules].resource)
        return found or (_NAMING.get(self.leaf.name, "") if self.leaf.cpp_type == _TEXT else "")

    def values(self, row: Any) -> list[Any]:
        """What a row has there: nothing for what is unset, one, or as many as there are."""
        found: list[Any] = [row]
        for step in self.steps:
            found = [inner for value in found for inner in _inside(value, step)]
        return found

    def text(self, row: Any) -> str:
        """What a row has there, in words."""
        return " ".join(map(self.word, self.values(row)))

    def plain(self, row: Any) -> Any:
        """What a row has there, as JSON has it."""
        told = [self._plain(value) for value in self.values(row)]
        return told if self.many else (told[0] if told else None)

    def word(self, value: Any) -> str:
        """One value in words."""
        if _is_map(self.leaf):
            return " ".join(f"{key}={_inner(value[key])}" for key in sorted(value))
        if self.leaf.enum_type is not None:
            return enum_value(self.leaf.enum_type, value)
        if self.leaf.message_type is not None:
            if self.message in (TIME, DURATION):
                return str(value.ToJsonString())
            from google.protobuf.json_format import MessageToJson

            return str(MessageToJson(value, indent=None))
        if isinstance(value, bytes):
            return value.hex()
        return ("yes" if value else "no") if self.is_boolean else str(value)

    def _plain(self, value: Any) -> Any:
        if _is_map(self.leaf):
            return {str(key): _inner(value[key]) for key in sorted(value)}
        if self.leaf.enum_type is not None:
            known = self.leaf.enum_type.values_by_number.get(value)
            return known.name if known else value
        if self.leaf.message_type is not None:
            from google.protobuf.json_format import MessageToDict

            return MessageToDict(value)
        return value.hex() if isinstance(value, bytes) else value


def _inner(value: Any) -> Any:
    """A value of a map as JSON has it."""
    if not hasattr(value, "DESCRIPTOR"):
        return value
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(value)


def enum_value(kind: Any, number: int) -> str:
    """An enum's value as a word: VM_STATE_RUNNING → "running"; "" for the unset one."""
    known = kind.values_by_number.get(number)
    if not number or known is None:
        return str(number or "")
    zero = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name.removeprefix(zero).lower().replace("_", " "))


def enum_words(kind: Any) -> list[str]:
    """All values of an enum as they may be written: "running", "last_state"."""
    zero = kind.values[0].name.removesuffix("UNSPECIFIED")
    return [value.name.removeprefix(zero).lower() for value in kind.values if value.number]


def _inside(value: Any, step: str) -> Iterable[Any]:
    """What is inside a value: entries of a map, items of a list, a field if it is set."""
    if not hasattr(value, "DESCRIPTOR"):
        return [value[step]] if step in value else []
    field = value.DESCRIPTOR.fields_by_name[step]
    inner = getattr(value, step)
    if _is_map(field):
        return [inner]
    if field.is_repeated:
        return list(inner)
    return [inner] if not field.has_presence or value.HasField(step) else []


def _is_map(field: Any) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def find(kind: Any, path: str) -> Field:
    """The field of a kind of message (its descriptor). Raises UnknownField.

    Names may be written as in JSON ("memoryMib") too; after a map's name stands a key.
    """
    steps: list[str] = []
    leaf, many, message, names = None, False, kind, path.split(".")
    for place, name in enumerate(names):
        if leaf is not None and _is_map(leaf):
            value = leaf.message_type.fields_by_name["value"]
            deeper = value.message_type is not None
            steps.append(name if deeper else ".".join(names[place:]))
            leaf, message = value, value.message_type
            if not deeper:
                break
            continue
        field = _named(message, name)
        if field is None:
            raise UnknownField(path, _near(kind, names[:place], message, name))
        steps.append(field.name)
        leaf, message = field, field.message_type
        many = many or field.is_repeated
        if field.message_type is not None and field.message_type.full_name in (TIME, DURATION):
            message = None
    if leaf is None or _secret(leaf):
        raise UnknownField(path, ())
    keyed = ".".join(steps)
    return Field(keyed, tuple(steps), leaf, many and not _single(kind, steps))


def _single(kind: Any, steps: Sequence[str]) -> bool:
    """Whether the only thing on the way that holds many is a map, of which one key is named."""
    message = kind
    for place, name in enumerate(steps):
        field = message.fields_by_name.get(name) if message is not None else None
        if field is None:
            return True
        if field.is_repeated:
            return _is_map(field) and place < len(steps) - 1
        message = field.message_type
    return True


def _named(message: Any, name: str) -> Any:
    if message is None or _is_a_time(message):
        return None
    return message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)


def _is_a_time(message: Any) -> bool:
    return message.full_name in (TIME, DURATION)


def _secret(field: Any) -> bool:
    from pvc.core.v1 import options_pb2

    return bool(field.GetOptions().Extensions[options_pb2.rules].secret)


def _near(kind: Any, before: Sequence[str], message: Any, name: str) -> list[str]:
    """Fields that were probably meant: of that message, or of that name anywhere."""
    found = []
    if message is not None:
        inside = get_close_matches(name, [f.name for f in message.fields], NEAR_MAX, 0.6)
        found = [".".join([*before, one]) for one in inside]
    leaves = [one for one in paths(kind) if one.rpartition(".")[2] == name]
    return list(dict.fromkeys([*leaves, *found]))[:NEAR_MAX]


def paths(kind: Any, depth: int = 4) -> list[str]:
    """Every path of a kind of message that leads to a value, but what is inside of maps."""
    found: list[str] = []
    for field in kind.fields:
        inner = field.message_type
        if _secret(field):
            continue
        if inner is None or _is_map(field) or _is_a_time(inner) or depth <= 1:
            found.append(field.name)
        else:
            found += [f"{field.name}.{path}" for path in paths(inner, depth - 1)]
    return found

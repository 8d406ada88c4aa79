"""What the contracts say about fields: their rules, behaviours and shapes, read off descriptors.

Pure; no value of any message is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from pvc.core.v1 import options_pb2


def descriptor(kind: type[Message]) -> Descriptor:
    """The descriptor of a message type."""
    return cast(Descriptor, kind.DESCRIPTOR)


def inside(field: FieldDescriptor) -> Descriptor:
    """The message that a field of a message type, list of messages or map holds."""
    assert field.message_type is not None, f"{field.full_name} holds no message"
    return field.message_type


def rules(field: FieldDescriptor) -> options_pb2.Rules:
    """The field's rules; empty ones when it has none."""
    return field.GetOptions().Extensions[options_pb2.rules]


def behaviours(field: FieldDescriptor) -> frozenset[int]:
    """The field's google.api.FieldBehavior values."""
    return frozenset(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def required(field: FieldDescriptor) -> bool:
    """The field must be given."""
    return field_behavior_pb2.REQUIRED in behaviours(field)


def output_only(field: FieldDescriptor) -> bool:
    """The cluster alone writes the field."""
    return field_behavior_pb2.OUTPUT_ONLY in behaviours(field)


def immutable(field: FieldDescriptor) -> bool:
    """The field can be given at creation only."""
    return field_behavior_pb2.IMMUTABLE in behaviours(field)


def is_map(field: FieldDescriptor) -> bool:
    """The field is a map, whose entries the descriptor shows as messages."""
    entry = field.message_type
    return entry is not None and entry.GetOptions().map_entry


def is_list(field: FieldDescriptor) -> bool:
    """The field is repeated and not a map."""
    return field.is_repeated and not is_map(field)


def field_named(message: Descriptor, name: str) -> FieldDescriptor | None:
    """The field of that name, as the contract or as JSON spells it."""
    return message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)


def holding(message: Descriptor, kind: Descriptor) -> FieldDescriptor:
    """The field of an answer that holds the resources: the only one of that type."""
    fields = [field for field in message.fields if field.message_type is kind]
    assert len(fields) == 1, f"{message.full_name} must have one field of {kind.full_name}"
    return fields[0]


@cache
def secret_paths(message: Descriptor) -> tuple[tuple[str, ...], ...]:
    """Paths of fields that hold secrets, through singular messages and lists alike."""
    return tuple(_secret_paths(message, ()))


def _secret_paths(message: Descriptor, inside: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in message.fields:
        if rules(field).secret:
            yield (field.name,)
        elif field.message_type is not None and field.message_type.full_name not in inside:
            deeper = _secret_paths(field.message_type, (*inside, message.full_name))
            yield from ((field.name, *path) for path in deeper)


@cache
def method(path: str) -> MethodDescriptor | None:
    """The method of a call's path, "/pvc.compute.v1.VmService/GetVm"; None for a foreign one."""
    service, _, name = path.strip("/").rpartition("/")
    try:
        found = Default().FindServiceByName(service)
    except KeyError:
        return None
    return found.methods_by_name.get(name)


READING = (
    "Get", "List", "Watch", "ReadConsole", "Wait", "Download", "WhoAmI", "Check", "Explain", "Plan"
)  # fmt: skip
"""What the names of methods that change nothing begin with."""


def reads(path: str) -> bool:
    """The method of a call's path changes nothing, so that it may be repeated."""
    return path.rpartition("/")[2].startswith(READING)

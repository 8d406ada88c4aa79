"""A thing as a text to be edited: YAML of the contract's form, with what the contract says of each
field above it, and the fields that are unset as comments. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from shell.contract.fields import behaves, enum_words, is_whole, type_words
from shell.contract.manifest import is_for_files, plain_field
from shell.contract.texts import first_sentence
from shell.render import yaml_text

WIDTH = 100
EXAMPLES = {"text": "''", "true or false": "false", "whole number": "0", "number": "0"}


def commented(row: Any, head: str) -> str:
    """The text. head: what stands at its top, for the reader."""
    top = [f"# {line}" for line in textwrap.wrap(head, WIDTH - 2)]
    return "\n".join([*top, f"name: {row.name}", *_fields(row, ""), ""])


def _fields(message: Any, indent: str) -> Iterator[str]:
    for field in message.DESCRIPTOR.fields:
        top_name = field.name == "name" and not indent
        if top_name or not is_for_files(field):
            continue
        if is_whole(field):
            yield from _said(field, indent)
            yield from _line(message, field, indent)
        elif inner := list(_fields(getattr(message, field.name), f"{indent}  ")):
            there = any(not line.lstrip().startswith("#") for line in inner)
            yield from _said(field, indent)
            yield f"{indent}{field.name}:" if there else f"{indent}# {field.name}:"
            yield from inner


def _said(field: FieldDescriptor, indent: str) -> Iterator[str]:
    text = first_sentence(field)
    if field.enum_type is not None:
        text = f"{text} One of: {', '.join(enum_words(field.enum_type).values())}."
    if behaves(field, "IMMUTABLE"):
        text += " Cannot change."
    for line in textwrap.wrap(text, WIDTH - len(indent) - 2):
        yield f"{indent}# {line}"


def _line(message: Any, field: FieldDescriptor, indent: str) -> Iterator[str]:
    """The field with its value; as a comment when it is unset."""
    value = plain_field(message, field)
    if value is None:
        yield f"{indent}# {field.name}: {_example(field)}"
        return
    text = yaml_text({field.name: value})
    for line in text.splitlines():
        yield f"{indent}{line}"


def _example(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "{}" if field.message_type and field.message_type.GetOptions().map_entry else "[]"
    return EXAMPLES.get(type_words(field), "")

"""Things as people keep them in files: YAML or JSON of the contract's form, read and written.

Pure. What a file says is checked for its form alone, and every mistake names the place in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from shell.contract.fields import (
    behaves,
    enum_words,
    is_map,
    is_whole,
    name_form,
    named,
    nearest,
)
from shell.contract.kinds import Kind, kind_of, kinds
from shell.render import yaml_text


class Malformed(ValueError):
    """The text does not say what it must; the message names the place."""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing out of a file."""

    kind: Kind
    name: str
    message: Any
    """The thing with what the file says of it, without what only the cluster writes."""
    given: tuple[str, ...]
    """The paths that the file says something of."""
    plain: Mapping[str, Any]
    """What the file says, as the contract spells it."""

    def at(self, path: str) -> Any:
        """What the file says at a path."""
        found: Any = self.plain
        for step in path.split("."):
            found = found[step]
        return found


def documents(text: str) -> list[Document]:
    """What is in a text: one thing, several after another (---), or lists of them. Raises
    Malformed."""
    import yaml

    try:
        found = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise Malformed(" ".join(str(error).split())) from None
    things = [one for part in found for one in (part if isinstance(part, list) else [part])]
    read = [document(thing) for thing in things if thing is not None]
    if not read:
        raise Malformed("there is nothing in it")
    return read


def document(thing: Any, kind: Kind | None = None) -> Document:
    """One thing, of that kind if its name need not tell. Raises Malformed."""
    if not isinstance(thing, dict):
        raise Malformed(f"{thing!r} is no thing with fields: write name: vms/web, then its spec")
    name = str(thing.get("name") or "")
    kind = kind or kind_of(name)
    if kind is None:
        forms = ", ".join(name_form(path) for path in kinds())
        raise Malformed(f"name: {name!r} names nothing that there is; names are {forms}")
    plain = _plain(kind.message, thing, "")
    message = json_format.ParseDict(plain, kind.new())
    return Document(kind, name, message, tuple(_given(kind.message, plain, "")), plain)


def _plain(message: Descriptor, thing: Any, where: str) -> dict[str, Any]:
    """The fields that a user may set, as the contract spells them. Raises Malformed."""
    if not isinstance(thing, dict):
        raise Malformed(f"{where or message.name} must have fields (got {thing!r})")
    plain = {}
    for key, value in thing.items():
        path = f"{where}.{key}" if where else str(key)
        field = named(message, str(key))
        if field is None:
            known = [one.name for one in message.fields]
            raise Malformed(f"{path} is no field of {message.name}{nearest(str(key), known)}")
        if value is not None and not _is_clusters(field):
            plain[field.name] = _value(field, value, path)
    return plain


def _is_clusters(field: FieldDescriptor) -> bool:
    """Whether it is for the cluster to write, or to compare by: of no use in a file."""
    holder = field.containing_type
    etag = field.name == "etag" and holder is not None and holder.name == "Meta"
    return etag or behaves(field, "OUTPUT_ONLY")


def _value(field: FieldDescriptor, value: Any, path: str) -> Any:
    if is_map(field):
        if not isinstance(value, dict):
            raise Malformed(f"{path} must be keys with values (got {value!r})")
        return {str(key): _one(field, one, f"{path}.{key}") for key, one in value.items()}
    if field.is_repeated:
        if not isinstance(value, list):
            raise Malformed(f"{path} must be a list (got {value!r})")
        return [_one(field, one, f"{path}[{place}]") for place, one in enumerate(value)]
    return _one(field, value, path)


def _one(field: FieldDescriptor, value: Any, path: str) -> Any:
    """One value, tried by itself so that what is wrong with it can be said."""
    if is_map(field):
        assert field.message_type is not None
        field = field.message_type.fields_by_name["value"]
    if field.enum_type is not None:
        return _enum(field.enum_type, value, path)
    if field.message_type is not None and not field.message_type.full_name.startswith("google."):
        return _plain(field.message_type, value, path)
    return _scalar(field, value, path)


def _enum(kind: EnumDescriptor, value: Any, path: str) -> str:
    """The contract's name of a value; its short word will do."""
    words = enum_words(kind)
    text = str(value)
    if text in kind.values_by_name:
        return text
    for name, word in words.items():
        if text.lower().replace("_", "-") == word:
            return name
    raise Malformed(f"{path} must be one of {', '.join(words.values())} (got {text!r})")


def _scalar(field: FieldDescriptor, value: Any, path: str) -> Any:
    from shell.contract.methods import message_class

    assert field.containing_type is not None
    is_text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    plain = str(value) if is_text and isinstance(value, int | float) else value
    outer = message_class(field.containing_type)()
    try:
        tried = [plain] if field.is_repeated else plain
        json_format.ParseDict({field.name: tried}, outer)
    except json_format.ParseError:
        from shell.contract.fields import type_words

        wanted = type_words(field).removeprefix("list of ")
        raise Malformed(f"{path} must be a {wanted} (got {value!r})") from None
    return plain


def _given(message: Descriptor, plain: Mapping[str, Any], inside: str) -> Iterator[str]:
    for name, value in plain.items():
        field = message.fields_by_name[name]
        if is_whole(field):
            yield f"{inside}{name}"
        elif not value:
            continue
        else:
            assert field.message_type is not None
            yield from _given(field.message_type, value, f"{inside}{name}.")


def is_for_files(field: FieldDescriptor) -> bool:
    """Whether the field of a thing stands in a file: a user may set it, and it can be shown."""
    return not (_is_clusters(field) or behaves(field, "INPUT_ONLY"))


def as_plain(message: Any) -> dict[str, Any]:
    """A thing as a file has it: what a user may set and is set, enums as words."""
    shown = {one: plain_field(message, one) for one in message.DESCRIPTOR.fields}
    return {
        field.name: value
        for field, value in shown.items()
        if is_for_files(field) and value is not None
    }


def plain_field(message: Any, field: FieldDescriptor) -> Any:
    """A field's value as a file has it; None when it is unset."""
    value = getattr(message, field.name)
    if is_map(field):
        return dict(sorted(value.items())) or None
    if field.is_repeated:
        return [_plain_value(field, one) for one in value] or None
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.message_type is None and not value and not field.has_presence:
        return None
    return _plain_value(field, value) or (None if field.message_type else value)


def _plain_value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name if value else ""
        return enum_words(field.enum_type).get(name, "")
    if field.message_type is None:
        return value
    if field.message_type.full_name.startswith("google."):
        return json_format.MessageToDict(value)
    return as_plain(value)


def written(rows: Iterable[Any]) -> str:
    """Things as YAML, one after another, so that `documents` reads the same again."""
    return "---\n".join(yaml_text(as_plain(row)) for row in rows)

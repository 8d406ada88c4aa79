"""What differs between a thing as it is and as it is to be, field by field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shell.contract.fields import behaves, find, is_map, is_whole, rules
from shell.contract.manifest import Document, plain_field


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs."""

    path: str
    """As a field mask has it: "spec.cpu.vcpus"."""
    before: str
    after: str


def merged(current: Any, wanted: Any, given: Sequence[str]) -> Any:
    """The current thing with the given fields of the wanted one."""
    made = type(current)()
    made.CopyFrom(current)
    for path in given:
        take(wanted, made, path)
    return made


def completed(current: Any, document: Document) -> Any:
    """The current thing with what the document says. Of listed things with a name of their own
    (drives, interfaces) what the document does not say stays too."""
    made = merged(current, document.message, document.given)
    for path in document.given:
        field = find(made.DESCRIPTOR, path)
        key = rules(field).unique
        if field.is_repeated and not is_map(field) and field.message_type and key not in ("", "."):
            _complete_items(at(current, path), at(made, path), document.at(path), key)
    return made


def _complete_items(before: Any, after: Any, said: Sequence[Any], key: str) -> None:
    there = {getattr(one, key): one for one in before}
    for item, words in zip(after, said, strict=True):
        old = there.get(getattr(item, key))
        for field in item.DESCRIPTOR.fields if old is not None else ():
            if field.name not in words:
                take(old, item, field.name)


def at(message: Any, path: str) -> Any:
    """What a message has at a path."""
    for step in path.split("."):
        message = getattr(message, step)
    return message


def take(source: Any, target: Any, path: str) -> None:
    """Makes one field of the target what it is in the source; unset where it is unset there."""
    *outer, name = path.split(".")
    for step in outer:
        source, target = getattr(source, step), getattr(target, step)
    field = source.DESCRIPTOR.fields_by_name[name]
    target.ClearField(name)
    if field.is_repeated:
        getattr(target, name).MergeFrom(getattr(source, name))
    elif field.message_type is not None:
        if source.HasField(name):
            getattr(target, name).CopyFrom(getattr(source, name))
    elif not field.has_presence or source.HasField(name):
        setattr(target, name, getattr(source, name))


def differences(before: Any, after: Any, inside: str = "") -> Iterator[Difference]:
    """What differs among the fields that a user may set."""
    for field in before.DESCRIPTOR.fields:
        path = f"{inside}{field.name}"
        if behaves(field, "OUTPUT_ONLY") or path in ("name", "meta.etag"):
            continue
        old, new = getattr(before, field.name), getattr(after, field.name)
        if not is_whole(field):
            yield from differences(old, new, f"{path}.")
        elif old != new or _present(before, field) != _present(after, field):
            yield Difference(path, shown(before, field), shown(after, field))


def _present(message: Any, field: Any) -> bool:
    return not field.has_presence or message.HasField(field.name)


def shown(message: Any, field: Any) -> str:
    """A field's value in one line; of a secret only that it is there."""
    import json

    if rules(field).secret:
        return "(secret)" if getattr(message, field.name) else ""

    value = plain_field(message, field)
    return "" if value is None else value if isinstance(value, str) else json.dumps(
        value, ensure_ascii=False
    )  # fmt: skip

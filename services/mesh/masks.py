"""Field masks on resources: checked against the contract, applied to rows.

Pure. Rows are shared by all readers and never changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh.contract import field_named, inside, is_map, rules, secret_paths
from services.mesh.errors import nearest, refuse, shown

R = TypeVar("R", bound=Message)
Branch = dict[str, Any]
"""Field name → Branch of what is wanted inside it; an empty Branch wants all of it."""
Copy = Callable[[Any, Any], None]
"""Copies one field from the first message to the second."""


def cut(row: R, paths: Sequence[str]) -> R:
    """What may be shown of a row: the fields of the mask (all, when empty), and never a secret.

    The row itself when that is all of it. Raises INVALID_FIELD for a path that does not exist.
    """
    copy = _compiled(row.DESCRIPTOR, tuple(paths))
    if copy is None:
        return row
    other = type(row)()
    copy(row, other)
    return other


def take(source: Any, target: Any, path: str) -> None:
    """Makes one field of the target what it is in the source; unset where it is unset there."""
    *parents, name = path.split(".")
    for parent in parents:
        source, target = getattr(source, parent), getattr(target, parent)
    field = source.DESCRIPTOR.fields_by_name[name]
    target.ClearField(name)
    if field.is_repeated:
        getattr(target, name).MergeFrom(getattr(source, name))
    elif field.has_presence and not source.HasField(name):
        return
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(getattr(source, name))
    else:
        setattr(target, name, getattr(source, name))


def check_mask(kind: Descriptor, paths: Sequence[str], where: str) -> None:
    """Raises INVALID_FIELD at field `where` for a path that the kind does not have."""
    _branch(kind, tuple(paths), where)


@lru_cache(maxsize=512)
def _compiled(kind: Descriptor, paths: tuple[str, ...]) -> Copy | None:
    branch = {} if not paths or "*" in paths else _branch(kind, paths, "read_mask")
    secrets = secret_paths(kind)
    if not branch and not secrets:
        return None
    copy = _copier(kind, branch)
    if not secrets:
        return copy

    def without_secrets(row: Any, other: Any) -> None:
        copy(row, other)
        for path in secrets:
            _clear(other, path)

    return without_secrets


def _branch(kind: Descriptor, paths: Sequence[str], where: str) -> Branch:
    wanted = {_resolved(kind, path, where) for path in paths}
    root: Branch = {}
    for names in wanted:
        if not any(names[:length] in wanted for length in range(1, len(names))):
            branch = root
            for name in names:
                branch = branch.setdefault(name, {})
    return root


def _resolved(kind: Descriptor, path: str, where: str) -> tuple[str, ...]:
    """The path with its fields named as the contract names them."""
    message: Descriptor | None = kind
    names = []
    for name in path.split("."):
        field = None if message is None else field_named(message, name)
        if field is None or rules(field).secret:
            _unknown(message, path, name, where)
        names.append(field.name)
        message = None if is_map(field) else field.message_type
    return tuple(names)


def _unknown(message: Descriptor | None, path: str, name: str, where: str) -> NoReturn:
    known = [x.name for x in message.fields if not rules(x).secret] if message else []
    there = nearest(name, known) if known else "; it has no fields of its own"
    refuse(
        reason_pb2.REASON_INVALID_FIELD,
        f"{where} has an unknown path {shown(path)}: no field {shown(name)}{there}",
        where,
    )


def _copier(kind: Descriptor, branch: Branch) -> Copy:
    if not branch:
        return lambda row, other: other.CopyFrom(row)
    copies = [_field_copier(kind.fields_by_name[name], below) for name, below in branch.items()]

    def copy(row: Any, other: Any) -> None:
        for one in copies:
            one(row, other)

    return copy


def _field_copier(field: FieldDescriptor, below: Branch) -> Copy:
    name = field.name
    if is_map(field) or (field.is_repeated and not below):
        return lambda row, other: getattr(other, name).MergeFrom(getattr(row, name))
    if field.is_repeated:
        inner = _copier(inside(field), below)
        return lambda row, other: _copy_items(getattr(row, name), getattr(other, name), inner)
    if field.message_type is not None:
        inner = _copier(inside(field), below)
        return lambda row, other: _copy_message(row, other, name, inner)
    if field.has_presence:
        return lambda row, other: _copy_present(row, other, name)
    return lambda row, other: setattr(other, name, getattr(row, name))


def _copy_items(items: Any, others: Any, inner: Copy) -> None:
    for item in items:
        inner(item, others.add())


def _copy_message(row: Any, other: Any, name: str, inner: Copy) -> None:
    if row.HasField(name):
        getattr(other, name).SetInParent()
        inner(getattr(row, name), getattr(other, name))


def _copy_present(row: Any, other: Any, name: str) -> None:
    if row.HasField(name):
        setattr(other, name, getattr(row, name))


def _clear(message: Any, path: tuple[str, ...]) -> None:
    name, *rest = path
    if not rest:
        message.ClearField(name)
        return
    field = message.DESCRIPTOR.fields_by_name[name]
    inside = getattr(message, name)
    if is_map(field):
        for value in inside.values():
            _clear(value, tuple(rest[1:]))
    elif field.is_repeated:
        for item in inside:
            _clear(item, tuple(rest))
    elif message.HasField(name):
        _clear(inside, tuple(rest))

"""Hostile values, and all the places of a request where a string can stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.mesh.contract import is_list, is_map, output_only, rules

VALUES: dict[str, str] = {
    "xml": "</name><devices><emulator>/tmp/x</emulator></devices>&xxe;]]>",
    "shell": "$(touch /tmp/pvc-was-here); `id` | rm -rf / && -o x",
    "path": "../../../../etc/passwd",
    "nul": "web\0.example",
    "newline": "web\nrm: [x]\r\n\x1b[31m",
    "bidi": "web\u202egnp.exe\u2066",
    "huge": "a" * (1 << 20),
    "long": "a" * 300,
    "empty": "",
    "yaml": "{{ self }}: !!python/object/apply:os.system ['id']",
    "wrong kind": "nodes/n1",
    "wildcard": "pools/-",
}
"""What each is meant to break → the value."""


COMMON = ("request_id", "etag", "filter", "order_by", "page_token", "paths")
"""Fields that all requests share, with one piece of code behind them."""
COMMON_VALUES = ("xml", "nul", "huge")
BENIGN = {"id": "more", "network": "networks/default"}
"""What else must be given with a device that is added for the sake of one of its fields."""


@dataclass(frozen=True, slots=True)
class Place:
    """A string in a request. path: "vm.spec.disks[0].volume"."""

    path: str
    field: FieldDescriptor
    put: Callable[[Any, str], None]
    """Writes a value there, in a request of the same shape."""

    @property
    def values(self) -> dict[str, str]:
        """What is put there."""
        if self.field.name in COMMON:
            return {key: VALUES[key] for key in COMMON_VALUES}
        return VALUES

    @property
    def is_text(self) -> bool:
        """A text for people or for the guest: anything readable may stand there."""
        return bool(rules(self.field).text)


def places(request: Message) -> list[Place]:
    """Every place in a request that a string can be put into, given or not."""
    return list(_places(request.DESCRIPTOR, "", lambda message: message, ()))


def _places(
    kind: Any, path: str, reach: Callable[[Any], Any], above: tuple[str, ...]
) -> Iterator[Place]:
    for field in kind.fields:
        if output_only(field) or (field.name in ("decision", "status") and above):
            continue
        where = f"{path}{field.name}"
        if field.type == FieldDescriptor.TYPE_STRING:
            yield Place(where, field, _put_list(field, reach) if is_list(field) else
                        _put_one(field, reach))  # fmt: skip
        elif is_map(field):
            yield Place(f"{where}[key]", field, _put_key(field, reach))
            yield Place(where, field, _put_value(field, reach))
        elif field.message_type is not None and field.message_type.full_name not in above:
            inner = _first(field, reach) if is_list(field) else _inside(field, reach)
            suffix = "[0]." if is_list(field) else "."
            yield from _places(
                field.message_type, f"{where}{suffix}", inner, (*above, kind.full_name)
            )


def _put_one(field: Any, reach: Callable[[Any], Any]) -> Callable[[Any, str], None]:
    return lambda request, value: setattr(reach(request), field.name, value)


def _put_list(field: Any, reach: Callable[[Any], Any]) -> Callable[[Any, str], None]:
    return lambda request, value: getattr(reach(request), field.name).append(value)


def _put_key(field: Any, reach: Callable[[Any], Any]) -> Callable[[Any, str], None]:
    def put(request: Any, value: str) -> None:
        getattr(reach(request), field.name)[value] = "x"

    return put


def _put_value(field: Any, reach: Callable[[Any], Any]) -> Callable[[Any, str], None]:
    def put(request: Any, value: str) -> None:
        getattr(reach(request), field.name)["vda"] = value

    return put


def _inside(field: Any, reach: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda request: getattr(reach(request), field.name)


def _first(field: Any, reach: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def first(request: Any) -> Any:
        items = getattr(reach(request), field.name)
        if items:
            return items[0]
        new = items.add()
        for key, value in BENIGN.items():
            if key in new.DESCRIPTOR.fields_by_name:
                setattr(new, key, value)
        return new

    return first

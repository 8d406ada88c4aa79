"""HTTP to gRPC by google.api.http, the way grpc-gateway does it, from the descriptors alone: no
code for any single route. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from google.api import http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2

from pvc.core.v1 import reason_pb2
from services.gateway import templates
from services.gateway.json_form import (
    WELL_KNOWN,
    field_named,
    invalid,
    mask_of,
    read_json,
    to_message,
)
from services.gateway.methods import METHODS, Method
from services.mesh.errors import PvcError, shown

WHOLE = "*"
QUERY_FIELDS_MAX = 200
_KEYED = re.compile(r"([^\[\]]+)\[(.*)\]")
_DIGITS = re.compile(r"-?[0-9]{1,10}")
_BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}

HTTP_STATUS: Mapping[int, int] = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
}
"""google.rpc.Code → HTTP status, as grpc-gateway has it; anything else is 500."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way to call a method through HTTP."""

    verb: str
    """"GET", "POST"…"""
    template: templates.Template
    body: str
    """"" for none, WHOLE, or the field that the body is."""
    method: Method
    raw_body: str = ""
    """The bytes field that the body is as it comes, piece by piece; "" for a body of JSON."""
    raw_answer: str = ""
    """The bytes field that the answer's body is, one piece after the other; "" for JSON."""


@dataclass(frozen=True, slots=True)
class Match:
    """A route that fits a path, with what the path says."""

    route: Route
    fields: Mapping[str, str]


class Routes(tuple[Route, ...]):
    """Routes, the more specific first, and which of them a path can be for by its shape alone."""

    def __new__(cls, routes: Iterable[Route]) -> Routes:
        made = super().__new__(cls, sorted(routes, key=lambda route: route.template.rank))
        made._by_shape = defaultdict(list)
        made._open = [one for one in made if templates.REST in one.template.segments]
        for route in made:
            template = route.template
            if templates.REST not in template.segments:
                made._by_shape[template.verb, len(template.segments)].append(route)
        return made

    _by_shape: dict[tuple[str, int], list[Route]]
    _open: list[Route]

    def shaped(self, verb: str, segments: int) -> Sequence[Route]:
        """Those that a path of so many segments can be for, with that verb at its end."""
        fitting = self._by_shape.get((verb, segments), [])
        return [*fitting, *self._open] if self._open else fitting


def routes_of(methods: Iterable[Method]) -> Routes:
    """All routes of the methods, the more specific first. Internal methods have none."""
    found = [
        _route(rule, method)
        for method in methods
        if method.http is not None and not method.internal
        for rule in (method.http, *method.http.additional_bindings)
    ]
    return Routes(found)


def _route(rule: http_pb2.HttpRule, method: Method) -> Route:
    kind = rule.WhichOneof("pattern")
    assert kind is not None, f"{method.path} has an http rule without a path"
    if kind == "custom":
        verb, path = rule.custom.kind, rule.custom.path
    else:
        verb, path = kind.upper(), getattr(rule, kind)
    raw_body = rule.body if method.client_streaming and rule.body not in ("", WHOLE) else ""
    answer = rule.response_body
    return Route(verb, templates.parse(path), rule.body, method, raw_body, answer)


ROUTES = routes_of(METHODS.values())


def find(routes: Routes, path: str) -> Sequence[Match]:
    """The routes that fit a path (still encoded), whatever their verb. Raises INVALID_FIELD."""
    segments, verb = templates.split_path(path)
    found: list[Match] = []
    try:
        for route in routes.shaped(verb, len(segments)):
            fields = templates.match(route.template, segments, verb)
            if fields is not None:
                found.append(Match(route, fields))
    except ValueError:
        raise PvcError(reason_pb2.REASON_INVALID_FIELD, "the path is not UTF-8") from None
    return found


def build(match: Match, query: str, body: bytes) -> Message:
    """The request that an HTTP call stands for. Raises INVALID_FIELD naming the field."""
    route = match.route
    message: Any = route.method.request()
    posted = _body_of(route, body)
    tree = _query_of(match, message.DESCRIPTOR, query)
    to_message(tree, message)
    if route.body == WHOLE:
        to_message(posted, message)
    elif route.body:
        _fill_from_body(route, message, posted, masked="update_mask" in tree)
    _fill_from_path(match, message)
    return message  # type: ignore[no-any-return]


def opening(match: Match, query: str) -> Message | None:
    """The first request of a stream of them, as far as path and query have one; its body has the
    others. Raises INVALID_FIELD."""
    message: Any = match.route.method.request()
    to_message(query_tree(message.DESCRIPTOR, query, _bound(match)), message)
    _fill_from_path(match, message)
    return message if query or match.fields else None


def following(route: Route, text: bytes) -> Message:
    """A request of a stream of them, from its JSON. Raises INVALID_FIELD."""
    return to_message(read_json(text), route.method.request())


def _bound(match: Match) -> set[str]:
    """Fields that the query may not give."""
    return {*match.fields, *([match.route.body] if match.route.body not in ("", WHOLE) else ())}


def _query_of(match: Match, descriptor: Descriptor, query: str) -> dict[str, Any]:
    if match.route.body != WHOLE:
        return query_tree(descriptor, query, _bound(match))
    if query:
        problem = f"is not taken from the query: {match.route.verb} takes it from the body"
        raise invalid(query.partition("=")[0], problem)
    return {}


def _body_of(route: Route, body: bytes) -> Any:
    if not route.body:
        if body.strip():
            raise invalid("", f"must be empty: {route.verb} takes its fields from path and query")
        return None
    return read_json(body) if body.strip() else {}


def _fill_from_body(route: Route, message: Any, posted: Any, *, masked: bool) -> None:
    """masked: the query says what the body is to change; otherwise a PATCH changes what is in
    it."""
    field = message.DESCRIPTOR.fields_by_name[route.body]
    to_message({field.name: posted}, message)
    takes_mask = "update_mask" in message.DESCRIPTOR.fields_by_name
    if route.verb == "PATCH" and takes_mask and not masked and isinstance(posted, dict):
        message.update_mask.paths.extend(_patched(posted, field.message_type))


def _patched(posted: Mapping[str, Any], descriptor: Descriptor) -> list[str]:
    """What a PATCH without a mask of its own changes: the fields in its body, but for those that
    only say which resource and which version of it is meant."""
    return [path for path in mask_of(posted, descriptor) if path != "name" and path != "meta.etag"]


def _fill_from_path(match: Match, message: Any) -> None:
    """What the path says goes before what anything else says."""
    for path, value in match.fields.items():
        inner: Any = message
        *outer, name = path.split(".")
        for step in outer:
            inner = getattr(inner, step)
        field = inner.DESCRIPTOR.fields_by_name[name]
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(inner, name, value)
            continue
        inner.ClearField(name)
        to_message({name: _leaf(field, path, value)}, inner, ".".join(outer))


def query_tree(descriptor: Descriptor, query: str, bound: set[str]) -> dict[str, Any]:
    """The JSON object that a query string stands for: "a.b=1&c=x&c=y" → {"a": {"b": 1}, …}.

    bound: fields that the path or the body already gives, refused here. A mask of the query
    replaces the one made from a PATCH body. Raises INVALID_FIELD.
    """
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError as error:
        problem = f"the query cannot be read: {error}"
        raise PvcError(reason_pb2.REASON_INVALID_FIELD, problem) from None
    tree: dict[str, Any] = {}
    for key, value in pairs:
        _add(tree, descriptor, key, value, bound)
    return tree


def _add(
    tree: dict[str, Any], descriptor: Descriptor, key: str, value: str, bound: set[str]
) -> None:
    keyed = _KEYED.fullmatch(key)
    *outer, last = (keyed.group(1) if keyed else key).split(".")
    path = ""
    for step in outer:
        field = field_named(descriptor, step, path)
        path = f"{path}.{field.name}" if path else field.name
        inner = field.message_type
        if inner is None or field.is_repeated:
            raise invalid(path, "has no fields inside that a query could set")
        if inner.full_name.startswith(WELL_KNOWN):
            raise invalid(path, f"is one value, not an object: write {field.json_name}=VALUE")
        descriptor = inner
        tree = tree.setdefault(field.name, {})
    field = field_named(descriptor, last, path)
    path = f"{path}.{field.name}" if path else field.name
    if path in bound or path.split(".")[0] in bound:
        raise invalid(path, "is given by the path or the body, not by the query")
    _put(tree, field, path, value, keyed.group(2) if keyed else None)


def _put(
    tree: dict[str, Any], field: FieldDescriptor, path: str, value: str, key: str | None
) -> None:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        if key is None:
            raise invalid(path, f"is a map: write {field.json_name}[KEY]=VALUE")
        entries = tree.setdefault(field.name, {})
        if key in entries:
            raise invalid(f"{path}[{key}]", "is given twice")
        entries[key] = _leaf(inner.fields_by_name["value"], path, value)
        return
    if key is not None:
        raise invalid(path, "is no map")
    leaf = _leaf(field, path, value)
    if field.is_repeated:
        tree.setdefault(field.name, []).append(leaf)
    elif field.name in tree:
        raise invalid(path, "is given twice")
    else:
        tree[field.name] = leaf


def _leaf(field: FieldDescriptor, path: str, value: str) -> Any:
    """One value of a query or a path as JSON has it."""
    inner = field.message_type
    if field.type == FieldDescriptor.TYPE_BOOL or _is_known(inner, "BoolValue"):
        if value not in _BOOLEANS:
            raise invalid(path, f"must be true or false, not {shown(value)}")
        return _BOOLEANS[value]
    if field.enum_type is not None and _DIGITS.fullmatch(value):
        return _enum_number(field, path, int(value))
    if inner is None:
        return value
    if not inner.full_name.startswith(WELL_KNOWN):
        raise invalid(path, f"is an object: write {field.json_name}.FIELD=VALUE")
    if _is_known(inner, "Struct", "Value", "ListValue"):
        return read_json(value.encode(), path)
    return value


def _enum_number(field: FieldDescriptor, path: str, number: int) -> int:
    assert field.enum_type is not None
    if number not in field.enum_type.values_by_number:
        raise invalid(path, f"is no {field.enum_type.name}: {number}")
    return number


def _is_known(descriptor: Descriptor | None, *names: str) -> bool:
    return descriptor is not None and descriptor.full_name in {WELL_KNOWN + n for n in names}

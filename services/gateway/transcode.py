"""HTTP to gRPC by google.api.http, the way grpc-gateway does it, from the descriptors alone: no
code for any single route. Pure.
"""

from __future__ import annotations

import re
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
from services.mesh.errors import PvcError

WHOLE = "*"
QUERY_FIELDS_MAX = 200
_KEYED = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")

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


@dataclass(frozen=True, slots=True)
class Match:
    """A route that fits a path, with what the path says."""

    route: Route
    fields: Mapping[str, str]


def routes_of(methods: Iterable[Method]) -> tuple[Route, ...]:
    """All routes of the methods, the more specific first. Internal methods have none."""
    found = [
        _route(rule, method)
        for method in methods
        if method.http is not None and not method.internal
        for rule in (method.http, *method.http.additional_bindings)
    ]
    return tuple(sorted(found, key=lambda route: route.template.rank))


def _route(rule: http_pb2.HttpRule, method: Method) -> Route:
    kind = rule.WhichOneof("pattern")
    assert kind is not None, f"{method.path} has an http rule without a path"
    if kind == "custom":
        verb, path = rule.custom.kind, rule.custom.path
    else:
        verb, path = kind.upper(), getattr(rule, kind)
    return Route(verb, templates.parse(path), rule.body, method)


ROUTES = routes_of(METHODS.values())


def find(routes: Sequence[Route], path: str) -> Sequence[Match]:
    """The routes that fit a path (still encoded), whatever their verb. Raises INVALID_FIELD."""
    segments, verb = templates.split_path(path)
    found: list[Match] = []
    try:
        for route in routes:
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
    bound = {*match.fields, *([route.body] if route.body else ())}
    tree = query_tree(message.DESCRIPTOR, query, bound) if route.body != WHOLE else {}
    to_message(tree, message)
    if route.body == WHOLE:
        to_message(posted, message)
    elif route.body:
        _fill_from_body(route, message, posted, masked="update_mask" in tree)
    for path, value in match.fields.items():
        _set_path_field(message, path, value)
    return message  # type: ignore[no-any-return]


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


def _set_path_field(message: Any, path: str, value: str) -> None:
    *outer, name = path.split(".")
    for step in outer:
        message = getattr(message, step)
    setattr(message, name, value)


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
    *outer, last = key.split(".")
    path = ""
    for step in outer:
        field = field_named(descriptor, step, path)
        path = f"{path}.{field.name}" if path else field.name
        if field.message_type is None or field.is_repeated:
            raise invalid(path, "has no fields inside that a query could set")
        descriptor = field.message_type
        tree = tree.setdefault(field.name, {})
    keyed = _KEYED.fullmatch(last)
    field = field_named(descriptor, keyed.group(1) if keyed else last, path)
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
        tree.setdefault(field.name, {})[key] = _leaf(inner.fields_by_name["value"], path, value)
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
    """One value of a query as JSON has it."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        if value.lower() not in ("true", "false", "1", "0"):
            raise invalid(path, f"must be true or false, not {value!r}")
        return value.lower() in ("true", "1")
    inner = field.message_type
    if inner is not None and not inner.full_name.startswith(WELL_KNOWN):
        raise invalid(path, f"is an object: write {field.json_name}.FIELD=VALUE")
    if inner is not None and inner.full_name == "google.protobuf.BoolValue":
        return value.lower() in ("true", "1")
    return value

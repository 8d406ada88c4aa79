"""Completes an OpenAPI 2.0 file that was generated from the contracts with what their own options
say: rules of fields, roles, headers, errors, streams. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor

from pvc.core.v1 import options_pb2
from tools.openapi_rules import apply_rules, is_told

STATUS = {"$ref": "#/definitions/google.rpc.Status"}
LINES, EVENTS, BYTES = "application/x-ndjson", "text/event-stream", "application/octet-stream"
INFORMATION = {
    "title": "PVC",
    "version": "v1",
    "description": "Virtual machines, volumes, networks, images and the cluster that runs them. "
    "Send `authorization: Bearer SECRET` with every call; `pvc token create` makes one. Long work "
    "answers with an operation: wait for it with `POST /v1/operations/{operation}:wait`. Names of "
    "fields may be written as here or as the contracts have them (`memory_mib`). What a message "
    "does not have is refused, with the nearest name that it has.",
}
SECURITY = {
    "bearer": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "`Bearer SECRET`, the secret of a token.",
    }
}
ERRORS: Mapping[str, str] = {
    "400": "The call is not what it should be: the message says what, why and what to do, the "
    "details name the reason and the field at fault.",
    "401": "No token, or none that is good.",
    "403": "The token's role is not enough.",
    "404": "The resource does not exist.",
    "409": "It exists already, was changed since it was read, or something else is changing it.",
    "412": "The resource is not the version that if-match asked for.",
    "413": "The body, or a line of it, is larger than 4 MiB.",
    "415": "The body is of a type that is not taken here.",
    "429": "Too many calls, or no room: retry-after says when to come again.",
    "503": "The service or node that must answer cannot be reached; safe to try again.",
    "504": "No answer came in the time that the call had.",
}
HEADERS: Mapping[str, str] = {
    "if-match": 'The version to change, as the etag header has it: "7". Otherwise 412.',
    "if-none-match": "The version that the caller has already: then 304 without a body.",
    "idempotency-key": "The request's id: repeated with the same one, it is done once.",
    "last-event-id": "Where to go on, the id of the last event: before fromRevision.",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One way to call a method."""

    method: Any
    verb: str
    body: str
    raw_answer: bool

    @property
    def raw_body(self) -> bool:
        """Whether the body is the bytes themselves."""
        return bool(self.method.client_streaming and self.body not in ("", "*"))

    def has(self, field: str) -> bool:
        """Whether its requests have a field."""
        return field in self.method.input_type.fields_by_name

    @property
    def has_etag(self) -> bool:
        """Whether its requests can say which version they mean."""
        if self.has("etag"):
            return True
        named = self.method.input_type.fields_by_name.get(self.body)
        return named is not None and _is_resource(named.message_type)


def completed(document: dict[str, Any], services: Sequence[Any]) -> dict[str, Any]:
    """The document with all that the contracts say."""
    document["info"] = INFORMATION
    document["securityDefinitions"], document["security"] = SECURITY, [{"bearer": []}]
    document["responses"] = {
        status: {"description": words, "schema": STATUS} for status, words in ERRORS.items()
    }
    _merge_same_paths(document["paths"])
    calls = {name: call for service in services for name, call in _calls(service)}
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            _complete_operation(operation, calls[operation["operationId"]], path, verb)
    tags = {
        tag for verbs in document["paths"].values() for o in verbs.values() for tag in o["tags"]
    }
    document["tags"] = [tag for tag in document["tags"] if tag["name"] in tags]
    for name, message in _messages(services).items():
        if (schema := document["definitions"].get(name)) is not None:
            _complete_schema(schema, message)
    return document


def _calls(service: Any) -> Iterator[tuple[str, Call]]:
    """Operation id → how it is called."""
    for method in service.methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        for number, one in enumerate((rule, *rule.additional_bindings), 1):
            name = f"{service.name}_{method.name}{number if number > 1 else ''}"
            verb = str(one.WhichOneof("pattern"))
            yield name, Call(method, verb, one.body, bool(one.response_body))


def _merge_same_paths(paths: dict[str, Any]) -> None:
    """Paths that differ in the names of their parameters alone are one path."""
    same: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        same[re.sub(r"\{[^}]+\}", "{}", path)].append(path)
    for first, *others in same.values():
        for other in others:
            names = dict(zip(_parameters(other), _parameters(first), strict=True))
            for verb, operation in paths.pop(other).items():
                for parameter in operation["parameters"]:
                    if parameter["in"] == "path":
                        parameter["name"] = names[parameter["name"]]
                paths[first][verb] = operation


def _parameters(path: str) -> list[str]:
    return re.findall(r"\{([^}]+)\}", path)


def _complete_operation(operation: dict[str, Any], call: Call, path: str, verb: str) -> None:
    access = call.method.GetOptions().Extensions[options_pb2.access]
    role = options_pb2.Role.Name(access.role).removeprefix("ROLE_").lower()
    operation["x-pvc-role"] = "nobody: the request carries a secret" if access.by_secret else role
    if access.by_secret:
        operation["security"] = []
    for parameter in operation.setdefault("parameters", []):
        _complete_parameter(parameter, call)
    operation["parameters"] += [
        {"name": name, "in": "header", "required": False, "type": "string", "description": words}
        for name, words in HEADERS.items()
        if _takes_header(name, call)
    ]
    operation["responses"] |= {
        status: {"$ref": f"#/responses/{status}"} for status in _errors(call, path)
    }
    operation["responses"]["default"]["description"] = "Any other failure, in the same shape."
    _complete_stream(operation, call)


def _takes_header(name: str, call: Call) -> bool:
    match name:
        case "if-match":
            return call.has_etag
        case "if-none-match":
            return call.verb == "get" and _is_resource(call.method.output_type)
        case "idempotency-key":
            return call.has("request_id")
    return call.has("from_revision")


def _is_resource(message: Any) -> bool:
    return message is not None and "meta" in message.fields_by_name


def _errors(call: Call, path: str) -> Iterator[str]:
    yield from ("400", "401", "403", "429", "503", "504")
    if "{" in path:
        yield "404"
    if call.verb != "get":
        yield "409"
    if call.has_etag:
        yield "412"
    if call.body:
        yield from ("413", "415")


def _complete_stream(operation: dict[str, Any], call: Call) -> None:
    """How a stream comes in and goes out."""
    answer = operation["responses"]["200"]
    answer["description"] = "Done."
    if call.raw_answer:
        operation["produces"] = [BYTES]
        operation["responses"]["200"] = {"description": "The bytes.", "schema": {"type": "file"}}
    elif call.method.server_streaming:
        operation["produces"] = ["application/json", LINES, EVENTS]
        answer["description"] = "One object a line, or events when `accept` asks for them."
    if call.raw_body:
        operation["consumes"] = [BYTES]
    elif call.method.client_streaming:
        operation["consumes"] = [LINES]
    streams = call.method.client_streaming or call.method.server_streaming
    if streams and not call.raw_body and not call.raw_answer:
        operation["x-pvc-websocket"] = True


def _complete_parameter(parameter: dict[str, Any], call: Call) -> None:
    message = call.method.input_type
    if parameter["in"] == "body":
        if call.raw_body:
            parameter["schema"] = {"type": "string", "format": "binary"}
        field = message.fields_by_name.get(call.body)
        inner = field.message_type if field is not None else message
        if inner is not None and "properties" in parameter["schema"]:
            _complete_schema(parameter["schema"], inner)
        return
    field = _field_at(message, parameter["name"])
    if parameter["in"] == "path":
        parameter["pattern"] = "^[^/]+$"
        parameter.setdefault("description", f"The id of the {parameter['name']}.")
    elif field is not None:
        apply_rules(parameter, field)


def _field_at(message: Any, path: str) -> FieldDescriptor | None:
    """The field that a query parameter sets: "vm.spec.memory"."""
    *outer, last = path.split(".")
    for step in outer:
        field = _by_json_name(message).get(step)
        if field is None or field.message_type is None:
            return None
        message = field.message_type
    return _by_json_name(message).get(last)


def _by_json_name(message: Any) -> Mapping[str, FieldDescriptor]:
    return {field.json_name: field for field in message.fields}


def _complete_schema(schema: dict[str, Any], message: Any) -> None:
    fields = _by_json_name(message)
    for name, shown in schema.get("properties", {}).items():
        if name in fields:
            apply_rules(shown, fields[name])


def _messages(services: Sequence[Any]) -> Mapping[str, Any]:
    """Every message that callers write: those of the requests, and all that is inside them."""
    seen: dict[str, Any] = {}
    waiting = [method.input_type for service in services for method in service.methods]
    while waiting:
        message = waiting.pop()
        if message.full_name.startswith("pvc.") and message.full_name not in seen:
            seen[message.full_name] = message
            waiting += [f.message_type for f in message.fields if f.message_type and not is_told(f)]
    return seen

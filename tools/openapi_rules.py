"""The rules of a field, as JSON schema has them where it can and in words for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor

from pvc.core.v1 import options_pb2

STRING_MAX = 256
LIST_MAX = 256
"""What holds where a rule says nothing else; see Rules in the contracts."""
_NUMBERS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32)
_FORMS = {
    options_pb2.Rules.FORM_IPV4: "an IPv4 address",
    options_pb2.Rules.FORM_IPV4_NETWORK: "an IPv4 network like 10.0.0.0/24",
    options_pb2.Rules.FORM_MAC: "a MAC address like 52:54:00:12:34:56",
    options_pb2.Rules.FORM_DOMAIN: "a domain name",
}


def apply_rules(schema: dict[str, Any], field: FieldDescriptor) -> None:
    """Puts the rules of a field into the schema of its property or parameter."""
    rules = field.GetOptions().Extensions[options_pb2.rules]
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    required = field_behavior_pb2.REQUIRED in behaviors
    said = "; ".join(words(rules, field))
    if said:
        schema["x-pvc-rules"] = said
    if "$ref" in schema or is_told(field):
        return
    one = schema.get("items", schema) if field.is_repeated else schema
    if field.type == FieldDescriptor.TYPE_STRING:
        _apply_to_string(one, rules, required)
    elif field.type in _NUMBERS:
        _apply_to_number(one, rules, required or field.has_presence)
    if field.is_repeated and schema.get("type") == "array":
        schema["maxItems"] = rules.max_items or LIST_MAX
        if rules.min_items:
            schema["minItems"] = rules.min_items


def is_told(field: FieldDescriptor) -> bool:
    """Whether the cluster alone writes it."""
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.OUTPUT_ONLY in behaviors


def _apply_to_string(schema: dict[str, Any], rules: Any, required: bool) -> None:
    schema["maxLength"] = rules.max_len or STRING_MAX
    if rules.min_len and required:
        schema["minLength"] = rules.min_len
    if rules.pattern:
        schema["pattern"] = f"^(?:{rules.pattern})$" if required else f"^(?:{rules.pattern})?$"


def _apply_to_number(schema: dict[str, Any], rules: Any, strict: bool) -> None:
    """Zero is what a field is that was not given."""
    if rules.HasField("min"):
        schema["minimum"] = rules.min if strict else min(rules.min, 0)
    if rules.HasField("max"):
        schema["maximum"] = rules.max
    if rules.multiple_of:
        schema["multipleOf"] = rules.multiple_of


def words(rules: Any, field: FieldDescriptor) -> Iterator[str]:
    """The rules in words."""
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    if field_behavior_pb2.REQUIRED in behaviors:
        yield "required"
    if field_behavior_pb2.OUTPUT_ONLY in behaviors:
        yield "written by the cluster alone"
    if field_behavior_pb2.IMMUTABLE in behaviors:
        yield "given at creation only"
    if rules.pattern_text:
        yield rules.pattern_text
    if rules.form:
        yield _FORMS[rules.form]
    yield from _sizes(rules, field)
    if rules.resource:
        yield "the name of a resource: " + _resource(rules.resource)
    if rules.unique:
        yield "no two alike" + ("" if rules.unique == "*" else f" in {rules.unique}")
    if rules.secret:
        yield "secret: in no log and no answer"


def _sizes(rules: Any, field: FieldDescriptor) -> Iterator[str]:
    match rules.HasField("min"), rules.HasField("max"):
        case True, True:
            yield f"{rules.min} to {rules.max}"
        case True, False:
            yield f"at least {rules.min}"
        case False, True:
            yield f"at most {rules.max}"
    if rules.multiple_of:
        yield f"a multiple of {rules.multiple_of}"
    unit = "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "characters"
    if rules.min_len:
        yield f"at least {rules.min_len} {unit}"
    if rules.max_len:
        yield f"at most {rules.max_len} {unit}"
    if rules.min_items:
        yield f"at least {rules.min_items} items"
    if rules.max_items:
        yield f"at most {rules.max_items} items"


def _resource(collections: str) -> str:
    """ "pools/volumes" → "pools/{pool}/volumes/{volume}"."""
    parts = collections.split("/")
    return "/".join(f"{part}/{{{part.removesuffix('s')}}}" for part in parts)

"""What the contract says about single fields: where they are, what they may hold, who writes them.

Pure. The service checks everything; here only what can be told from one value alone, so that a
person hears of it before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from pvc.core.v1 import options_pb2

STRING_MAX = 256
Told = Callable[[Any], str]
INDEX = re.compile(r"\[[^\]]*\]")
KINDS = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
}
TIMES = {"google.protobuf.Timestamp": "time", "google.protobuf.Duration": "length of time"}


def rules(field: FieldDescriptor) -> options_pb2.Rules:
    """The field's rules; empty ones when it has none."""
    return field.GetOptions().Extensions[options_pb2.rules]


def behaves(field: FieldDescriptor, behaviour: str) -> bool:
    """Whether the field is "REQUIRED", "OUTPUT_ONLY", "IMMUTABLE" or "INPUT_ONLY"."""
    number = field_behavior_pb2.FieldBehavior.Value(behaviour)
    return number in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_map(field: FieldDescriptor) -> bool:
    """A map, which descriptors show as a list of entries."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_whole(field: FieldDescriptor) -> bool:
    """The field is changed as a whole: all but single messages of the contract's own."""
    message = field.message_type
    return message is None or field.is_repeated or message.full_name.startswith("google.")


def named(message: Descriptor, name: str) -> FieldDescriptor | None:
    """The field of that name, as the contract or as JSON spells it."""
    return message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)


def nearest(name: str, known: list[str]) -> str:
    """ "; did you mean 'spec'?", or what there is when nothing is near."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def find(message: Descriptor, path: str) -> FieldDescriptor:
    """The field at a path, lists and maps gone through. Raises LookupError, with what is near."""
    field = None
    for step in INDEX.sub("", path).split("."):
        inner = message if field is None else field.message_type
        if inner is None:
            raise LookupError(f"{field.name if field else ''} holds no fields")
        field = named(inner, step)
        if field is None:
            known = [one.name for one in inner.fields]
            raise LookupError(f"{inner.name} has no field {step!r}{nearest(step, known)}")
    assert field is not None
    return field


def leaves(message: Descriptor, inside: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field that a user may set, with its path; the fields of listed messages too."""
    for field in message.fields:
        path = f"{inside}{field.name}"
        if behaves(field, "OUTPUT_ONLY") or (inside and field.name == "name"):
            continue
        inner = field.message_type
        if inner is None or is_map(field) or inner.full_name.startswith("google."):
            yield path, field
        elif inner.full_name not in path:
            yield from leaves(inner, f"{path}.")


def fault(field: FieldDescriptor, value: Any, told: Told = str, *, zero: bool = True) -> str:
    """What a single value must be when it is not: "be between 1 and 512"; "" when it is. told: how
    numbers are written. zero: it stands for the default, where there is one."""
    rule = rules(field)
    match value:
        case bool():
            return ""
        case 0 if zero and not (behaves(field, "REQUIRED") or field.has_presence):
            return ""  # unset: the default
        case int() | float():
            return _number_fault(rule, value, told)
        case str() if value:
            return _text_fault(rule, value)
    return ""


def _number_fault(rule: options_pb2.Rules, value: float, told: Told) -> str:
    low = rule.min if rule.HasField("min") else None
    high = rule.max if rule.HasField("max") else None
    if (low is not None and value < low) or (high is not None and value > high):
        return f"be {range_words(low, high, told)}"
    if rule.multiple_of and value % rule.multiple_of:
        return f"be a multiple of {told(rule.multiple_of)}"
    return ""


def _text_fault(rule: options_pb2.Rules, value: str) -> str:
    most = rule.max_len or (0 if rule.resource else STRING_MAX)
    if most and len(value) > most:
        return f"be at most {most} characters long"
    if rule.pattern and not re.fullmatch(rule.pattern, value):
        return f"be {rule.pattern_text or rule.pattern}"
    return ""


def range_words(low: int | None, high: int | None, told: Told = str) -> str:
    """ "between 1 and 512", "at least 1", "at most 9"; "" for any."""
    if low is None:
        return "" if high is None else f"at most {told(high)}"
    return f"at least {told(low)}" if high is None else f"between {told(low)} and {told(high)}"


def type_words(field: FieldDescriptor) -> str:
    """What the field holds: "text", "number", "list of DiskSpec", "one of live, shutdown"."""
    if is_map(field):
        return "texts by their keys" if field.message_type else ""
    word = _one_word(field)
    return f"list of {word}" if field.is_repeated else word


def _one_word(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return TIMES.get(field.message_type.full_name, field.message_type.name)
    if field.enum_type is not None:
        return f"one of {', '.join(enum_words(field.enum_type).values())}"
    return KINDS.get(field.cpp_type, "whole number")


def enum_words(kind: EnumDescriptor) -> dict[str, str]:
    """Name in the contract → the word for it: FIRMWARE_UEFI → "uefi"; without the unset one."""
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {
        one.name: one.name.removeprefix(prefix).lower().replace("_", "-")
        for one in kind.values
        if one.number
    }


def rule_words(field: FieldDescriptor) -> list[str]:
    """The field's rules, a sentence each."""
    rule, told = rules(field), []
    low = rule.min if rule.HasField("min") else None
    high = rule.max if rule.HasField("max") else None
    if words := range_words(low, high):
        told.append(words)
    if rule.multiple_of:
        told.append(f"a multiple of {rule.multiple_of}")
    if rule.pattern:
        told.append(rule.pattern_text or rule.pattern)
    if rule.max_len:
        told.append(f"at most {rule.max_len} characters")
    if rule.resource:
        told.append(f"the name of a resource: {name_form(rule.resource)}")
    if rule.form:
        form = options_pb2.Rules.Form.Name(rule.form).removeprefix("FORM_").lower()
        told.append(FORMS.get(form, form))
    told += _list_words(rule)
    return told


FORMS = {
    "ipv4": "an IPv4 address: 10.0.0.1",
    "ipv4_network": "an IPv4 network without host bits: 10.0.0.0/24",
    "mac": "a hardware address in lower case: 52:54:00:12:34:56",
    "domain": "a domain name in lower case: example.org",
}


def _list_words(rule: options_pb2.Rules) -> list[str]:
    told = []
    if rule.max_items:
        told.append(f"at most {rule.max_items} of them")
    if rule.unique:
        told.append("none twice" if rule.unique == "." else f"each with another {rule.unique}")
    return told


def name_form(path: str) -> str:
    """What names in a collection look like: "pools/{pool}/volumes/{volume}"."""
    return "/".join(f"{one}/{{{one.removesuffix('s')}}}" for one in path.split("/"))


def writer_words(field: FieldDescriptor) -> str:
    """Who may write the field, and when."""
    if behaves(field, "OUTPUT_ONLY"):
        return "written by the cluster"
    if behaves(field, "IMMUTABLE"):
        return "given at creation only"
    if behaves(field, "REQUIRED"):
        return "must be given"
    return "never shown again" if behaves(field, "INPUT_ONLY") else ""

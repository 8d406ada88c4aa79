"""The rules on single values: texts, numbers, enums, names of resources, addresses.

Pure. A Check returns in words what a value must be when it is not, and "" when it is.
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from pvc.core.v1 import options_pb2
from services.mesh.contract import rules
from services.mesh.filters import enum_prefix

Check: TypeAlias = Callable[[Any], str]
"""What the value must be, "" when it is that."""

STRING_MAX = 256
RESOURCE_NAME_MAX = 512
_ID = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def checks_of(field: FieldDescriptor, wildcards: bool = False) -> tuple[Check, ...]:
    """The checks on a field's value, or on each item of a list, in the order to be made.

    wildcards: as the name of a parent, "pools/-" will do.
    """
    rule = rules(field)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return (_length(rule, 0, "bytes"),)
        return string_checks(rule, wildcards)
    if field.enum_type is not None:
        return (_enum(field.enum_type),)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_BOOL):
        return ()
    return (_number(rule),)


def key_check(key: str) -> str:
    """The check on the keys of all maps with texts as keys."""
    return "have no empty key" if not key else _PLAIN_LENGTH(key) or _plain(key)


def string_checks(rule: options_pb2.Rules, wildcards: bool = False) -> tuple[Check, ...]:
    """The checks on a text, in the order to be made."""
    default = RESOURCE_NAME_MAX if rule.resource else STRING_MAX
    checks = [_length(rule, default, "characters"), _text if rule.text else _plain]
    if rule.pattern:
        checks.append(_pattern(rule))
    if rule.form:
        checks.append(_FORMS[rule.form])
    if rule.resource:
        checks.append(resource_check(rule.resource, wildcards))
    return tuple(checks)


def _length(rule: options_pb2.Rules, default: int, unit: str) -> Check:
    least, most = rule.min_len, rule.max_len or default

    def check(value: Any) -> str:
        if len(value) < least:
            return f"be at least {least} {unit} long"
        return f"be at most {most} {unit} long" if most and len(value) > most else ""

    return check


def _plain(value: str) -> str:
    if value.isascii():
        return "" if value.isprintable() else "hold no control characters"
    if any(unicodedata.category(character) in _HIDDEN for character in value):
        return "hold no control, format or unassigned characters"
    if not unicodedata.is_normalized("NFC", value):
        return "be written with composed characters (Unicode form NFC)"
    return ""


def _text(value: str) -> str:
    return "hold no control characters but tabs and line ends" if _CONTROL.search(value) else ""


def _pattern(rule: options_pb2.Rules) -> Check:
    fits = re.compile(rule.pattern).fullmatch
    words = f"be {rule.pattern_text}" if rule.pattern_text else f"match {rule.pattern}"
    return lambda value: "" if fits(value) else words


def _number(rule: options_pb2.Rules) -> Check:
    low = rule.min if rule.HasField("min") else None
    high = rule.max if rule.HasField("max") else None
    words = _range_words(low, high)

    def check(value: Any) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            return "be a number"
        if (low is not None and value < low) or (high is not None and value > high):
            return words
        if rule.multiple_of and value % rule.multiple_of:
            return f"be a multiple of {rule.multiple_of}"
        return ""

    return check


def _range_words(low: int | None, high: int | None) -> str:
    if low is None:
        return f"be at most {high}"
    return f"be at least {low}" if high is None else f"be between {low} and {high}"


def _enum(kind: EnumDescriptor) -> Check:
    prefix = enum_prefix(kind)
    known = ", ".join(value.name.removeprefix(prefix) for value in kind.values if value.number)
    return lambda value: "" if value in kind.values_by_number else f"be one of {known}"


@cache
def resource_check(path: str, wildcards: bool = False) -> Check:
    """The check on names of resources of a collection path, such as "pools/volumes"."""
    one = f"(?:{_ID}|-)" if wildcards else _ID
    collections = path.split("/")
    fits = re.compile("/".join(f"{re.escape(x)}/{one}" for x in collections)).fullmatch
    form = "/".join(f"{x}/{{{x.removesuffix('s')}}}" for x in collections)
    words = f"be the name of a resource, {form}" + (", or - for any" if wildcards else "")
    return lambda value: "" if fits(value) else words


def _ipv4(value: str) -> str:
    try:
        fits = str(ipaddress.IPv4Address(value)) == value
    except ValueError:
        fits = False
    return "" if fits else "be an IPv4 address such as 10.0.0.1"


def _ipv4_network(value: str) -> str:
    try:
        fits = str(ipaddress.IPv4Network(value)) == value
    except ValueError:
        fits = False
    return "" if fits else "be an IPv4 network without host bits such as 10.0.0.0/24"


def _mac(value: str) -> str:
    fits = _MAC.fullmatch(value) and not int(value[:2], 16) & 1 and value.strip("0:")
    return "" if fits else "be a unicast MAC address in lower case such as 52:54:00:12:34:56"


def _domain(value: str) -> str:
    fits = _DOMAIN.fullmatch(value) and len(value) <= 253
    return "" if fits else "be a domain name in lower case such as example.org"


_FORMS: dict[int, Check] = {
    options_pb2.Rules.FORM_IPV4: _ipv4,
    options_pb2.Rules.FORM_IPV4_NETWORK: _ipv4_network,
    options_pb2.Rules.FORM_MAC: _mac,
    options_pb2.Rules.FORM_DOMAIN: _domain,
}
_PLAIN_LENGTH = _length(options_pb2.Rules(), STRING_MAX, "characters")

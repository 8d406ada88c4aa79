"""The words that rules of the packet filter are made of, as libnftables JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from services.network.core.naming import digest_of

Json = Mapping[str, object]

TABLE = "pvc"
ACCEPT: Json = {"accept": None}
DROP: Json = {"drop": None}
REJECT: Json = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
MASQUERADE: Json = {"masquerade": None}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. All rules of an earlier stage stand before those of a later one, whatever the zone:
    one network's permission to go anywhere must not pass another one's refusal."""

    chain: str
    stage: int
    why: str
    expr: tuple[Json, ...]


def match(left: Json, right: object, op: str = "==") -> Json:
    """A comparison."""
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> Json:
    """Something of a packet that is not in it: "iifname"."""
    return {"meta": {"key": key}}


def field(protocol: str, name: str) -> Json:
    """A field of a packet's header."""
    return {"payload": {"protocol": protocol, "field": name}}


def chain(family: str, name: str, kind: str, hook: str, priority: int) -> Json:
    """A chain of our table, which lets pass what no rule is about."""
    return {
        "chain": {
            "family": family,
            "table": TABLE,
            "name": name,
            "type": kind,
            "hook": hook,
            "prio": priority,
            "policy": "accept",
        }
    }


def rule(family: str, one: Rule) -> Json:
    """A rule of our table; its comment ends with a digest of what it does."""
    digest = digest_of(one.chain, json.dumps(one.expr, sort_keys=True))
    return {
        "rule": {
            "family": family,
            "table": TABLE,
            "chain": one.chain,
            "comment": f"{one.why} #{digest}",
            "expr": list(one.expr),
        }
    }

"""The packet filter's own table, as libnftables JSON. Pure: says what should stand there, and
reduces what does stand there to a form that can be compared.

Every rule's comment ends with a digest of the rule. So two rulesets are compared without knowing
how this or that nft version spells an expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from services.network.core.crossing import crossing
from services.network.core.firewall_terms import (
    ACCEPT,
    DROP,
    MASQUERADE,
    REJECT,
    Json,
    Rule,
    chain,
    field,
    match,
    meta,
    rule,
)

FAMILY = "inet"
CHAINS = (
    ("forward", "filter", "forward", 0),
    ("input", "filter", "input", 0),
    ("postrouting", "nat", "postrouting", 100),
)


@dataclass(frozen=True, slots=True)
class Zone:
    """What the filter must know of a network. `uplink` "" is any way out that the routes know;
    `overlay` is the device that carries it to other nodes, and `gateway` what each of them has."""

    bridge: str
    subnet: IPv4Network
    nat: bool
    uplink: str
    overlay: str = ""
    gateway: IPv4Address | None = None


def ruleset(zones: Iterable[Zone]) -> tuple[Json, ...]:
    """Chains and rules for these networks; nothing at all without networks."""
    ordered = sorted(zones, key=lambda zone: zone.bridge)
    if not ordered:
        return ()
    rules = [one for zone in ordered for one in (*_forward(zone), *_input(zone), *_nat(zone))]
    rules.sort(key=lambda one: (one.chain, one.stage))
    carried = [zone for zone in ordered if zone.overlay]
    apart = crossing((zone.overlay, zone.gateway) for zone in carried if zone.gateway)
    return (*(chain(FAMILY, *one) for one in CHAINS), *(rule(FAMILY, one) for one in rules), *apart)


def fingerprint(objects: Sequence[Json]) -> tuple[str, ...]:
    """A line for every chain and rule, in an order of its own; rules of a chain keep theirs."""
    chains = [_chain_line(row["chain"]) for row in objects if "chain" in row]
    rules = [_rule_line(row["rule"]) for row in objects if "rule" in row]
    return (*sorted(chains), *(line for _, line in sorted(rules, key=lambda pair: pair[0])))


def _forward(zone: Zone) -> list[Rule]:
    at, subnet = zone.bridge, zone.subnet
    foreign_source = _is("saddr", subnet, "!=")
    rules = [
        Rule("forward", 0, f"{at}: guests reach each other", (_in(at), _out(at), ACCEPT)),
        Rule("forward", 1, f"{at}: no false sender", (_in(at), foreign_source, DROP)),
        Rule("forward", 2, f"{at}: answers come in", (_out(at), _ANSWERS, ACCEPT)),
        Rule("forward", 5, f"{at}: guests go out", (_in(at), ACCEPT)),
        Rule("forward", 5, f"{at}: guests are reached", (_out(at), ACCEPT)),
    ]
    if zone.nat:
        rules.append(Rule("forward", 3, f"{at}: nobody begins from outside", (_out(at), REJECT)))
    if zone.nat and zone.uplink:
        elsewhere = (_in(at), _out(zone.uplink, "!="), REJECT)
        rules.append(Rule("forward", 4, f"{at}: out by {zone.uplink} alone", elsewhere))
    return rules


def _input(zone: Zone) -> list[Rule]:
    """The node itself serves its guests addresses and names, answers a ping, and nothing else."""
    at = _in(zone.bridge)
    both = {"set": ["tcp", "udp"]}
    dns = (at, match(meta("l4proto"), both), _port("th", 53), ACCEPT)
    ping = (at, match(field("icmp", "type"), "echo-request"), ACCEPT)
    return [
        Rule("input", 0, f"{zone.bridge}: answers to the node", (at, _ANSWERS, ACCEPT)),
        Rule("input", 0, f"{zone.bridge}: DHCP", (at, _port("udp", 67), ACCEPT)),
        Rule("input", 0, f"{zone.bridge}: DNS", dns),
        Rule("input", 0, f"{zone.bridge}: ping", ping),
        Rule("input", 1, f"{zone.bridge}: nothing else of the node", (at, REJECT)),
    ]


def _nat(zone: Zone) -> list[Rule]:
    if not zone.nat:
        return []
    leaving = (_is("saddr", zone.subnet), _is("daddr", zone.subnet, "!="))
    way = _out(zone.uplink) if zone.uplink else _out(zone.bridge, "!=")
    why = f"{zone.bridge}: leaves under the node's address"
    return [Rule("postrouting", 0, why, (*leaving, way, MASQUERADE))]


_ANSWERS = match({"ct": {"key": "state"}}, ["established", "related"], "in")


def _in(link: str) -> Json:
    return match(meta("iifname"), link)


def _out(link: str, op: str = "==") -> Json:
    return match(meta("oifname"), link, op)


def _port(protocol: str, port: int) -> Json:
    return match(field(protocol, "dport"), port)


def _is(name: str, subnet: IPv4Network, op: str = "==") -> Json:
    prefix = {"prefix": {"addr": str(subnet.network_address), "len": subnet.prefixlen}}
    return match(field("ip", name), prefix, op)


def _chain_line(chain: object) -> str:
    assert isinstance(chain, Mapping)
    return "chain " + " ".join(
        str(chain.get(key, "-")) for key in ("name", "type", "hook", "prio", "policy")
    )


def _rule_line(rule: object) -> tuple[str, str]:
    assert isinstance(rule, Mapping)
    return str(rule["chain"]), f"rule {rule['chain']} {rule.get('comment', '-')}"

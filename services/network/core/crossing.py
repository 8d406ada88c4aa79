"""What may not cross from node to node: the packet filter's table for bridged packets. The gateway
has the same address and MAC on every node, and each node's own server answers its guests alone.
Pure; the kernel's bridge filter knows no connections, so these rules are about single packets."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from services.network.core.firewall_terms import DROP, Json, Rule, chain, field, match, meta, rule

FAMILY = "bridge"
HOOKS = ("forward", "input", "output")
DHCP = {"set": [67, 68]}
ARP_PARTIES = ("saddr ip", "daddr ip")


def crossing(gateways: Iterable[tuple[str, IPv4Address]]) -> tuple[Json, ...]:
    """Chains and rules for these overlay devices, each with the gateway of its network; nothing at
    all without one."""
    ordered = sorted(gateways)
    if not ordered:
        return ()
    rules = [one for device, gateway in ordered for one in _rules(device, str(gateway))]
    rules.sort(key=lambda one: one.chain)
    chains = (chain(FAMILY, _chain(hook), "filter", hook, 0) for hook in HOOKS)
    return (*chains, *(rule(FAMILY, one) for one in rules))


def _rules(device: str, gateway: str) -> list[Rule]:
    ways = (("forward", "iifname"), ("forward", "oifname"), ("input", "iifname"))
    rules = [
        one
        for hook, side in (*ways, ("output", "oifname"))
        for one in _kept_apart(hook, match(meta(side), device), device, gateway)
    ]
    own_ipv6 = (match(meta("oifname"), device), match(field("ether", "type"), "ip6"), DROP)
    return [*rules, Rule(_chain("output"), 0, f"{device}: the node's own IPv6", own_ipv6)]


def _kept_apart(hook: str, passing: Json, device: str, gateway: str) -> list[Rule]:
    """Every node answers its own guests, under the gateway's name."""
    dhcp = (passing, match(field("udp", "dport"), DHCP), DROP)
    arp = [
        Rule(
            _chain(hook), 0, f"{device}: the gateway is on every node",
            (passing, match(field("arp", party), gateway), DROP),
        )
        for party in ARP_PARTIES
    ]  # fmt: skip
    return [Rule(_chain(hook), 0, f"{device}: DHCP stays on its node", dhcp), *arp]


def _chain(hook: str) -> str:
    """Unlike those of the table for routed packets, so that the two are told apart by name."""
    return f"crossing-{hook}"

"""What a network's spec means: defaults filled in, mistakes named by field, one network against the
others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from pvc.network.v1.network_pb2 import Network, NetworkSpec
from services.network.core.addresses import Range
from services.network.core.servers import DOMAIN

MTU = 1500
TENTH = 10
WIDEST, NARROWEST = 8, 30
NOWHERE = IPv4Network("0.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Mistake:
    """A field of NetworkSpec and what is wrong with it, as a sentence that says what to do."""

    field: str
    text: str


def filled(network_id: str, spec: NetworkSpec) -> NetworkSpec:
    """The spec with every default written out. What cannot be understood is left for `mistakes`."""
    full = NetworkSpec()
    full.CopyFrom(spec)
    full.domain = spec.domain or f"{network_id}.pvc"
    full.mtu = spec.mtu or MTU
    subnet = _subnet(spec.ipv4.cidr)
    if subnet is None or subnet.prefixlen > NARROWEST:
        return full
    base, gateway = subnet.network_address, _address(spec.ipv4.gateway)
    full.ipv4.gateway = spec.ipv4.gateway or str(base + 1)
    after_gateway = (gateway or base + 1) + 1
    tenth = base + TENTH
    first = tenth if tenth < subnet.broadcast_address - 1 else after_gateway
    full.ipv4.dhcp_first = spec.ipv4.dhcp_first or str(first)
    full.ipv4.dhcp_last = spec.ipv4.dhcp_last or str(subnet.broadcast_address - 1)
    return full


def revised(network_id: str, before: NetworkSpec, after: NetworkSpec) -> NetworkSpec:
    """The changed spec with defaults written out. Addresses that followed from the network's former
    ones, and were not given anew, follow from the new ones."""
    spec = NetworkSpec()
    spec.CopyFrom(after)
    if before.ipv4.cidr != after.ipv4.cidr:
        for field in ("gateway", "dhcp_first", "dhcp_last"):
            if getattr(before.ipv4, field) == getattr(after.ipv4, field):
                spec.ipv4.ClearField(field)
    if not after.HasField("ipv4"):
        spec.ClearField("ipv4")
    spec.vni = after.vni or before.vni
    return filled(network_id, spec)


def mistakes(spec: NetworkSpec) -> list[Mistake]:
    """Everything that keeps a filled spec from working."""
    found = []
    if not DOMAIN.fullmatch(spec.domain):
        found.append(Mistake("domain", f"{spec.domain!r} is no domain name in lower case"))
    if not 576 <= spec.mtu <= 9216:
        found.append(Mistake("mtu", f"{spec.mtu} is not between 576 and 9216"))
    if spec.HasField("ipv4"):
        found += _ipv4_mistakes(spec)
    elif spec.nat:
        found.append(Mistake("nat", "a network without ipv4 has no addresses to translate"))
    return found


def overlaps(subnet: IPv4Network, others: Iterable[Network]) -> Iterator[Network]:
    """The networks whose addresses are among these."""
    for other in others:
        theirs = _subnet(other.spec.ipv4.cidr)
        if theirs is not None and subnet.overlaps(theirs):
            yield other


def subnet_of(spec: NetworkSpec) -> IPv4Network | None:
    """The spec's IPv4 network; None for a bare network."""
    return _subnet(spec.ipv4.cidr)


def range_of(spec: NetworkSpec) -> Range:
    """The addresses that VMs get, of a filled spec without mistakes."""
    return Range(IPv4Address(spec.ipv4.dhcp_first), IPv4Address(spec.ipv4.dhcp_last))


def _ipv4_mistakes(spec: NetworkSpec) -> list[Mistake]:
    subnet = _subnet(spec.ipv4.cidr)
    if subnet is None:
        return [Mistake("ipv4.cidr", f"{spec.ipv4.cidr!r} is no IPv4 network such as 10.64.0.0/24")]
    if not WIDEST <= subnet.prefixlen <= NARROWEST:
        text = f"/{subnet.prefixlen} is not between /{WIDEST} and /{NARROWEST}"
        return [Mistake("ipv4.cidr", text)]
    if unusable := _unusable(subnet):
        return [Mistake("ipv4.cidr", f"{subnet} has {unusable} addresses: take a private network")]
    found = [
        Mistake(f"ipv4.{field}", f"{text!r} is no host address of {subnet}")
        for field, text in _hosts(spec)
        if not _is_host(_address(text), subnet)
    ]
    if not found and not len(range_of(spec)):
        text = f"{spec.ipv4.dhcp_last} is below dhcp_first, {spec.ipv4.dhcp_first}"
        found.append(Mistake("ipv4.dhcp_last", text))
    return found


def _hosts(spec: NetworkSpec) -> list[tuple[str, str]]:
    ipv4 = spec.ipv4
    return [
        ("gateway", ipv4.gateway),
        ("dhcp_first", ipv4.dhcp_first),
        ("dhcp_last", ipv4.dhcp_last),
    ]


def _is_host(address: IPv4Address | None, subnet: IPv4Network) -> bool:
    ends = (subnet.network_address, subnet.broadcast_address)
    return address is not None and address in subnet and address not in ends


def _unusable(subnet: IPv4Network) -> str:
    kinds = {
        "loopback": subnet.is_loopback,
        "multicast": subnet.is_multicast,
        "link-local": subnet.is_link_local,
        "reserved": subnet.is_reserved or subnet.overlaps(NOWHERE),
    }
    return next((kind for kind, it_is in kinds.items() if it_is), "")


def _subnet(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text) if "/" in text else None
    except ValueError:
        return None


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None

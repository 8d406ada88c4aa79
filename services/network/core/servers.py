"""The texts that a network's DHCP and DNS server is given. Pure; every value that comes from
outside is checked again here, for a line break in it would be a line of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from services.network.core.addresses import Range
from services.network.core.naming import digest_of

LEASE_S = 12 * 3600
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DOMAIN = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Host:
    """A VM's interface with the address that is reserved for it. `first` of the VM's on the
    network."""

    vm: str
    nic: str
    mac: str
    address: IPv4Address
    first: bool


@dataclass(frozen=True, slots=True)
class Service:
    """What a server serves. `own_resolvers`: it asks the machine's name servers for foreign names;
    else it knows its own names alone. `strangers`: it gives addresses to whoever asks; where every
    node has a server for the same network, two of them would give one address away twice."""

    bridge: str
    subnet: IPv4Network
    gateway: IPv4Address
    leases: Range
    domain: str
    mtu: int
    own_resolvers: bool
    strangers: bool = True


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """A server as it should run; the tags name its configuration and its files' contents."""

    bridge: str
    tag: str
    config: str
    tables: str
    files: Mapping[str, str]


def server_plan(service: Service, hosts: Iterable[Host], folder: str) -> ServerPlan:
    """Everything that the server of a network needs, its files below the folder."""
    config = config_text(service, folder)
    ordered = sorted(hosts, key=lambda host: (host.address, host.mac))
    files = {
        f"{service.bridge}.hosts": hosts_text(ordered),
        f"{service.bridge}.names": names_text(service, ordered),
    }
    tables = digest_of(*files.values())
    return ServerPlan(service.bridge, digest_of(config), config, tables, files)


def can_be_served(vm: str, nic: str, mac: str) -> bool:
    """Whether an interface can stand in the texts: its VM's and its own id are labels of DNS."""
    return bool(LABEL.fullmatch(vm) and LABEL.fullmatch(nic) and MAC.fullmatch(mac))


def config_text(service: Service, folder: str) -> str:
    """The configuration of dnsmasq(8). Names that guests give themselves are ignored: otherwise a
    guest could take another's."""
    at = f"{folder}/{service.bridge}"
    domain = _checked(DOMAIN, service.domain)
    lines = [
        f"# {service.bridge}: written by PVC, changes are lost",
        f"interface={service.bridge}",
        "except-interface=lo",
        "bind-interfaces",
        f"pid-file={at}.pid",
        "user=dnsmasq",
        "no-hosts",
        f"addn-hosts={at}.names",
        "domain-needed",
        "bogus-priv",
        f"domain={domain}",
        f"local=/{domain}/",
        *([] if service.own_resolvers else ["no-resolv"]),
        *_dhcp_lines(service, at),
    ]
    return "\n".join(lines) + "\n"


def hosts_text(hosts: Iterable[Host]) -> str:
    """Reservations: MAC, address and, for a VM's first interface, the name it is told."""
    rows = [
        (_checked(MAC, host.mac), str(host.address), *([_name(host)] if host.first else []))
        for host in hosts
    ]
    return "".join(",".join(row) + "\n" for row in rows)


def names_text(service: Service, hosts: Iterable[Host]) -> str:
    """Names in the manner of hosts(5): web.domain for the VM, net0.web.domain for each
    interface."""
    domain = _checked(DOMAIN, service.domain)
    lines = [f"{service.gateway} gateway.{domain}"]
    for host in hosts:
        own = f"{_checked(LABEL, host.nic)}.{_name(host)}.{domain}"
        name = f"{_name(host)}.{domain} " if host.first else ""
        lines.append(f"{host.address} {name}{own}")
    return "\n".join(lines) + "\n"


def _dhcp_lines(service: Service, at: str) -> list[str]:
    given = f"{service.subnet.network_address},static"
    if service.strangers:
        given = f"{service.leases.first},{service.leases.last}"
    return [
        "dhcp-authoritative",
        "dhcp-ignore-names",
        "quiet-dhcp",
        f"dhcp-leasefile={at}.leases",
        f"dhcp-hostsfile={at}.hosts",
        f"dhcp-lease-max={service.subnet.num_addresses}",
        f"dhcp-range={given},{service.subnet.netmask},{LEASE_S}",
        f"dhcp-option=option:router,{service.gateway}",
        f"dhcp-option=option:dns-server,{service.gateway}",
        f"dhcp-option=option:mtu,{service.mtu}",
    ]


def _name(host: Host) -> str:
    return _checked(LABEL, host.vm)


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!r} cannot stand in the configuration of a server")
    return text

"""From networks and the VMs on them to what a node's network should look like, and to what is to be
said of each network. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from pvc.compute.v1.vm_pb2 import Vm
from pvc.network.v1.network_pb2 import AddressAssignment, Network, NetworkSpec, NetworkStatus
from services.network.core import firewall, naming, spec
from services.network.core.addresses import allocate
from services.network.core.plan import Bridge, Wanted
from services.network.core.servers import (
    LEASE_S,
    Host,
    ServerPlan,
    Service,
    can_be_served,
    server_plan,
)

BRIDGE_CALLS = tuple(f"net/bridge/bridge-nf-call-{kind}" for kind in ("arptables", "iptables"))
FORWARD = "net/ipv4/ip_forward"
NAMED_MAX = 5
"""Interfaces without an address that a status names."""
SYSCTLS = (FORWARD, *BRIDGE_CALLS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the networks are: a namespace of our own or "" for the machine's; the folder of the
    servers' files; the interface that leads out, "" for whichever the routes say."""

    namespace: str
    folder: str
    uplink: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """A VM's interface on a network."""

    vm: str
    nic: str
    mac: str


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that a server has given out until `expires`, in seconds since the epoch; 0 is
    never."""

    mac: str
    address: str
    expires: int


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """All that follows from one network. `why` says what is wrong with it; then nothing else
    follows. `lacking` says which interfaces have no address, and why."""

    network: Network
    bridge: Bridge | None = None
    server: ServerPlan | None = None
    zone: firewall.Zone | None = None
    hosts: tuple[Host, ...] = ()
    lacking: tuple[str, ...] = ()
    domain: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a node's network should look like, and the networks that it follows from."""

    wanted: Wanted
    networks: tuple[NetworkPlan, ...] = ()


def desired(
    networks: Iterable[Network],
    vms: Iterable[Vm],
    leases: Mapping[str, Iterable[Lease]],
    place: Place,
) -> Plan:
    """Everything that follows from the networks and VMs. `leases` are what each bridge's server has
    given out: a stranger's address is not given to a VM."""
    everyone = sorted(vms, key=lambda vm: vm.name)
    ordered = sorted(networks, key=lambda network: network.name)
    plans = tuple(_network_plan(network, everyone, leases, place) for network in ordered)
    zones = {plan.zone.bridge: plan.zone for plan in plans if plan.zone is not None}
    wanted = Wanted(
        bridges={plan.bridge.name: plan.bridge for plan in plans if plan.bridge is not None},
        servers={plan.server.bridge: plan.server for plan in plans if plan.server is not None},
        zones=zones,
        sysctls=_sysctls(zones.values(), place),
        namespace=bool(place.namespace),
    )
    return Plan(wanted, plans)


def status(
    plan: NetworkPlan, place: Place, leases: Iterable[Lease], obstacle: str
) -> NetworkStatus:
    """What is to be said of the network. `obstacle` is what keeps the node from doing its part.

    While the network has a mistake or an obstacle, VMs keep the addresses that they have."""
    network = plan.network
    why = plan.why or obstacle or _lacking(plan)
    states = NetworkStatus.State
    ready = not (plan.why or obstacle)
    return NetworkStatus(
        state=states.STATE_READY if ready else states.STATE_FAILED,
        why=why,
        bridge=bridge_of(network),
        namespace=place.namespace,
        generation=network.meta.generation if ready else network.status.generation,
        addresses=network.status.addresses if plan.why else assignments(plan, leases),
    )


def bridge_of(network: Network) -> str:
    """The bridge that VMs on the network are attached to: the same on every node, at any time."""
    return naming.bridge_name(_id(network))


def interfaces(vms: Iterable[Vm], network: str) -> tuple[Interface, ...]:
    """The VMs' interfaces on the network, in the VMs' own order. Those without a MAC have no
    address yet; of several with the same MAC only the first can have one."""
    found: dict[str, Interface] = {}
    for vm in vms:
        for nic in vm.spec.nics:
            if nic.network == network and nic.mac:
                found.setdefault(nic.mac, Interface(vm.name, nic.id, nic.mac))
    return tuple(found.values())


def users(network: str, vms: Iterable[Vm]) -> tuple[str, ...]:
    """The VMs that have an interface on the network."""
    return tuple(vm.name for vm in vms if any(nic.network == network for nic in vm.spec.nics))


def _network_plan(
    network: Network, vms: Iterable[Vm], leases: Mapping[str, Iterable[Lease]], place: Place
) -> NetworkPlan:
    network_id = _id(network)
    full = spec.filled(network_id, network.spec)
    if wrong := spec.mistakes(full):
        return NetworkPlan(network, why=f"{wrong[0].field}: {wrong[0].text}")
    name = naming.bridge_name(network_id)
    subnet = spec.subnet_of(full)
    address = f"{full.ipv4.gateway}/{subnet.prefixlen}" if subnet else ""
    mark, mac = naming.bridge_mark(network_id), naming.bridge_mac(name)
    bridge = Bridge(name, mark, mac, full.mtu, address)
    if subnet is None:
        return NetworkPlan(network, bridge)
    hosts, lacking = _hosts(network, full, interfaces(vms, network.name), leases.get(name, ()))
    service = Service(
        bridge=name,
        subnet=subnet,
        gateway=IPv4Address(full.ipv4.gateway),
        leases=spec.range_of(full),
        domain=full.domain,
        mtu=full.mtu,
        own_resolvers=not place.namespace,
    )
    server = server_plan(service, hosts, place.folder)
    zone = firewall.Zone(name, subnet, full.nat, place.uplink)
    return NetworkPlan(network, bridge, server, zone, hosts, lacking, full.domain)


def _hosts(
    network: Network, full: NetworkSpec, wanted: tuple[Interface, ...], leases: Iterable[Lease]
) -> tuple[tuple[Host, ...], tuple[str, ...]]:
    """The interfaces with their addresses, and a sentence for each that has none."""
    named = [one for one in wanted if can_be_served(_vm_id(one), one.nic, one.mac)]
    subnet, gateway = IPv4Network(full.ipv4.cidr), IPv4Address(full.ipv4.gateway)
    noted = {row.mac: IPv4Address(row.address) for row in network.status.addresses}
    leased = {row.mac: IPv4Address(row.address) for row in leases}
    known, macs = set(noted.values()), {one.mac for one in named}
    held = {mac: address for mac, address in leased.items() if address not in known} | noted
    held = {mac: found for mac, found in held.items() if found in subnet and found != gateway}
    taken = {address for mac, address in leased.items() if mac not in macs} | {gateway}
    given = allocate(macs, held, spec.range_of(full), taken)
    first = {_vm_id(one): one for one in reversed(named) if one.mac in given}
    hosts = tuple(
        Host(_vm_id(one), one.nic, one.mac, given[one.mac], first[_vm_id(one)] is one)
        for one in named
        if one.mac in given
    )
    return hosts, tuple(_lack(one, one in named) for one in wanted if one.mac not in given)


def _lacking(plan: NetworkPlan) -> str:
    """The network works, but not for these."""
    more = len(plan.lacking) - NAMED_MAX
    return "; ".join([*plan.lacking[:NAMED_MAX], *([f"{more} more lack one"] if more > 0 else [])])


def _vm_id(one: Interface) -> str:
    return one.vm.removeprefix("vms/")


def _lack(one: Interface, named: bool) -> str:
    if not named:
        return f"{one.vm} ({one.nic}) has a name or MAC that cannot be served: change it"
    return f"no address is left for {one.vm} ({one.nic}): widen dhcp_first and dhcp_last"


def assignments(plan: NetworkPlan, leases: Iterable[Lease]) -> list[AddressAssignment]:
    """Who has which address, for the status."""
    asked = {(row.mac, row.address): row.expires - LEASE_S for row in leases if row.expires}
    rows = []
    for host in sorted(plan.hosts, key=lambda host: (host.vm, host.nic)):
        name = f"{host.vm}.{plan.domain}" if host.first else f"{host.nic}.{host.vm}.{plan.domain}"
        row = AddressAssignment(
            vm=f"vms/{host.vm}",
            nic=host.nic,
            mac=host.mac,
            address=str(host.address),
            host_name=name,
        )
        if (when := asked.get((host.mac, str(host.address)))) is not None:
            row.lease_time.FromSeconds(when)
        rows.append(row)
    return rows


def _sysctls(zones: Iterable[firewall.Zone], place: Place) -> dict[str, str]:
    """Forwarding for NAT alone. In our own namespace also: bridged packets are no business of the
    filter of routed ones. On the machine's own network that is its administrator's decision."""
    wanted = {FORWARD: "1"} if any(zone.nat for zone in zones) else {}
    if place.namespace:
        wanted |= dict.fromkeys(BRIDGE_CALLS, "0")
    return wanted


def _id(network: Network) -> str:
    return network.name.removeprefix("networks/")

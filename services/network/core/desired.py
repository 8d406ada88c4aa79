"""From networks and the VMs on them to what a node's network should look like. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from pvc.compute.v1.vm_pb2 import NicSpec, Vm
from pvc.network.v1.network_pb2 import Network, NetworkSpec
from services.network.core import firewall, naming, spec
from services.network.core.addresses import allocate
from services.network.core.overlay import ALONE, Overlay, Standing, mtu_for, overlay_of
from services.network.core.plan import Bridge, Wanted
from services.network.core.servers import (
    Host,
    ServerPlan,
    Service,
    can_be_served,
    server_plan,
)
from services.state.table import Extract

BRIDGE_CALLS = tuple(f"net/bridge/bridge-nf-call-{kind}" for kind in ("arptables", "iptables"))
FORWARD = "net/ipv4/ip_forward"
SYSCTLS = (FORWARD, *BRIDGE_CALLS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the networks are: a namespace of our own or "" for the machine's; the folder of the
    servers' files; the interface that leads out, "" for whichever the routes say; the address at
    which other nodes reach this one, "" for none."""

    namespace: str
    folder: str
    uplink: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """A VM's interface on a network. `nodes` are those where the VM is or shall be."""

    vm: str
    nic: str
    mac: str
    nodes: frozenset[str] = frozenset()


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
    overlay: Overlay | None = None
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
    standing: Standing = ALONE,
) -> Plan:
    """Everything that follows from the networks and VMs. `leases` are what each bridge's server has
    given out: a stranger's address is not given to a VM."""
    everyone = sorted(vms, key=lambda vm: vm.name)
    ordered = sorted(networks, key=lambda network: network.name)
    plans = tuple(_network_plan(row, everyone, leases, place, standing) for row in ordered)
    zones = {plan.zone.bridge: plan.zone for plan in plans if plan.zone is not None}
    wanted = Wanted(
        bridges={plan.bridge.name: plan.bridge for plan in plans if plan.bridge is not None},
        servers={plan.server.bridge: plan.server for plan in plans if plan.server is not None},
        zones=zones,
        sysctls=_sysctls(zones.values(), place),
        namespace=bool(place.namespace),
        overlays={plan.overlay.name: plan.overlay for plan in plans if plan.overlay is not None},
    )
    return Plan(wanted, plans)


def bridge_of(network: Network) -> str:
    """The bridge that VMs on the network are attached to: the same on every node, at any time."""
    return naming.bridge_name(_id(network))


def interfaces(vms: Iterable[Vm], network: str) -> tuple[Interface, ...]:
    """The VMs' interfaces on the network, in the VMs' own order. Those without a MAC have no
    address yet; of several with the same MAC only the first can have one."""
    found: dict[str, Interface] = {}
    for vm in vms:
        nodes = frozenset({vm.decision.node, vm.status.node} - {""})
        for nic in vm.spec.nics:
            if nic.network == network and nic.mac:
                found.setdefault(nic.mac, Interface(vm.name, nic.id, nic.mac, nodes))
    return tuple(found.values())


def guest_of(vm: Vm) -> Vm | None:
    """All of a VM that networks depend on: its name, its interfaces, and where it is; None for one
    without interfaces."""
    if not vm.spec.nics:
        return None
    guest = Vm(name=vm.name)
    guest.spec.nics.extend(NicSpec(id=x.id, network=x.network, mac=x.mac) for x in vm.spec.nics)
    guest.decision.node, guest.status.node = vm.decision.node, vm.status.node
    return guest


GUESTS = Extract(Vm, guest_of)


def users(network: str, vms: Iterable[Vm]) -> tuple[str, ...]:
    """The VMs that have an interface on the network."""
    return tuple(vm.name for vm in vms if any(nic.network == network for nic in vm.spec.nics))


def _network_plan(
    network: Network,
    vms: Iterable[Vm],
    leases: Mapping[str, Iterable[Lease]],
    place: Place,
    standing: Standing,
) -> NetworkPlan:
    network_id = _id(network)
    full = spec.filled(network_id, network.spec)
    if wrong := spec.mistakes(full):
        return NetworkPlan(network, why=f"{wrong[0].field}: {wrong[0].text}")
    underlay = standing.underlay
    full.mtu = mtu_for(network, standing.node, underlay.inner_mtu if underlay else 0, full.mtu)
    bridge = _bridge(network_id, full)
    overlay = overlay_of(network, bridge.name, full.mtu, underlay)
    if not bridge.address:
        return NetworkPlan(network, bridge, overlay)
    wanted = interfaces(vms, network.name)
    hosts, lacking = _hosts(network, full, wanted, leases.get(bridge.name, ()), standing)
    service = _service(bridge.name, full, place, overlay)
    server = server_plan(service, hosts, place.folder)
    device = overlay.name if overlay else ""
    zone = firewall.Zone(
        bridge.name, service.subnet, full.nat, place.uplink, device, service.gateway
    )
    return NetworkPlan(network, bridge, overlay, server, zone, hosts, lacking, full.domain)


def _bridge(network_id: str, full: NetworkSpec) -> Bridge:
    """The same on every node, with the gateway's address: a guest that moves finds it there."""
    name, subnet = naming.bridge_name(network_id), spec.subnet_of(full)
    address = f"{full.ipv4.gateway}/{subnet.prefixlen}" if subnet else ""
    return Bridge(name, naming.bridge_mark(network_id), naming.own_mac(name), full.mtu, address)


def _service(bridge: str, full: NetworkSpec, place: Place, overlay: Overlay | None) -> Service:
    return Service(
        bridge=bridge,
        subnet=IPv4Network(full.ipv4.cidr),
        gateway=IPv4Address(full.ipv4.gateway),
        leases=spec.range_of(full),
        domain=full.domain,
        mtu=full.mtu,
        own_resolvers=not place.namespace,
        strangers=overlay is None,
    )


def _hosts(
    network: Network,
    full: NetworkSpec,
    wanted: tuple[Interface, ...],
    leases: Iterable[Lease],
    standing: Standing,
) -> tuple[tuple[Host, ...], tuple[str, ...]]:
    """The interfaces with their addresses, and a sentence for each that has none. Those of others'
    guests are chosen by others."""
    subnet, gateway = IPv4Network(full.ipv4.cidr), IPv4Address(full.ipv4.gateway)
    noted = {row.mac: IPv4Address(row.address) for row in network.status.addresses}
    ours = [one for one in wanted if one.mac in noted or _chosen_here(one, network, standing)]
    named = [one for one in ours if can_be_served(_vm_id(one), one.nic, one.mac)]
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
    return hosts, tuple(_lack(one, one in named) for one in ours if one.mac not in given)


def _chosen_here(one: Interface, network: Network, standing: Standing) -> bool:
    """Whoever speaks for the network chooses an address, and so does the node of the VM: it need
    not wait for anybody. Two that choose at the same time want to write the same row."""
    return standing.speaks_for(network.name) or standing.node in one.nodes


def _vm_id(one: Interface) -> str:
    return one.vm.removeprefix("vms/")


def _lack(one: Interface, named: bool) -> str:
    if not named:
        return f"{one.vm} ({one.nic}) has a name or MAC that cannot be served: change it"
    return f"no address is left for {one.vm} ({one.nic}): widen dhcp_first and dhcp_last"


def _sysctls(zones: Iterable[firewall.Zone], place: Place) -> dict[str, str]:
    """Forwarding for NAT alone. In our own namespace also: bridged packets are no business of the
    filter of routed ones. On the machine's own network that is its administrator's decision."""
    wanted = {FORWARD: "1"} if any(zone.nat for zone in zones) else {}
    if place.namespace:
        wanted |= dict.fromkeys(BRIDGE_CALLS, "0")
    return wanted


def _id(network: Network) -> str:
    return network.name.removeprefix("networks/")

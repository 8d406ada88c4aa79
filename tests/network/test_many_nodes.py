"""Several agents and one state, on fake machines: who writes what, who chooses addresses, what is
wanted as nodes come and go."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.compute.v1.vm_pb2 import Vm
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from pvc.core.v1.event_pb2 import Event
from pvc.network.v1 import network_service_pb2 as api
from pvc.network.v1.network_pb2 import Network, NetworkStatus
from services.mesh import rows
from services.mesh.errors import PvcError
from services.network.agent import NetworkAgent
from services.network.core import overlay
from services.network.core.desired import Place
from services.network.drivers.fabric import Lease
from services.network.drivers.fake import FakeFabric, Machine, Script
from services.network.service import create_network, delete_network, update_network
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from tests.network.test_agent import House
from tests.network.worlds import call, mac, network, vm

READY, FAILED = NetworkStatus.STATE_READY, NetworkStatus.STATE_FAILED
BRIDGE = "pvcbr-default"


class Town(House):
    """Houses that share a state: nodes n1, n2, n3."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.machines = {f"n{number}": Machine() for number in (1, 2, 3)}
        self.stores = {node: MemoryStore(self.cluster) for node in self.machines}
        self.scripts: dict[str, Script] = {}
        for number, node in enumerate(self.machines, 1):
            self.arrive(node, f"192.0.2.{number}:7382")

    def arrive(self, node: str, address: str, state: int = cluster_pb2.NODE_STATE_ONLINE) -> None:
        row = cluster_pb2.Node(name=f"nodes/{node}")
        row.decision.state = state  # type: ignore[assignment]
        row.status.services.add(service="network", address=address)
        self.put(row)
        assert self.stores[node].acquire(row.name, row.name) is not None

    def go(self, *nodes: str) -> None:
        """One round of each."""
        for node in nodes or self.machines:
            fabric = FakeFabric(self.machines[node], self.scripts.get(node))
            address = f"192.0.2.{node[1]}"
            place = Place("", f"/run/{node}", address=address)
            store = self.stores[node]
            NetworkAgent(store, self.clock, fabric, place, f"nodes/{node}").step()

    def settle(self, *nodes: str) -> None:
        before = -1
        for _ in range(9):
            self.go(*nodes)
            if before == (before := self.store.snapshot().revision):
                return
        raise AssertionError("they go on writing")

    def placed(self, name: str, node: str, number: int) -> Vm:
        row = vm(name, mac(number))
        row.decision.node = f"nodes/{node}"
        return row

    def messages(self) -> list[str]:
        return [row.message for row in self.store.snapshot().rows(Event)]


def device(town: Town) -> str:
    return f"pvcvx-{overlay.vni_of(town.network())}"


def test_every_node_says_its_part_and_nobody_elses() -> None:
    town = Town(network())
    town.go("n2")
    assert dict(town.network().status.nodes).keys() == {"n2"}
    town.settle()
    status = town.network().status
    assert {node: part.bridge for node, part in status.nodes.items()} == {
        "n1": BRIDGE,
        "n2": BRIDGE,
        "n3": BRIDGE,
    }
    assert (status.state, status.why, status.generation, status.mtu) == (READY, "", 1, 1450)
    revision = town.store.snapshot().revision
    town.go()
    assert town.store.snapshot().revision == revision


def test_what_one_node_cannot_do_is_said_of_that_node() -> None:
    town = Town(network())
    town.settle()
    town.machines["n3"].remove_link(BRIDGE)
    town.scripts["n3"] = Script()
    town.scripts["n3"].fails["put_bridge"] = 1
    town.go("n3", "n1")
    status = town.network().status
    assert (status.state, status.nodes["n1"].ready, status.nodes["n3"].ready) == (
        READY,
        True,
        False,
    )
    assert status.why == f"n3: {status.nodes['n3'].why}"
    assert "networks/default cannot be used on n3" in town.messages()
    town.settle()
    assert town.network().status.why == ""
    assert "networks/default can be used on n3" in town.messages()
    assert "networks/default is FAILED" not in town.messages()


def test_when_the_speaker_goes_another_speaks() -> None:
    town = Town(network())
    town.settle()
    town.stores["n1"].lose_session()
    row = rows.copied(town.network())
    row.spec.mtu, row.meta.generation = 1300, 2
    town.put(row)
    town.settle("n2", "n3")
    assert (town.network().status.generation, town.network().status.mtu) == (2, 1300)


def test_the_node_of_a_vm_chooses_its_address_without_the_speaker() -> None:
    town = Town(network())
    town.settle()
    town.put(town.placed("web", "n3", 1))
    town.go("n2")
    assert town.addresses() == {}
    town.go("n3")
    chosen = town.addresses()
    assert list(chosen) == ["vms/web/net0"]
    town.settle()
    assert town.addresses() == chosen
    assert all(mac(1) in town.machines[node].texts[f"{BRIDGE}.hosts"] for node in town.machines)


def test_two_nodes_that_choose_at_once_choose_differently() -> None:
    """Both saw the same state; whoever writes second is refused, and looks again."""
    row = network(cidr="10.64.0.0/29")
    town = Town(row)
    town.settle()
    town.put(town.placed("a", "n2", 1), town.placed("b", "n3", 2))
    town.go("n3", "n2")
    town.settle()
    addresses = town.addresses()
    assert len(set(addresses.values())) == len(addresses) == 2


def test_a_lease_is_noted_by_the_node_that_gave_it_and_kept_by_the_others() -> None:
    town = Town(network(), vm("web", mac(1)))
    town.settle()
    address = town.addresses()["vms/web/net0"]
    for node, when in (("n2", 1_700_043_200), ("n3", 1_700_050_000)):
        town.machines[node].leases[BRIDGE] = (Lease(mac(1), address, "web", when),)
    town.settle()
    (given,) = town.network().status.addresses
    assert given.lease_time.seconds == 1_700_050_000 - 12 * 3600


def test_a_server_among_several_gives_strangers_nothing() -> None:
    town = Town(network())
    town.settle()
    assert (
        "dhcp-range=10.64.0.0,static,255.255.255.0" in town.machines["n1"].texts[f"{BRIDGE}.conf"]
    )
    alone = House(network())
    alone.step()
    assert "dhcp-range=10.64.0.10,10.64.0.254," in alone.machine.texts[f"{BRIDGE}.conf"]


def test_devices_follow_the_nodes() -> None:
    town = Town(network())
    town.settle()
    there = town.machines["n1"].links[device(town)].overlay
    assert there is not None and there.peers == {"192.0.2.2", "192.0.2.3"}
    assert (there.local, there.vni) == ("192.0.2.1", overlay.vni_of(town.network()))
    dead = rows.copied(town.store.snapshot().find(cluster_pb2.Node, "nodes/n3"))
    dead.decision.state = cluster_pb2.NODE_STATE_FENCED
    town.put(dead)
    town.settle("n1", "n2")
    there = town.machines["n1"].links[device(town)].overlay
    assert there is not None and there.peers == {"192.0.2.2"}
    for node in ("n2", "n3"):
        town.stores[node].lose_session()
        town.store.commit([Delete(f"nodes/{node}", "*")])
    town.settle("n1")
    assert device(town) not in town.machines["n1"].links
    assert town.machines["n1"].links[BRIDGE].mtu == 1500


def test_the_smallest_way_decides_for_all() -> None:
    town = Town(network())
    town.machines["n2"].path_mtu = 1400
    town.machines["n3"].path_mtu = 9000
    town.settle()
    assert {m.links[BRIDGE].mtu for m in town.machines.values()} == {1350}
    assert {m.links[device(town)].mtu for m in town.machines.values()} == {1500}
    assert town.network().status.mtu == 1350


def test_a_network_goes_when_it_is_gone_everywhere() -> None:
    town = Town()
    name = town.create(network())
    town.settle()
    assert town.operation(name).state == 3
    gone = town.delete("networks/default")
    town.go("n1")
    assert town.operation(gone).state == 1 and set(town.network().status.nodes) == {"n2", "n3"}
    town.stores["n3"].lose_session()
    town.go("n2", "n1")
    assert town.store.snapshot().find(Network, "networks/default") is None
    town.go("n1")
    assert town.operation(gone).state == 3
    town.go("n3")
    assert BRIDGE not in town.machines["n3"].links, "a node that was away cleans up when it is back"


def test_a_bare_network_is_carried_unguarded() -> None:
    town = Town(network(cidr="", nat=False))
    town.settle()
    assert device(town) in town.machines["n1"].links
    assert town.machines["n1"].rules == ()


def test_numbers_are_chosen_once_and_never_twice() -> None:
    town = Town()
    for name, cidr in (("default", "10.64.0.0/24"), ("lab", "10.65.0.0/24")):
        town.create(network(name, cidr))
    first, second = (town.network(f"networks/{name}").spec.vni for name in ("default", "lab"))
    assert 0 < first != second > 0
    taken = network("other", "10.66.0.0/24")
    taken.spec.vni = first
    assert refused(town, create_network, api.CreateNetworkRequest(
        network_id="other", network=taken)) == ("IN_USE", "network.spec.vni")  # fmt: skip
    change = api.UpdateNetworkRequest(network=town.network())
    change.network.spec.vni = 77
    assert refused(town, update_network, change) == ("IMMUTABLE_FIELD", "network.spec.vni")
    change = api.UpdateNetworkRequest(network=Network(name="networks/default"))
    change.network.spec.CopyFrom(network(cidr="10.67.0.0/24").spec)
    change.update_mask.paths.append("spec")
    town.ask(update_network, change)
    assert town.network().spec.vni == first


def refused(town: Town, plan: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(PvcError) as error:
        plan(town.store.snapshot(), request, call(town.clock))
    return error.value.reason_name, error.value.field


def test_a_number_that_is_taken_leads_to_the_next() -> None:
    row, other = network(), network("lab", "10.65.0.0/24")
    row.meta.uid = "uid-1"
    wanted = overlay.free_vni(row, ())
    other.spec.vni = wanted
    assert overlay.free_vni(row, [other]) == wanted + 1
    last = network("end", "10.66.0.0/24")
    last.spec.vni = overlay.VNI_MAX
    assert 1 <= overlay.free_vni(row, [other, last]) <= overlay.VNI_MAX


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("unix:/run/pvc/mesh/network.sock", ""),
        ("192.0.2.7:7382", "192.0.2.7"),
        ("[2001:db8::7]:7382", "2001:db8::7"),
        ("n7.example.org:7382", ""),
    ],
)
def test_a_nodes_address_is_where_its_services_listen(address: str, found: str) -> None:
    node = cluster_pb2.Node()
    node.status.services.add(service="network", address=address)
    assert overlay.address_of(node) == found


def test_a_node_without_an_address_carries_nothing() -> None:
    other = cluster_pb2.Node(name="nodes/n2")
    other.status.services.add(service="network", address="192.0.2.2:1")
    assert overlay.underlay_of([other], "nodes/n1", "", 1500) is None
    assert overlay.underlay_of([], "nodes/n1", "192.0.2.1", 1500) is None
    assert overlay.underlay_of([other], "nodes/n2", "192.0.2.2", 1500) is None
    assert overlay.underlay_of([other], "nodes/n1", "2001:db8::1", 1500) is None
    found = overlay.underlay_of([other], "nodes/n1", "192.0.2.1", 1500)
    assert found is not None and found.inner_mtu == 1450
    other.status.services[0].address = "[2001:db8::2]:1"
    found = overlay.underlay_of([other], "nodes/n1", "2001:0db8::1", 1500)
    assert found == overlay.Underlay("2001:db8::1", 1500, frozenset({"2001:db8::2"}))
    assert found.inner_mtu == 1430


def test_a_deletion_that_a_vm_forestalls_is_refused_before_anything_goes() -> None:
    town = Town(network(), vm("web", mac(1)))
    town.settle()
    request = api.DeleteNetworkRequest(name="networks/default")
    with pytest.raises(PvcError) as error:
        delete_network(town.store.snapshot(), request, call(town.clock))
    assert error.value.reason == reason_pb2.REASON_IN_USE
    town.store.commit([Put(rows.copied(town.network()))])
    town.settle()
    assert town.network().status.state == READY

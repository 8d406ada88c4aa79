"""The agent between a store and a fake machine: statuses, addresses, operations, deaths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.compute.v1.vm_pb2 import Vm
from pvc.core.v1 import reason_pb2
from pvc.core.v1.event_pb2 import Event
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1 import network_service_pb2 as api
from pvc.network.v1.network_pb2 import Network, NetworkStatus
from services.mesh import rows
from services.mesh.errors import PvcError
from services.network.agent import NetworkAgent
from services.network.core.servers import LEASE_S
from services.network.drivers.fabric import Lease, Link
from services.network.drivers.fake import FakeFabric, Killed, Machine, Script
from services.network.service import create_network, delete_network, update_network
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Delete, Put
from tests.network.worlds import PLACE, TestClock, call, mac, network, vm

READY, FAILED = NetworkStatus.STATE_READY, NetworkStatus.STATE_FAILED
BRIDGE = "pvcbr-default"


class House:
    """A store, a machine, and an agent that may be killed and begin anew."""

    def __init__(self, *made: Any) -> None:
        self.clock = TestClock()
        self.cluster = MemoryCluster()
        self.store = MemoryStore(self.cluster)
        self.machine = Machine(namespace=True, exists=False, links={})
        self.place = PLACE
        self.put(*made)

    def put(self, *made: Any) -> None:
        changes = []
        for row in made:
            there = self.store.snapshot().named(row.name)
            fresh: Any = rows.copied(row)
            fresh.meta.etag = there.meta.etag if there is not None else ""
            changes.append(Put(fresh))
        self.store.commit(changes)

    def ask(self, plan: Callable[..., Any], request: Message) -> str:
        """What the service does with a request; the operation's name."""
        mutation = plan(self.store.snapshot(), request, call(self.clock))
        self.store.commit(mutation.changes)
        return str(mutation.response.name)

    def create(self, row: Network) -> str:
        name = row.name.removeprefix("networks/")
        return self.ask(create_network, api.CreateNetworkRequest(network_id=name, network=row))

    def delete(self, name: str) -> str:
        return self.ask(delete_network, api.DeleteNetworkRequest(name=name))

    def remove(self, name: str) -> None:
        self.store.commit([Delete(name, "*")])

    def step(self, script: Script | None = None) -> FakeFabric:
        fabric = FakeFabric(self.machine, script)
        NetworkAgent(self.store, self.clock, fabric, self.place, "nodes/n1").step()
        return fabric

    def network(self, name: str = "networks/default") -> Network:
        row = self.store.snapshot().find(Network, name)
        assert row is not None
        return row

    def operation(self, name: str) -> Operation:
        row = self.store.snapshot().find(Operation, name)
        assert row is not None
        return row

    def addresses(self) -> dict[str, str]:
        return {f"{row.vm}/{row.nic}": row.address for row in self.network().status.addresses}


def test_a_network_becomes_ready_and_says_where_it_is() -> None:
    house = House(network())
    house.step()
    status = house.network().status
    assert (status.state, status.why, status.generation) == (READY, "", 1)
    assert (status.bridge, status.namespace) == (BRIDGE, "pvc-test")


def test_nothing_is_written_or_done_when_nothing_changed() -> None:
    house = House(network(), vm("web", mac(1)))
    house.step()
    revision = house.store.snapshot().revision
    assert house.step().calls == []
    assert house.store.snapshot().revision == revision


def test_every_interface_has_an_address_and_a_name() -> None:
    house = House(network(), vm("web", mac(1), mac(2)), vm("db", mac(3)))
    house.step()
    names = [row.host_name for row in house.network().status.addresses]
    assert names == ["db.default.pvc", "web.default.pvc", "net1.web.default.pvc"]
    assert len(set(house.addresses().values())) == 3
    assert mac(3) in house.machine.texts[f"{BRIDGE}.hosts"]


def test_an_address_stays_while_others_come_and_go() -> None:
    house = House(network(), vm("web", mac(1)))
    house.step()
    before = house.addresses()["vms/web/net0"]
    house.put(*(vm(f"a{number}", mac(number)) for number in range(2, 60)))
    house.step()
    house.remove("vms/a7")
    house.step()
    assert house.addresses()["vms/web/net0"] == before
    assert "vms/a7/net0" not in house.addresses()


def test_an_address_that_a_guest_has_leased_already_is_its_own() -> None:
    house = House(network())
    house.step()
    house.machine.leases[BRIDGE] = (
        Lease(mac(1), "10.64.0.77", "web", 1_700_000_000 + LEASE_S),
        Lease(mac(9), "10.64.0.78", "stranger", 1_700_000_000 + LEASE_S),
    )
    house.put(vm("web", mac(1)))
    house.step()
    (row,) = house.network().status.addresses
    assert row.address == "10.64.0.77" and row.lease_time.seconds == 1_700_000_000


def test_addresses_are_written_before_a_server_hears_of_them() -> None:
    house = House(network(), vm("web", mac(1)))
    with pytest.raises(Killed):
        house.step(Script(killed_in=0, killed_before=True))
    written = house.addresses()
    assert house.machine.texts == {} and list(written) == ["vms/web/net0"]
    house.put(*(vm(f"a{number}", mac(number + 1)) for number in range(1, 99)))
    house.step()
    assert house.addresses()["vms/web/net0"] == written["vms/web/net0"]


def test_a_full_range_is_said_but_does_not_fail_the_network() -> None:
    row = network()
    row.spec.ipv4.dhcp_first = row.spec.ipv4.dhcp_last = "10.64.0.9"
    house = House(row, vm("a", mac(1)), vm("b", mac(2)))
    house.step()
    status = house.network().status
    assert status.state == READY and len(status.addresses) == 1
    assert status.why == "no address is left for vms/b (net0): widen dhcp_first and dhcp_last"


@pytest.mark.parametrize("name", ["Web", "a.b"])
def test_a_vm_that_cannot_be_served_keeps_nobody_else_from_it(name: str) -> None:
    house = House(network(), vm(name, mac(1)), vm("web", mac(2)))
    house.step()
    status = house.network().status
    assert status.state == READY and list(house.addresses()) == ["vms/web/net0"]
    assert status.why == f"vms/{name} (net0) has a name or MAC that cannot be served: change it"


def test_addresses_survive_a_range_that_shrinks() -> None:
    house = House(network(), vm("web", mac(1)))
    house.step()
    before, row = house.addresses(), rows.copied(house.network())
    row.spec.ipv4.dhcp_first, row.spec.ipv4.dhcp_last = "10.64.0.2", "10.64.0.3"
    house.put(row, vm("new", mac(2)))
    house.step()
    assert house.addresses()["vms/web/net0"] == before["vms/web/net0"]
    assert house.addresses()["vms/new/net0"] in ("10.64.0.2", "10.64.0.3")


def test_a_spec_with_a_mistake_fails_alone() -> None:
    bad = network("bad", "10.65.0.0/24")
    bad.spec.ipv4.gateway = "10.99.0.1"
    house = House(bad, network())
    house.step()
    assert house.network("networks/bad").status.state == FAILED
    assert house.network("networks/bad").status.why.startswith("ipv4.gateway:")
    assert house.network().status.state == READY


def test_what_the_machine_refuses_is_said_and_tried_again() -> None:
    house = House(network())
    script = Script()
    script.fails["run_server"] = 1
    house.step(script)
    status = house.network().status
    assert status.state == FAILED and "run_server: as the script wants" in status.why
    assert status.generation == 0
    house.step()
    assert (house.network().status.state, house.network().status.generation) == (READY, 1)
    events = [(row.subject, row.message) for row in house.store.snapshot().rows(Event)]
    assert events == [
        ("networks/default", "networks/default is FAILED"),
        ("networks/default", "networks/default is READY"),
    ]


def test_a_setting_of_the_machine_itself_is_not_changed_in_silence() -> None:
    house = House(network())
    house.place, house.machine = replace(PLACE, namespace=""), Machine()
    house.step()
    messages = [(row.message, row.why) for row in house.store.snapshot().rows(Event)]
    assert ("nodes/n1: set net/ipv4/ip_forward to 1", "it is 0") in messages


def test_an_obstacle_takes_nobody_s_address() -> None:
    house = House(network(), vm("web", mac(1)))
    house.step()
    before = house.addresses()
    house.machine.remove_link(BRIDGE)
    house.machine.links[BRIDGE] = Link(BRIDGE, "bridge", "", "02:0", 1500, True, frozenset())
    house.step()
    assert house.network().status.state == FAILED and house.addresses() == before


def test_creating_succeeds_when_vms_can_use_the_network() -> None:
    house = House()
    name = house.create(network())
    assert house.operation(name).state == Operation.STATE_PENDING
    house.step()
    operation, result = house.operation(name), Network()
    assert operation.state == Operation.STATE_SUCCEEDED and operation.percent == 100
    assert operation.result.Unpack(result) and result.status.state == READY


def test_creating_fails_when_the_machine_refuses() -> None:
    house, script = House(), Script()
    name = house.create(network())
    script.fails["put_bridge"] = 1
    house.step(script)
    operation = house.operation(name)
    error = PvcError.from_status(operation.error)
    assert operation.state == Operation.STATE_FAILED
    assert error.reason == reason_pb2.REASON_NETWORK_FAILED and "put_bridge" in error.message


def test_an_update_succeeds_when_its_generation_is_in_effect() -> None:
    house = House()
    house.create(network())
    house.step()
    request = api.UpdateNetworkRequest(network=Network(name="networks/default"))
    request.network.spec.mtu = 1400
    name = house.ask(update_network, request)
    assert house.operation(name).generation == 2
    house.step()
    assert house.operation(name).state == Operation.STATE_SUCCEEDED
    assert house.machine.links[BRIDGE].mtu == 1400
    assert house.network().status.generation == 2


def test_a_removed_network_leaves_nothing_of_itself() -> None:
    house = House()
    house.create(network())
    house.create(network("lab", "10.65.0.0/24"))
    house.step()
    name = house.delete("networks/default")
    house.step()
    assert house.operation(name).state == Operation.STATE_SUCCEEDED
    assert house.store.snapshot().find(Network, "networks/default") is None
    assert set(house.machine.links) == {"lo", "pvcbr-lab"}
    assert set(house.machine.servers) == {"pvcbr-lab"}
    assert BRIDGE not in str(house.machine.rules) + str(house.machine.texts)


def test_a_network_that_a_vm_came_to_use_stays_until_it_is_free() -> None:
    house = House()
    house.create(network())
    house.step()
    name = house.delete("networks/default")
    house.put(vm("web", mac(1)))
    house.step()
    assert house.network().status.state == READY
    assert house.operation(name).state == Operation.STATE_PENDING
    house.remove("vms/web")
    house.step()
    assert house.operation(name).state == Operation.STATE_SUCCEEDED


def test_a_removal_waits_for_what_is_attached_and_can_be_called_off() -> None:
    house = House()
    house.create(network())
    house.step()
    link = house.machine.links[BRIDGE]
    house.machine.links[BRIDGE] = replace(link, ports=frozenset({"vnet0"}))
    name = house.delete("networks/default")
    house.step()
    assert house.operation(name).state == Operation.STATE_PENDING
    row = rows.copied(house.operation(name))
    row.cancel_requested = True
    house.put(row)
    house.step()
    house.step()
    assert house.operation(name).state == Operation.STATE_CANCELLED
    assert not house.network().meta.HasField("delete_time")
    assert house.network().status.state == READY and BRIDGE in house.machine.servers


def test_an_update_of_a_network_that_was_removed_meanwhile_is_superseded() -> None:
    house = House()
    house.create(network())
    request = api.UpdateNetworkRequest(network=Network(name="networks/default"))
    request.network.spec.mtu = 1400
    name = house.ask(update_network, request)
    house.delete("networks/default")
    house.step()
    error = PvcError.from_status(house.operation(name).error)
    assert error.reason == reason_pb2.REASON_SUPERSEDED


def test_a_network_made_again_is_another_one() -> None:
    house = House()
    house.create(network())
    house.step()
    first = house.delete("networks/default")
    house.step()
    house.create(network(cidr="10.70.0.0/24"))
    house.step()
    assert house.operation(first).state == Operation.STATE_SUCCEEDED
    assert house.machine.links[BRIDGE].addresses == {"10.70.0.1/24"}


class Rival(FakeFabric):
    """While the agent works, somebody changes the network in the store."""

    def __init__(self, house: House) -> None:
        super().__init__(house.machine)
        self.house = house

    def put_bridge(self, name: str, mark: str, mac: str, mtu: int, address: str) -> None:
        super().put_bridge(name, mark, mac, mtu, address)
        row = rows.copied(self.house.network())
        row.spec.mtu = 1300
        row.meta.generation = 2
        self.house.put(row)


def test_a_spec_that_changes_during_a_step_is_not_said_to_be_in_effect() -> None:
    house = House(network())
    NetworkAgent(house.store, house.clock, Rival(house), PLACE, "nodes/n1").step()
    row = house.network()
    assert (row.spec.mtu, row.meta.generation, row.status.generation) == (1300, 2, 1)
    house.step()
    assert house.network().status.generation == 2
    assert house.machine.links[BRIDGE].mtu == 1300


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.sets(st.integers(1, 6)))))
def test_an_agent_that_dies_all_the_time_never_moves_an_address(
    rounds: list[tuple[int, bool, set[int]]],
) -> None:
    house = House(network())
    seen: dict[str, str] = {}
    for calls, early, present in [*rounds, (99, False, {1, 2})]:
        there = {row.name for row in house.store.snapshot().rows(Vm)}
        here = {f"vms/a{number}": vm(f"a{number}", mac(number)) for number in present}
        for name in there - here.keys():
            house.remove(name)
            seen.pop(f"{name}/net0", None)
        house.put(*(here[name] for name in here.keys() - there))
        with contextlib.suppress(Killed):
            house.step(Script(killed_in=calls, killed_before=early))
        now = house.addresses()
        assert len(set(now.values())) == len(now)
        for name in now.keys() & seen.keys():
            assert now[name] == seen[name]
        seen |= now
    house.step()
    assert house.network().status.state == READY
    assert set(house.addresses()) == {"vms/a1/net0", "vms/a2/net0"}
    assert house.step().calls == []

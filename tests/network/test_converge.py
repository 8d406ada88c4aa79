"""The difference, its steps on a fake machine, and deaths in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.compute.v1.vm_pb2 import Vm
from pvc.network.v1.network_pb2 import Network
from services.network.converge import clean_up, converge, observe
from services.network.core.desired import Place, desired
from services.network.core.diff import difference, left_over
from services.network.core.naming import own_mac
from services.network.core.plan import Wanted, sentence
from services.network.drivers.fabric import Link
from services.network.drivers.fake import FakeFabric, Killed, Machine, Script
from tests.network.worlds import PLACE, check_golden, mac, network, vm

HOST = replace(PLACE, namespace="")
ETH0 = Link("eth0", "", "", "52:54:00:ff:ff:01", 1500, True, frozenset({"192.0.2.9/24"}))


def wanted(*networks: Network, vms: tuple[Vm, ...] = (), place: Place = PLACE) -> Wanted:
    return desired(networks, vms, {}, place).wanted


def host_machine() -> Machine:
    machine = Machine()
    machine.links["eth0"] = ETH0
    return machine


def settle(machine: Machine, want: Wanted, namespaced: bool = True) -> Mapping[str, str]:
    found = converge(FakeFabric(machine), namespaced, want, "n1")
    assert not found.everywhere
    return found.at


def steps(machine: Machine, want: Wanted, namespaced: bool = True) -> list[str]:
    found = difference(want, observe(FakeFabric(machine), namespaced))
    return [f"{sentence(step)} ({step.why})" for step in found.steps]


def settled(want: Wanted) -> Machine:
    machine = Machine(namespace=True, exists=False, links={})
    assert settle(machine, want) == {}
    return machine


ONE = wanted(network(), vms=(vm("web", mac(1)),))


def test_the_story_of_a_network_is_as_kept() -> None:
    """From nothing, through changes, to nothing again."""
    machine = Machine(namespace=True, exists=False, links={})
    more = wanted(network(), vms=(vm("web", mac(1)), vm("db", mac(2))))
    wide = network()
    wide.spec.mtu = 1400
    story = []
    for title, want in (
        ("at first", ONE),
        ("once more", ONE),
        ("a vm more", more),
        ("another mtu", wanted(wide)),
        ("a second network", wanted(wide, network("lab", "10.65.0.0/24", nat=False))),
        ("bare", wanted(network("lab", "", nat=False))),
        ("no networks", wanted()),
        ("clean-up", Wanted(namespace=False)),
    ):
        story.append(f"{title}:")
        while found := steps(machine, want):
            story += [f"  {line}" for line in found]
            fabric = FakeFabric(machine)
            converge(fabric, True, want, "n1")
            story.append(f"  = {' '.join(fabric.calls)}")
    check_golden("story", "\n".join(story) + "\n")


def test_what_is_settled_needs_no_step() -> None:
    assert steps(settled(ONE), ONE) == []


@pytest.mark.parametrize("server", ["crash", "hang"])
def test_a_server_that_fails_is_started_again(server: str) -> None:
    machine = settled(ONE)
    getattr(machine, f"{server}_server")("pvcbr-default")
    (line,) = steps(machine, ONE)
    assert line.startswith("start the server of pvcbr-default")


def test_a_bridge_that_somebody_removed_comes_back_with_its_server() -> None:
    machine = settled(ONE)
    machine.remove_link("pvcbr-default")
    assert [line.split(" (")[0] for line in steps(machine, ONE)] == [
        "set up bridge pvcbr-default",
        "start the server of pvcbr-default",
    ]
    assert settle(machine, ONE) == {}


def test_a_rule_that_somebody_removed_comes_back() -> None:
    machine = settled(ONE)
    machine.rules = machine.rules[:-1]
    assert steps(machine, ONE) == [
        "replace the packet filter's table (1 lines are missing, 0 too many)"
    ]


def test_a_foreign_interface_in_the_way_is_an_obstacle_for_one_network_alone() -> None:
    machine = host_machine()
    foreign = Link("pvcbr-default", "bridge", "", "02:00:00:00:00:77", 1500, True, frozenset())
    machine.links["pvcbr-default"] = foreign
    want = wanted(network(), network("lab", "10.65.0.0/24"), place=HOST)
    obstacles = settle(machine, want, namespaced=False)
    assert set(obstacles) == {"pvcbr-default"} and "not ours" in obstacles["pvcbr-default"]
    assert machine.links["pvcbr-default"] == foreign
    assert set(machine.servers) == {"pvcbr-lab"}
    assert "pvcbr-default" not in str(machine.rules)


def test_addresses_that_the_machine_reaches_otherwise_are_an_obstacle() -> None:
    machine = host_machine()
    obstacles = settle(machine, wanted(network("a", "192.0.0.0/16"), place=HOST), namespaced=False)
    assert "overlaps 192.0.2.9/24 of interface eth0" in obstacles["pvcbr-a"]
    assert set(machine.links) == {"lo", "eth0"}


def test_a_loopback_that_is_down_is_an_obstacle() -> None:
    machine = Machine(namespace=True)
    machine.links["lo"] = replace(machine.links["lo"], up=False)
    assert "loopback interface is down" in settle(machine, ONE)["pvcbr-default"]
    assert set(machine.links) == {"lo"}


def test_a_bridge_in_use_is_not_removed() -> None:
    machine = settled(ONE)
    link = machine.links["pvcbr-default"]
    machine.links["pvcbr-default"] = replace(link, ports=frozenset({"vnet0"}))
    assert settle(machine, wanted()) == {
        "pvcbr-default": "vnet0 is still attached to pvcbr-default"
    }
    assert clean_up(FakeFabric(machine), True, "n1") == (
        "bridge pvcbr-default",
        "the namespace",
        "vnet0 is still attached to pvcbr-default",
    )


def test_forwarding_on_the_machine_itself_is_for_nat_alone_and_put_back() -> None:
    machine = host_machine()
    settle(machine, wanted(network(nat=False), place=HOST), namespaced=False)
    assert machine.before == {}
    settle(machine, wanted(network(), place=HOST), namespaced=False)
    assert machine.sysctls["net/ipv4/ip_forward"] == "1"
    assert machine.sysctls["net/bridge/bridge-nf-call-iptables"] == "1"
    settle(machine, wanted(network(nat=False), place=HOST), namespaced=False)
    assert machine.sysctls["net/ipv4/ip_forward"] == "0" and machine.before == {}


def test_forwarding_that_was_on_stays_on() -> None:
    machine = host_machine()
    machine.sysctls["net/ipv4/ip_forward"] = "1"
    settle(machine, wanted(network(), place=HOST), namespaced=False)
    clean_up(FakeFabric(machine), False, "n1")
    assert machine.sysctls["net/ipv4/ip_forward"] == "1"


def test_a_namespace_of_somebody_else_is_used_and_left() -> None:
    machine = Machine(namespace=True)
    settle(machine, ONE)
    assert clean_up(FakeFabric(machine), True, "n1") == ()
    assert machine.exists and set(machine.links) == {"lo"}


def test_a_namespace_with_something_foreign_in_it_is_left() -> None:
    machine = settled(ONE)
    machine.links["eth7"] = replace(ETH0, name="eth7")
    assert clean_up(FakeFabric(machine), True, "n1") == ("the namespace",)
    assert set(machine.links) == {"lo", "eth7"}


def test_a_kernel_without_a_setting_needs_none() -> None:
    machine = settled(ONE)
    del machine.sysctls["net/bridge/bridge-nf-call-iptables"]
    assert steps(machine, ONE) == []


def test_what_one_bridge_refuses_does_not_stop_another() -> None:
    machine = Machine(namespace=True, exists=False, links={})
    want = wanted(network(), network("lab", "10.65.0.0/24"))
    settle(machine, wanted())
    script = Script()
    script.fails["put_bridge"] = 1
    found = converge(FakeFabric(machine, script), True, want, "n1")
    assert "as the script wants" in found.of("pvcbr-default") and not found.of("pvcbr-lab")
    assert set(machine.servers) == {"pvcbr-lab"}
    assert settle(machine, want) == {}


@pytest.mark.parametrize("verb", ["links", "servers", "ruleset", "sysctl", "load_ruleset"])
def test_what_the_machine_refuses_altogether_concerns_every_network(verb: str) -> None:
    script = Script()
    script.fails[verb] = 1
    machine = Machine(namespace=True, exists=False, links={})
    found = converge(FakeFabric(machine, script), True, ONE, "n1")
    assert f"{verb}: as the script wants" in found.of("pvcbr-default")
    assert settle(machine, ONE) == {}


class Stubborn(FakeFabric):
    """Says yes and does nothing."""

    def put_bridge(self, name: str, mark: str, mac: str, mtu: int, address: str) -> None:
        self.calls.append("put_bridge")

    def run_server(self, *words: object, **more: object) -> None:
        self.calls.append("run_server")


def test_a_machine_that_lies_is_found_out() -> None:
    found = converge(Stubborn(Machine(namespace=True)), True, ONE, "n1")
    assert "does not stay as it was set: set up bridge" in found.of("pvcbr-default")


POOL = (
    network(),
    network("lab", "10.65.0.0/24", nat=False),
    network("bare", "", nat=False),
    network("a-long-name-of-a-network", "10.66.0.0/16"),
)
worlds = st.builds(
    lambda rows, vms: wanted(*rows, vms=tuple(vms)),
    st.lists(st.sampled_from(POOL), unique_by=lambda row: row.name),
    st.lists(
        st.builds(
            lambda number, on: vm(f"vm{number}", f"{mac(number)}@{on}"),
            st.integers(0, 5),
            st.sampled_from(["default", "lab", "bare"]),
        ),
        unique_by=lambda row: row.name,
    ),
)


@settings(max_examples=150, deadline=None)
@given(worlds, worlds)
def test_after_its_steps_the_difference_is_empty(before: Wanted, after: Wanted) -> None:
    machine = settled(before)
    assert settle(machine, after) == {}
    assert steps(machine, after) == []
    assert set(machine.servers) == set(after.servers)
    assert set(machine.links) - {"lo"} == set(after.bridges)
    assert clean_up(FakeFabric(machine), True, "n1") == ()
    assert machine.texts == {} and not machine.exists


@settings(max_examples=150, deadline=None)
@given(worlds, worlds, st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=6))
def test_deaths_at_any_moment_are_healed(
    before: Wanted, after: Wanted, deaths: list[tuple[int, bool]]
) -> None:
    machine = settled(before)
    machine.links["eth7"] = replace(ETH0, name="eth7")
    for number, (calls, early) in enumerate(deaths):
        script = Script(killed_in=calls, killed_before=early)
        try:
            converge(FakeFabric(machine, script), True, (before, after)[number % 2], "n1")
        except Killed:
            continue
    assert settle(machine, after) == {}
    assert steps(machine, after) == []
    assert machine.links["eth7"] == replace(ETH0, name="eth7")
    del machine.links["eth7"]
    assert clean_up(FakeFabric(machine), True, "n1") == ()


@settings(max_examples=50, deadline=None)
@given(worlds)
def test_a_death_between_making_and_marking_a_bridge_is_healed(want: Wanted) -> None:
    machine = settled(wanted())
    for bridge in want.bridges.values():
        unmarked = Link(bridge.name, "bridge", "", own_mac(bridge.name), 1500, False, frozenset())
        machine.links[bridge.name] = unmarked
    assert settle(machine, want) == {}
    for bridge in want.bridges.values():
        machine.links[bridge.name] = replace(machine.links[bridge.name], alias="")
    assert clean_up(FakeFabric(machine), True, "n1") == ()


def test_left_over_names_everything_of_ours() -> None:
    machine = settled(ONE)
    assert left_over(observe(FakeFabric(machine), True)) == (
        "bridge pvcbr-default",
        "server of pvcbr-default",
        "setting net/bridge/bridge-nf-call-arptables",
        "setting net/bridge/bridge-nf-call-iptables",
        "setting net/ipv4/ip_forward",
        "table inet pvc",
        "the namespace",
    )

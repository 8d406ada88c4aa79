"""One network over several nodes, on this machine: guests reach each other, each node answers its
own, a guest keeps what it has when it moves, and nodes come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from services.network.converge import clean_up
from services.network.core.overlay import vni_of
from services.network.drivers import namespace as ns
from tests.network.benches import run, run_in
from tests.network.cluster import NodeCluster, reaches
from tests.network.worlds import mac, network, vm

pytestmark = pytest.mark.real

BRIDGE = "pvcbr-default"


@pytest.fixture
def three() -> Iterator[NodeCluster]:
    cluster = NodeCluster(3)
    try:
        yield cluster
    finally:
        cluster.close()


def begun(cluster: NodeCluster, *guests: str) -> list[str]:
    """A network, a VM for each of "a@n1", and a namespace for it there with what it is given."""
    row = network()
    row.meta.uid = "uid-default"
    cluster.put(cluster.store, row)
    placed = [guest.split("@") for guest in guests]
    for number, (name, node) in enumerate(placed, 1):
        cluster.put(cluster.store, vm(name, mac(number)))
        cluster.place(name, node)
    cluster.settle()
    spaces = [
        cluster[node].plug(BRIDGE, name, mac(number))
        for number, (name, node) in enumerate(placed, 1)
    ]
    for space in spaces:
        cluster.set_up(space)
    return spaces


def device(cluster: NodeCluster) -> str:
    return f"pvcvx-{vni_of(cluster.network())}"


def test_guests_on_three_nodes_are_on_one_network(three: NodeCluster) -> None:
    a, b, c = begun(three, "a@n1", "b@n2", "c@n3")
    at = three.addresses()
    assert len(set(at.values())) == 3
    assert reaches(a, at["b"]) and reaches(b, at["c"]) and reaches(c, at["a"])
    status = three.network().status
    assert (status.mtu, status.why) == (1450, "")
    assert all(part.ready and part.mtu == 1450 for part in status.nodes.values())
    assert set(status.nodes) == {"n1", "n2", "n3"}
    whole = ("-M", "do", "-s", str(1450 - 28))
    assert reaches(a, at["b"], *whole) and not reaches(a, at["b"], "-M", "do", "-s", "1423")


def test_every_node_answers_its_own_guests_alone(three: NodeCluster) -> None:
    a, b, _ = begun(three, "a@n1", "b@n2", "c@n3")
    heard = {node: leases(three, node) for node in three.nodes}
    assert heard == {"n1": {mac(1)}, "n2": {mac(2)}, "n3": {mac(3)}}
    assert (
        run_in(b, "busybox", "nslookup", "-type=a", "a.default.pvc", "10.64.0.1").count(
            three.addresses()["a"]
        )
        == 1
    )
    gateway = three["n1"].ip("link", "show", BRIDGE)[0]["address"]
    assert {three[node].ip("link", "show", BRIDGE)[0]["address"] for node in three.nodes} == {
        gateway
    }
    three["n1"].ip("link", "set", BRIDGE, "down")
    run("ip", "-n", a, "neighbor", "flush", "dev", "eth0")
    assert not reaches(a, "10.64.0.1"), "another node's gateway answered"


def leases(cluster: NodeCluster, node: str) -> set[str]:
    return {lease.mac for lease in cluster[node].fabric.leases(BRIDGE)}


def test_a_guest_whose_server_is_down_is_answered_by_no_other(three: NodeCluster) -> None:
    begun(three, "a@n1")
    three["n1"].fabric.stop_server(BRIDGE)
    guest = three["n1"].plug(BRIDGE, "late", mac(9))
    three.put(three.store, vm("late", mac(9)))
    three.place("late", "n2")
    three["n2"].step()
    three["n3"].step()
    words = ["-i", "eth0", "-f", "-q", "-n", "-t", "2", "-T", "1", "-s", "/bin/true"]
    with pytest.raises(AssertionError, match="no lease"):
        run_in(guest, "busybox", "udhcpc", *words)


def test_a_guest_that_moves_keeps_address_gateway_and_connections(three: NodeCluster) -> None:
    a, b = begun(three, "a@n1", "b@n2")
    at = three.addresses()
    assert reaches(b, at["a"]) and reaches(a, "10.64.0.1")
    before = neighbor(a)
    run("ip", "-n", three["n1"].bridges, "link", "set", "tapa", "netns", three["n3"].bridges)
    run("ip", "-n", three["n3"].bridges, "link", "set", "tapa", "master", BRIDGE, "up")
    # What an emulator does when it takes over.
    run_in(a, "busybox", "arping", "-U", "-c", "2", "-I", "eth0", at["a"])
    assert reaches(b, at["a"]) and reaches(a, at["b"])
    assert reaches(a, "10.64.0.1") and neighbor(a) == before
    three.place("a", "n3")
    three.settle()
    assert three.addresses() == at
    assert three.ask_dhcp(a)["ip"] == at["a"]
    three.settle()
    assert mac(1) in leases(three, "n3")


def neighbor(guest: str) -> str:
    (found,) = json.loads(run("ip", "-n", guest, "-j", "neighbor", "show", "10.64.0.1"))
    return str(found["lladdr"])


def test_nodes_come_and_go(three: NodeCluster) -> None:
    """Those that left are flooded to no more, those whose death is proven neither."""
    begun(three, "a@n1", "b@n2")
    name = device(three)
    assert three["n1"].flooded(name) == {"192.0.2.2", "192.0.2.3"}
    three.leave("n3")
    three.settle("n1", "n2")
    assert three["n1"].flooded(name) == {"192.0.2.2"}
    assert set(three.network().status.nodes) == {"n1", "n2"}
    three.leave("n2")
    three.settle("n1")
    assert name not in links(three["n1"])
    status = three.network().status
    assert (status.mtu, set(status.nodes)) == (1500, {"n1"})
    three.arrive(three["n2"])
    three.settle("n1", "n2")
    assert three["n1"].flooded(name) == {"192.0.2.2"}


def links(node: Any) -> set[str]:
    return {row["ifname"] for row in node.ip("link", "show")}


def test_what_somebody_changes_is_put_right(three: NodeCluster) -> None:
    begun(three, "a@n1", "b@n2")
    name, node = device(three), three["n1"]
    three.settle()
    revision = three.store.snapshot().revision
    run_in(
        node.bridges, "bridge", "fdb", "del", "00:00:00:00:00:00", "dev", name, "dst", "192.0.2.2"
    )
    run("ip", "-n", node.bridges, "link", "set", name, "nomaster")
    run_in(node.bridges, "nft", "delete", "table", "bridge", "pvc")
    node.step()
    assert node.flooded(name) == {"192.0.2.2", "192.0.2.3"}
    assert "pvc" in run_in(node.bridges, "nft", "list", "tables", "bridge")
    (link,) = node.ip("link", "show", name)
    assert link["master"] == BRIDGE
    run("ip", "-n", node.bridges, "link", "del", name)
    node.step()
    assert name in links(node)
    three.settle()
    assert three.store.snapshot().revision == revision


def test_nothing_is_left_on_any_node(three: NodeCluster) -> None:
    begun(three)
    for node in three.nodes.values():
        assert ns.within(node.space, lambda: clean_up(node.fabric, False, node.name)) == ()  # noqa: B023
        assert links(node) == {"lo", "mesh0"}


def test_a_network_that_is_removed_goes_on_every_node_before_its_row(three: NodeCluster) -> None:
    from services.mesh import rows

    begun(three)
    row = rows.copied(three.network())
    row.meta.delete_time.CopyFrom(three.clock.now())
    three.put(three.store, row)
    three["n1"].step()
    assert set(three.network().status.nodes) == {"n2", "n3"}
    three["n2"].step()
    three["n3"].step()
    assert three.network().status.nodes == {}
    three["n1"].step()
    assert three.store.snapshot().named("networks/default") is None
    assert all(links(node) == {"lo", "mesh0"} for node in three.nodes.values())


@pytest.mark.parametrize("six", [False, True])
def test_bridges_in_a_namespace_are_carried_by_the_machines_own_network(six: bool) -> None:
    two = NodeCluster(2, inner=True, six=six)
    try:
        a, _ = begun(two, "a@n1", "b@n2")
        size = str(1430 - 28) if six else str(1450 - 28)
        assert reaches(a, two.addresses()["b"], "-M", "do", "-s", size)
        assert device(two) in links(two["n1"])
        revision = two.store.snapshot().revision
        two.settle()
        two.settle()
        assert two.store.snapshot().revision <= revision + 2, "leases, and nothing else"
    finally:
        two.close()

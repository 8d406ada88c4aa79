"""Three real nodes: what an administrator sees of them, and what they stand."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lab import heartbeat
from lab.cluster import founding, inside, life, orders
from lab.cluster.site import Lab, LabError, Node
from lab.guests import Guests
from pvc.coordinator.v1 import cluster_pb2
from pvc_client.errors import NotFound, PvcError, Unavailable

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
SOON_S = 120.0
"""For what happens in seconds where nothing else goes on."""


def pool_of(node: Node) -> str:
    return "local" if node.number == 1 else f"local-{node.name}"


def wait(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < end, f"{what}: not after {SOON_S} s"
        time.sleep(0.1)


def emulators(lab: Lab, node: Node) -> list[str]:
    """The processes of the node's VMs."""
    text = inside.run(node, ["ps", "-C", "qemu-system-x86", "-o", "pid=", "--no-headers"])
    return text.split()


def programs(node: Node) -> str:
    """The command lines of all that runs in the node; nothing while it is off."""
    try:
        return inside.run(node, ["ps", "-eo", "args"])
    except LabError:
        return ""


def test_nodes_are_machines_of_their_own(lab: Lab) -> None:
    with founding.client(lab.nodes[0]) as cluster:
        rows = {row.name: row for row in cluster.nodes.list()}
    assert sorted(rows) == ["nodes/n1", "nodes/n2", "nodes/n3"]
    assert {row.decision.state for row in rows.values()} == {cluster_pb2.NODE_STATE_ONLINE}
    assert len({row.status.boot_id for row in rows.values()}) == 3
    for node in lab.nodes:
        row = rows[f"nodes/{node.name}"]
        assert row.status.boot_id == node.boot_id
        assert row.status.emulator_version.startswith("10.")
        assert row.status.memory_for_vms_mib == 2048
        assert inside.run(node, ["hostname"]).strip() == node.name
        assert float(inside.run(node, ["cat", "/proc/uptime"]).split()[0]) < 300


def test_a_vm_boots_on_every_node(lab: Lab, guests: Guests) -> None:
    for node in lab.nodes:
        guests.make(f"own-{node.name}", pool_of(node), node)
    guests.make("mover", "shared")
    for node in lab.nodes:
        guests.await_ready(f"own-{node.name}")
        assert guests.node_of(f"own-{node.name}") == node.name
    guests.await_ready("mover")


def test_guests_of_different_nodes_reach_each_other(lab: Lab, guests: Guests) -> None:
    other = guests.address_of("own-n3")
    guests.type("own-n1", f"ping -c 20 -W 1 {other}")
    wait(lambda: f"bytes from {other}" in guests.console("own-n1"), "an answer")


def test_a_vm_takes_its_own_disk_along(lab: Lab, guests: Guests) -> None:
    """While it runs, while it is off, and with what its guest wrote in between."""
    vms, volumes = guests.cluster.vms, guests.cluster.volumes
    with pytest.raises(PvcError, match="--copy-volumes"):
        vms.migrate("own-n1", "n2").result(SOON_S)
    _marks(guests, "own-n1", "first", 130000)
    vms.migrate("own-n1", "n2", copy_volumes=True).result(2 * SOON_S)
    guests.await_node("own-n1", "n2")
    (disk,) = vms.get("own-n1").spec.disks
    assert disk.volume == "pools/local-n2/volumes/own-n1"
    assert not volumes.get("local-n2/own-n1").status.parent, "it stands on nothing there"
    _reads(guests, "own-n1", "first", 130000)
    _marks(guests, "own-n1", "second", 130001)
    wait(lambda: not vms.get("own-n1").decision.left_volumes, "the removal of what it left")
    with pytest.raises(NotFound):
        volumes.get("local/own-n1")
    guests.cluster.vms.stop("own-n1").result(SOON_S)
    vms.move("own-n1", "n1", copy_volumes=True).result(2 * SOON_S)
    vms.start("own-n1").result(SOON_S)
    guests.await_ready("own-n1")
    assert guests.node_of("own-n1") == "n1"
    _reads(guests, "own-n1", "first", 130000)
    _reads(guests, "own-n1", "second", 130001)


def _marks(guests: Guests, vm: str, word: str, block: int) -> None:
    """Has the guest write a word to its disk, past what it boots from."""
    write = f"echo {word} | dd of=/dev/sda bs=512 seek={block} conv=notrunc,fsync"
    guests.type(vm, f"{write} && echo wrote-{word} | sed s/wrote/has-written/")
    wait(lambda: f"has-written-{word}" in guests.console(vm), "the guest's write")


def _reads(guests: Guests, vm: str, word: str, block: int) -> None:
    guests.type(vm, f"dd if=/dev/sda bs=512 skip={block} count=1 | sed s/{word}/read-{word}-back/")
    wait(lambda: f"\nread-{word}-back" in guests.console(vm), f"the word {word}")


def test_a_running_vm_moves_and_loses_no_packet(lab: Lab, guests: Guests) -> None:
    source = guests.node_of("mover")
    target = next(node.name for node in lab.nodes if node.name != source)
    with heartbeat.listening(lab) as heard:
        guests.type("mover", f"{heartbeat.COMMAND} &")
        wait(lambda: bool(heard.since(0)), "heartbeats")
        began = time.time()
        guests.cluster.vms.migrate("mover", target).result(SOON_S)
        guests.await_node("mover", target)
        wait(lambda: heard.last_s > time.time() - 1, "heartbeats from there")
        seen = heartbeat.count(heard.since(began))
    assert seen.lost == 0
    assert "guest=mover" not in inside.run(lab.node(source), ["ps", "-eo", "args"])


def test_a_killed_service_comes_back_and_vms_do_not_notice(lab: Lab, guests: Guests) -> None:
    node = lab.nodes[1]
    before = emulators(lab, node)
    assert before
    for service in ("compute", "network", "storage"):
        pid = orders.services(node)[service]["pid"]
        orders.services(node, "kill", service)
        wait(lambda s=service, p=pid: orders.services(node)[s]["pid"] not in (0, p), service)
    wait(lambda: answers(guests), "storage answers")
    guests.make("after", pool_of(node), node)
    guests.remove("after")
    assert emulators(lab, node) == before


def test_a_node_without_power_is_gone_at_once_and_boots_anew(lab: Lab, guests: Guests) -> None:
    node = lab.nodes[2]
    before = node.boot_id
    orders.chassis(lab, "kill", [node.name])
    with pytest.raises(LabError):
        orders.services(node)
    orders.chassis(lab, "on", [node.name])
    assert node.boot_id != before
    founding.wait_online(lab.nodes[0], lab.nodes)
    guests.await_node(f"own-{node.name}", node.name)
    own = f"-name guest=own-{node.name},"
    wait(lambda: programs(node).count(own) == 1, "its VM runs again, once")


def test_a_node_that_hangs_or_is_cut_off_comes_back(lab: Lab) -> None:
    """Its watchdog resets it, or its controller switches it off: then somebody switches it on."""
    for node, verb, undo in ((lab.nodes[0], "pause", "resume"), (lab.nodes[2], "cut", "heal")):
        with founding.client(lab.nodes[1]) as cluster:
            orders.chassis(lab, verb, [node.name])
            wait(lambda n=node: not is_online(cluster, n), f"{node.name} is missed")
            orders.chassis(lab, undo, [node.name])
            wait(lambda n=node: is_online_or_switched_on(cluster, n), f"{node.name} is back")


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_vms_of_a_dead_node_run_elsewhere(lab: Lab, leads: bool) -> None:
    """Its controller is as dead as the node: that it is dead is proven by its watchdog."""
    victim, witness = bring_mover_to(lab, leads)
    orders.chassis(lab, "kill", [victim.name])
    with founding.client(witness) as cluster:
        guests = Guests.on(lab, cluster)
        wait(lambda: guests.node_of("mover") not in ("", victim.name), "it runs elsewhere")
        proof = cluster.nodes.get(victim.name).decision.proof
        assert proof.means == cluster_pb2.PROOF_MEANS_WATCHDOG, proof
        guests.await_node(f"own-{witness.name}", witness.name)
        orders.chassis(lab, "on", [victim.name])
        founding.wait_online(witness, lab.nodes)
    assert "guest=mover" not in inside.run(victim, ["ps", "-eo", "args"])


def bring_mover_to(lab: Lab, leads: bool) -> tuple[Node, Node]:
    """The node that is to die, which has the VM, and another that is to see it."""
    with founding.client(lab.nodes[0]) as cluster:
        guests = Guests.on(lab, cluster)
        wait(lambda: bool(cluster.status().leader and guests.node_of("mover")), "all is at rest")
        leader = cluster.status().leader.removeprefix("nodes/")
        victim = next(node for node in lab.nodes if (node.name == leader) == leads)
        if guests.node_of("mover") != victim.name:
            cluster.vms.move("mover", victim.name).result(SOON_S)
            guests.await_node("mover", victim.name)
    return victim, next(node for node in lab.nodes if node != victim)


def test_the_lab_is_found_again_after_its_chassis_died(lab: Lab, guests: Guests) -> None:
    life.end_chassis(lab, gently=False)
    assert not orders.answers(lab)
    life.switch_on(lab)
    founding.found(lab, lambda _: None)
    wait(lambda: all(guests.node_of(f"own-{n.name}") == n.name for n in lab.nodes), "VMs run")


def answers(guests: Guests) -> bool:
    try:
        return bool(list(guests.cluster.volumes.list()))
    except Unavailable:
        return False


def is_online_or_switched_on(cluster: founding.Cluster, node: Node) -> bool:
    """Does nothing to a node that has power."""
    orders.chassis(node.lab, "on", [node.name])
    return is_online(cluster, node)


def is_online(cluster: founding.Cluster, node: Node) -> bool:
    row = cluster.nodes.get(node.name)
    return bool(row.decision.state == cluster_pb2.NODE_STATE_ONLINE)

"""What a cluster of three nodes takes for its deeds: `python -m bench.cluster [PART…]`, all parts
without a word. Starts a lab of its own and ends it again; takes some ten minutes."""

from __future__ import annotations

import sys
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, Line, check, environment, say, table
from lab import heartbeat
from lab.cluster import founding, inside, life, orders
from lab.cluster.site import Lab, Node
from lab.guests import Guests
from lab.story.timeline import Moment, Timeline
from services.compute.drivers.daemon_settings import PKI_PLACE, Peers

NAME = "bench"
POOL = "shared"
VMS = ("vm1", "vm2", "vm3", "vm4", "vm5", "vm6")
KILLS, LEADER_KILLS, MOVES, BUSY_MOVES = 10, 3, 6, 60
TIMEOUT_S = 120.0
REST_S = 30.0
PLAIN = "plain"
URI = "qemu+unix:///system?socket=/var/lib/pvc/libvirt/run/libvirt-sock"
BUSY = (
    "n=0; while :; do dd if=/dev/urandom of=/tmp/a bs=64k count=128 2>/dev/null; cp /tmp/a /tmp/b; "
    "cmp /tmp/a /tmp/b || echo dam''aged; n=$((n+1)); echo busy-$n; done &"
)
"""Writes memory all the time and looks whether it reads what it wrote."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A lab that works, with its VMs."""

    lab: Lab

    def guests(self, node: Node) -> Guests:
        """By that node's door; close its cluster."""
        return Guests.on(self.lab, founding.client(node))

    def leader(self) -> Node:
        """Who leads."""
        with founding.client(self.lab.nodes[0]) as cluster:
            return self.lab.node(cluster.status().leader.removeprefix("nodes/"))


def main(words: Sequence[str]) -> int:
    """Measures the parts that are named; the exit status."""
    lab = Lab(NAME)
    life.take_down(lab)
    print(environment(), flush=True)
    lines: list[Line] = []
    try:
        began = time.monotonic()
        life.switch_on(lab)
        founding.found(lab, say)
        lines.append(_line("make lab, once installed", "s", [time.monotonic() - began], "30"))
        ground = Ground(lab)
        _boot(ground)
        for name in words or PARTS:
            say(f"{name}, load {_load()}")
            lines += PARTS[name](ground)
            print(table(lines), flush=True)
    finally:
        life.take_down(lab)
    print(f"\n{table(lines)}\n\n{environment()}")
    return 0


def kills(ground: Ground) -> list[Line]:
    """Nodes that do not lead lose their power, their controllers too."""
    return _losses(ground, "node killed", KILLS, leads=False, aim="15")


def leaders(ground: Ground) -> list[Line]:
    """The node that leads loses its power."""
    return _losses(ground, "leader's node killed", LEADER_KILLS, leads=True, aim="20")


def moves(ground: Ground) -> list[Line]:
    """An idle guest that sends heartbeats moves, by turns with a foreign domain moved by virsh."""
    guests = ground.guests(ground.lab.nodes[0])
    ours, theirs, gaps, pauses, lost = [], [], [], [], 0
    plain_at = _plain(ground, guests)
    with heartbeat.listening(ground.lab) as heard:
        guests.type("vm1", f"{heartbeat.COMMAND} &")
        for _ in range(MOVES):
            time.sleep(2)
            since = time.time()
            ours.append(_moved(ground, guests, "vm1"))
            time.sleep(2)
            seen = heartbeat.count(heard.since(since))
            check(seen.beats > 100, "the guest is heard after its move")
            gaps.append(seen.longest_gap_s * 1000)
            lost += seen.lost
            pauses.append(float(guests.cluster.vms.get("vm1").status.migration.downtime_ms))
            took_s, plain_at = _moved_plainly(ground, plain_at)
            theirs.append(took_s)
    inside.run(plain_at, ["virsh", "-c", URI, "destroy", PLAIN])
    inside.run(plain_at, ["virsh", "-c", URI, "undefine", PLAIN])
    guests.cluster.close()
    return [
        Line("live migration, idle guest", "s", Figure(tuple(ours)), "virsh migrate --live --p2p",
             Figure(tuple(theirs)), "+0.5"),
        _line("  longest gap between heartbeats", "ms", gaps, "350"),
        _line("  pause, as the emulator tells", "ms", pauses),
        _line("  heartbeats lost, all moves", "", [lost], "0"),
    ]  # fmt: skip


def busy(ground: Ground) -> list[Line]:
    """A guest that writes and checks its memory moves time after time."""
    guests = ground.guests(ground.lab.nodes[0])
    guests.type("vm2", BUSY)
    took, done = [], 0
    for number in range(BUSY_MOVES):
        took.append(_moved(ground, guests, "vm2"))
        before, done = done, _rounds(guests, done)
        check(done > before, f"the guest goes on after move {number + 1}")
    check("damaged" not in guests.console("vm2"), "the guest reads what it wrote")
    guests.cluster.close()
    return [_line(f"live migration, busy guest, {BUSY_MOVES} in a row, none damaged", "s", took)]


def rest(ground: Ground) -> list[Line]:
    """What is written while nothing happens."""
    with founding.client(ground.lab.nodes[0]) as cluster:
        before = cluster.status().revision
        time.sleep(REST_S)
        written = cluster.status().revision - before
    each = written / REST_S / len(ground.lab.nodes)
    return [_line("commits at rest, per second and node", "", [each], "1")]


PARTS: Mapping[str, Callable[[Ground], list[Line]]] = {
    "rest": rest,
    "moves": moves,
    "busy": busy,
    "kills": kills,
    "leaders": leaders,
}


def _boot(ground: Ground) -> None:
    guests = ground.guests(ground.lab.nodes[0])
    for vm in VMS:
        guests.make(vm, POOL)
    for vm in VMS:
        guests.await_ready(vm)
    guests.cluster.close()


def _moved(ground: Ground, guests: Guests, vm: str) -> float:
    """Seconds from the request to the end of the operation."""
    here = guests.node_of(vm)
    target = next(node.name for node in ground.lab.nodes if node.name != here)
    began = time.monotonic()
    guests.cluster.vms.move(vm, target).result(TIMEOUT_S)
    took_s = time.monotonic() - began
    guests.await_node(vm, target)
    return took_s


def _rounds(guests: Guests, before: int) -> int:
    """The last round that the busy guest told of, once it has told of another."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        told = [word for word in guests.console("vm2").split() if word.startswith("busy-")]
        numbers = [int(word[5:]) for word in told if word[5:].isdigit()]
        if numbers and max(numbers) > before:
            return max(numbers)
        time.sleep(0.2)
    return before


def _plain(ground: Ground, guests: Guests) -> Node:
    """Makes a domain that PVC does not know, alike a VM of its; where it is."""
    guests.cluster.volumes.clone(f"{POOL}/tiny", f"{POOL}/{PLAIN}").result(TIMEOUT_S)
    image = guests.cluster.volumes.get(f"{POOL}/{PLAIN}").status.path
    node = ground.lab.node(guests.node_of("vm3"))
    root = ET.fromstring(inside.run(node, ["virsh", "-c", URI, "dumpxml", "vm3", "--migratable"]))
    _found(root, "name").text, _found(root, "uuid").text = PLAIN, str(uuid.uuid4())
    for gone in ("metadata", "devices/interface", "devices/serial", "devices/console"):
        parent = root if "/" not in gone else _found(root, "devices")
        for one in parent.findall(gone.rpartition("/")[2]):
            parent.remove(one)
    _found(root, "devices/disk/source").set("file", image)
    path = node.run / "plain.xml"
    path.write_text(ET.tostring(root, encoding="unicode"))
    inside.run(node, ["virsh", "-c", URI, "define", "/run/plain.xml"])
    inside.run(node, ["virsh", "-c", URI, "start", PLAIN])
    time.sleep(10)  # its guest boots
    return node


def _moved_plainly(ground: Ground, source: Node) -> tuple[float, Node]:
    target = next(node for node in ground.lab.nodes if node != source)
    there, how = Peers().uri(target.address, PKI_PLACE), f"tcp://{target.address}"
    words = ["virsh", "-c", URI, "migrate", PLAIN, there, "--live", "--p2p", "--persistent",
             "--undefinesource", "--unsafe", "--tls", "--migrateuri", how]  # fmt: skip
    began = time.monotonic()
    inside.run(source, words)
    return time.monotonic() - began, target


def _found(root: ET.Element, path: str) -> ET.Element:
    found = root.find(path)
    assert found is not None, path
    return found


def _losses(ground: Ground, what: str, times: int, *, leads: bool, aim: str) -> list[Line]:
    firsts, alls = [], []
    for _ in range(times):
        leader = ground.leader()
        victim = leader if leads else next(n for n in ground.lab.nodes[::-1] if n != leader)
        first_s, all_s = _lost(ground, victim)
        firsts.append(first_s)
        alls.append(all_s)
        say(f"{what}: {first_s:.1f} s, all {all_s:.1f} s")
    return [
        _line(f"{what}: first VM started elsewhere", "s", firsts, aim),
        _line(f"{what}: all its VMs started", "s", alls),
    ]


def _lost(ground: Ground, victim: Node) -> tuple[float, float]:
    """From the cut of its power to the first and the last of its VMs running elsewhere."""
    witness = next(node for node in ground.lab.nodes if node != victim)
    guests = ground.guests(witness)
    hit = [vm for vm in VMS if guests.node_of(vm) == victim.name]
    for vm in [vm for vm in VMS if vm not in hit][: max(2 - len(hit), 0)]:
        guests.cluster.vms.move(vm, victim.name).result(TIMEOUT_S)
        guests.await_node(vm, victim.name)
        hit.append(vm)
    timeline = Timeline(guests.cluster)
    try:
        began = time.monotonic()
        orders.chassis(ground.lab, "kill", [victim.name])
        ends = [timeline.wait(_elsewhere(vm, victim), TIMEOUT_S, began).time_s for vm in hit]
    finally:
        timeline.close()
    orders.chassis(ground.lab, "on", [victim.name])
    founding.wait_online(witness, ground.lab.nodes)
    guests.cluster.close()
    time.sleep(5)
    return min(ends) - began, max(ends) - began


def _elsewhere(vm: str, victim: Node) -> Callable[[Moment], bool]:
    def seen(moment: Moment) -> bool:
        there = moment.node not in ("", victim.name)
        return moment.subject == f"vms/{vm}" and moment.state == "RUNNING" and there

    return seen


def _line(what: str, unit: str, samples: Sequence[float], aim: str = "") -> Line:
    return Line(what, unit, Figure(tuple(samples)), aim=aim)


def _load() -> str:
    return Path("/proc/loadavg").read_text().split()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

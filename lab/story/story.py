"""What the lab's demo does, step by step: through the client, and with the lab's power switches
where a node is to die."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lab import heartbeat
from lab.cluster import founding, orders
from lab.cluster.site import Lab, LabError, Node
from lab.demo.screen import Screen
from lab.guests import Guests
from lab.story.timeline import Moment, Timeline
from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc_client import Cluster

VMS = tuple(f"vm{number}" for number in range(1, 7))
COUNTING = VMS[0]
POOL = "shared"
MOVE_TIMEOUT_S = 120.0
RECOVERY_TIMEOUT_S = 120.0
HEARTBEATS_S = 2.0
"""How long heartbeats are counted before and after a move."""


@dataclass(slots=True)
class Story:
    """The demo's steps on a lab that works."""

    lab: Lab
    screen: Screen
    times: list[tuple[str, str]] = field(default_factory=list)
    """What the table at the end shows."""

    def tell(self) -> None:
        """All of it."""
        with founding.client(self.lab.nodes[0]) as cluster:
            self._nodes(cluster)
            self._boot(cluster)
            self._migrate(cluster)
        self._lose("a node", leader=False)
        self._lose("the leader", leader=True)
        with founding.client(self.lab.nodes[0]) as cluster:
            self._balance(cluster)
        self._table()

    def _nodes(self, cluster: Cluster) -> None:
        leader = cluster.status().leader.removeprefix("nodes/")
        for row in cluster.nodes.list():
            facts, name = row.status, row.name.removeprefix("nodes/")
            leads = ", leads" if name == leader else ""
            self.screen.say(
                "node",
                f"{name}: {facts.memory_for_vms_mib} MiB for VMs, {facts.accelerator.upper()}, "
                f"QEMU {facts.emulator_version}{leads}",
            )

    def _boot(self, cluster: Cluster) -> None:
        guests, began = Guests.on(self.lab, cluster), time.monotonic()
        for vm in VMS:
            guests.remove(vm)
            guests.make(vm, POOL)
            self.screen.say("vm", f"{vm} runs on {guests.node_of(vm)}")
        self.times.append((f"{len(VMS)} VMs made and running", _s(time.monotonic() - began)))
        for vm in VMS:
            guests.await_ready(vm)
        self.times.append((f"{len(VMS)} guests up", _s(time.monotonic() - began)))
        self.screen.say("guests", "all are up")

    def _migrate(self, cluster: Cluster) -> None:
        guests = Guests.on(self.lab, cluster)
        source = guests.node_of(COUNTING)
        target = next(node.name for node in self.lab.nodes if node.name != source)
        with heartbeat.listening(self.lab) as heard:
            guests.type(COUNTING, f"{heartbeat.COMMAND} &")
            time.sleep(HEARTBEATS_S)
            self.screen.say("heartbeat", f"{COUNTING} sends one every {heartbeat.PERIOD_MS} ms")
            began_s, began = time.time(), time.monotonic()
            cluster.vms.migrate(COUNTING, target).result(MOVE_TIMEOUT_S, self._stage)
            took_s = time.monotonic() - began
            time.sleep(HEARTBEATS_S)
            seen = heartbeat.count(heard.since(began_s))
        guests.await_node(COUNTING, target)
        if not seen.beats:
            raise LabError(f"{COUNTING} came to {target} and was never heard of again")
        gap_ms = seen.longest_gap_s * 1000
        self.screen.say("migrate", f"{COUNTING} {source} → {target} in {_s(took_s)}")
        self.screen.say(
            "", f"{seen.beats} heartbeats, {seen.lost} lost, longest gap {gap_ms:.0f} ms"
        )
        self.times += [
            ("live migration, from request to end", _s(took_s)),
            ("its longest gap between heartbeats", f"{gap_ms:.0f} ms"),
            ("heartbeats lost", str(seen.lost)),
        ]

    def _lose(self, whom: str, leader: bool) -> None:
        """A node's power is cut, and its controller dead with it."""
        victim, witness = self._parts(leader)
        with founding.client(witness) as cluster:
            guests = Guests.on(self.lab, cluster)
            hit = [vm for vm in VMS if guests.node_of(vm) == victim.name]
            timeline = Timeline(cluster)
            try:
                began = time.monotonic()
                orders.chassis(self.lab, "kill", [victim.name])
                self.screen.say(
                    "power cut", f"{victim.name}, {whom}, with {', '.join(hit) or 'no VM'}"
                )
                self._follow(timeline, victim, hit, began, whom)
            finally:
                timeline.close()
            self._return(victim)

    def _follow(
        self, timeline: Timeline, victim: Node, hit: list[str], began: float, whom: str
    ) -> None:
        for state in ("UNKNOWN", "FENCING", "FENCED"):
            moment = timeline.wait(_node_is(victim, state), RECOVERY_TIMEOUT_S, began)
            self.screen.say("", f"{victim.name} {state} after {_s(moment.time_s - began)}")
        ends = []
        for vm in hit:
            moment = timeline.wait(_runs_elsewhere(vm, victim), RECOVERY_TIMEOUT_S, began)
            ends.append(moment.time_s - began)
            self.screen.say("vm", f"{vm} runs on {moment.node} after {_s(ends[-1])}")
        if ends:
            self.times.append((f"{whom} killed: first VM started elsewhere", _s(min(ends))))
            self.times.append((f"{whom} killed: all {len(ends)} VMs started", _s(max(ends))))

    def _return(self, node: Node) -> None:
        began = time.monotonic()
        orders.chassis(self.lab, "on", [node.name])
        founding.wait_online(self.lab.nodes[0], self.lab.nodes, RECOVERY_TIMEOUT_S)
        self.screen.say("return", f"{node.name} works again")
        self.times.append((f"{node.name} back after power-on", _s(time.monotonic() - began)))

    def _balance(self, cluster: Cluster) -> None:
        began = time.monotonic()
        cluster.balance(vm_pb2.NODE_SELECTOR_VMS).result(MOVE_TIMEOUT_S, self._stage)
        self.times.append(("balanced", _s(time.monotonic() - began)))
        decided = {row.name: row.decision.node for row in cluster.vms.list()}
        for node in self.lab.nodes:
            here = [vm for vm in VMS if decided[f"vms/{vm}"] == f"nodes/{node.name}"]
            self.screen.say("balance", f"{node.name}: {', '.join(here) or 'no VM'}")

    def _parts(self, leader: bool) -> tuple[Node, Node]:
        """Who is to die, and whose door is asked meanwhile."""
        with founding.client(self.lab.nodes[0]) as cluster:
            leads = cluster.status().leader.removeprefix("nodes/")
        others = [node for node in self.lab.nodes if node.name != leads]
        first = self.lab.node(leads)
        return (first, others[0]) if leader else (others[-1], first)

    def _stage(self, operation: operation_pb2.Operation) -> None:
        self.screen.progress(operation)

    def _table(self) -> None:
        width = max(len(what) for what, _ in self.times)
        print()
        for what, value in self.times:
            print(f"    {what:<{width}}  {value:>8}")


def _node_is(node: Node, state: str) -> Callable[[Moment], bool]:
    return lambda moment: (moment.subject, moment.state) == (f"nodes/{node.name}", state)


def _runs_elsewhere(vm: str, victim: Node) -> Callable[[Moment], bool]:
    def seen(moment: Moment) -> bool:
        here = moment.subject == f"vms/{vm}" and moment.state == "RUNNING"
        return here and moment.node not in ("", victim.name)

    return seen


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s"

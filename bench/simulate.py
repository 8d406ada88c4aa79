"""How far the coordinator's decisions carry, and how fast the simulator lives: `python -m
bench.simulate`. Everything happens in this process, and seconds are those of one processor."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from bench.figures import Figure, Line, say, table
from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideVm
from services.coordinator.core.world import World
from tests.simulator.seeds import run_seed

NODES, VMS_PER_NODE, RACK = 100, 100, 20
GROWTH = (3, 10, 30, 100, 300, 1000)
GROWTH_VMS_PER_NODE = 20
"""A thousand nodes with a hundred VMs each would take this machine's memory."""
NODE_MIB, VM_MIB = 512 * 1024, 2048
RUNS, SEEDS = 5, 40
NOW = Timestamp(seconds=1_800_000_000)


def node_row(number: int, state: cluster_pb2.NodeState.ValueType) -> cluster_pb2.Node:
    """A machine with room for twice its VMs."""
    row = cluster_pb2.Node(name=f"nodes/n{number}")
    row.meta.etag = "1"
    row.decision.state = state
    row.decision.boot_id = row.status.boot_id = f"boot-{number}"
    row.status.session = f"session-{number}"
    row.status.cpus, row.status.accelerator = 64, "kvm"
    row.status.memory_mib = row.status.memory_for_vms_mib = NODE_MIB
    row.spec.tags.append(f"rack-{number // RACK}")
    return row


def vm_row(number: int, node: str) -> vm_pb2.Vm:
    """A VM that runs there; without a node one that was just asked for."""
    row = vm_pb2.Vm(name=f"vms/v{number}")
    row.meta.etag = "1"
    row.spec.power, row.spec.power_request = vm_pb2.POWER_STATE_RUNNING, 1
    row.spec.memory.memory_mib, row.spec.cpu.vcpus = VM_MIB, 2
    row.spec.tags.append(f"app-{number // 10}")
    if number % 4 == 0:
        row.spec.placement.vm_rules.add(tag=f"app-{number // 10}", apart=True)
    row.spec.disks.add(id="root", volume=f"pools/shared/volumes/v{number}")
    if node:
        row.decision.node, row.decision.power = node, vm_pb2.POWER_STATE_RUNNING
        row.decision.power_request = row.status.power_request = 1
        row.status.state, row.status.node = vm_pb2.VM_STATE_RUNNING, node
        row.status.start_time.seconds = NOW.seconds - 60
    return row


def world(nodes: int, vms: int, homeless: bool = False, dead: int = 0) -> World:
    """dead: so many of the nodes were fenced, and their VMs are not recovered yet."""
    rows = [node_row(number, cluster_pb2.NODE_STATE_ONLINE) for number in range(nodes)]
    for row in rows[:dead]:
        _fence(row)
    guests = [vm_row(i, "" if homeless else rows[i % nodes].name) for i in range(vms)]
    return World(
        nodes={row.name: row for row in rows},
        vms={row.name: row for row in guests},
        present=frozenset(row.name for row in rows[dead:]),
        gone_s={row.name: 30.0 for row in rows[:dead]},
    )


def _fence(row: cluster_pb2.Node) -> None:
    decision = row.decision
    decision.state, decision.fences = cluster_pb2.NODE_STATE_FENCED, 1
    decision.lost_session = row.status.session
    decision.proof.means = cluster_pb2.PROOF_MEANS_POWER
    decision.proof.session = row.status.session


def rounds_s(make: Callable[[], World], expected: int, runs: int = RUNS) -> Figure:
    """Processor seconds of one round, some times over; checks how many VMs it places."""
    samples = []
    one = make()
    for _ in range(runs):
        began = time.process_time()
        plan = decide(NOW, one)
        samples.append(time.process_time() - began)
        placed = sum(isinstance(step, DecideVm) and bool(step.vm.decision.node) for step in plan)
        assert placed == expected, f"{placed} VMs were placed, and not {expected}"
    return Figure(tuple(samples))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the simulator lives."""

    seeds_per_s: float
    hours_per_s: float
    events_per_s: float


def pace(seeds: int = SEEDS) -> Pace:
    """On one processor, by its own time: what else the machine does does not count."""
    run_seed(0)
    began, simulated_s, events = time.process_time(), 0.0, 0
    for seed in range(seeds):
        result = run_seed(seed)
        simulated_s, events = simulated_s + result.simulated_s, events + result.events
    took_s = time.process_time() - began
    return Pace(seeds / took_s, simulated_s / 3600 / took_s, events / took_s)


def measure() -> Iterator[Line]:
    """The figures that have an aim."""
    now = pace()
    yield Line("simulated cluster-hours", "h/s", Figure((now.hours_per_s,)))
    yield Line("random stories", "1/s", Figure((now.seeds_per_s,)), aim=">= 50")
    vms = NODES * VMS_PER_NODE
    what = f"{NODES} nodes, {vms:,} VMs"
    quiet = rounds_s(lambda: world(NODES, vms), 0)
    yield Line(f"a round of deciding, all calm: {what}", "s", quiet, aim="<= 1")
    placing = rounds_s(lambda: world(NODES, vms, homeless=True), vms, runs=2)
    rates = tuple(vms / sample for sample in placing.samples)
    yield Line(f"VMs placed: {what}", "1/s", Figure(rates), aim=">= 1,000")
    lost = RACK * VMS_PER_NODE
    rack = rounds_s(lambda: world(NODES, vms, dead=RACK), lost, runs=3)
    yield Line(f"{RACK} nodes fail, {lost:,} VMs placed again: {what}", "s", rack, aim="<= 5")


def growth() -> Iterator[Line]:
    """How it grows with the cluster."""
    for nodes in GROWTH:
        vms = nodes * GROWTH_VMS_PER_NODE
        quiet = rounds_s(lambda n=nodes, v=vms: world(n, v), 0, runs=3)  # type: ignore[misc]
        what = f"{nodes:,} nodes, {vms:,} VMs"
        yield Line(f"a round of deciding, all calm: {what}", "s", quiet)
        dead = max(nodes // 5, 1)
        lost = sum(1 for number in range(vms) if number % nodes < dead)
        failed = rounds_s(lambda n=nodes, v=vms, d=dead: world(n, v, dead=d), lost, runs=1)  # type: ignore[misc]
        per_vm_ms = statistics.median(failed.samples) * 1000 / lost
        yield Line(f"a fifth of them fails, {lost:,} VMs placed again", "s", failed)
        yield Line("  for each of those VMs", "ms", Figure((per_vm_ms,)))


def main() -> int:
    lines = []
    for line in (*measure(), *growth()):
        lines.append(line)
        say(line.what)
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

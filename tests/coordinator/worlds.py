"""Worlds written as text, a line for each node and VM, and plans read back as text.

    cluster maintenance disarmed fence_max_percent=50
    node n1 online 4096
    node n2 fencing 2048 gone=3 proof=n2-1 fences=1
    vm web memory=512 power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING

A VM's parts, divided by bars, are its spec, its decision, its status, the source's word on its
migration (PREPARING, COPYING, MOVED, FAILED) and the target's (READY, REFUSED, RUNNING, GONE).
A node's session is called like it with a number, "n1-1", unless it is given.
"""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2
from services.coordinator.core.plan import (
    DecideNode,
    DecideVm,
    FailOperation,
    ForgetNode,
    ForgetVm,
    Plan,
    Unjudged,
    WriteOperation,
)
from services.coordinator.core.world import World
from services.mesh import rows

NODE_STATES = {
    "online": (cluster_pb2.NODE_STATE_ONLINE, True),
    "silent": (cluster_pb2.NODE_STATE_ONLINE, False),
    "unknown": (cluster_pb2.NODE_STATE_UNKNOWN, False),
    "back": (cluster_pb2.NODE_STATE_UNKNOWN, True),
    "new": (cluster_pb2.NODE_STATE_UNSPECIFIED, True),
    "new-gone": (cluster_pb2.NODE_STATE_UNSPECIFIED, False),
    "joining": (cluster_pb2.NODE_STATE_JOINING, False),
    "joined": (cluster_pb2.NODE_STATE_JOINING, True),
    "fencing": (cluster_pb2.NODE_STATE_FENCING, False),
    "fencing-back": (cluster_pb2.NODE_STATE_FENCING, True),
    "fenced": (cluster_pb2.NODE_STATE_FENCED, False),
    "fenced-back": (cluster_pb2.NODE_STATE_FENCED, True),
    "draining": (cluster_pb2.NODE_STATE_DRAINING, True),
    "draining-gone": (cluster_pb2.NODE_STATE_DRAINING, False),
    "drained": (cluster_pb2.NODE_STATE_DRAINED, True),
    "drained-gone": (cluster_pb2.NODE_STATE_DRAINED, False),
    "maintenance": (cluster_pb2.NODE_STATE_MAINTENANCE, False),
    "maintenance-back": (cluster_pb2.NODE_STATE_MAINTENANCE, True),
    "leaving": (cluster_pb2.NODE_STATE_LEAVING, True),
    "leaving-gone": (cluster_pb2.NODE_STATE_LEAVING, False),
}
"""Word → state, and whether the node holds its session."""
AWAY = ("unknown", "fencing", "fenced")


def at(seconds: float) -> Timestamp:
    """A time of day."""
    return Timestamp(seconds=int(seconds))


def world(text: str, *operations: operation_pb2.Operation) -> World:
    """The world that the text describes."""
    nodes: dict[str, cluster_pb2.Node] = {}
    vms: dict[str, vm_pb2.Vm] = {}
    present: set[str] = set()
    gone: dict[str, float] = {}
    spec = cluster_pb2.ClusterSpec()
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, _, rest = line.partition(" ")
        if kind == "cluster":
            spec = _cluster(rest.split())
        elif kind == "node":
            node, there, gone_s = _node(rest)
            nodes[node.name] = node
            present |= {node.name} if there else set()
            gone |= {} if there else {node.name: gone_s}
        else:
            vm = _vm(rest)
            vms[vm.name] = vm
    return World(
        nodes=nodes,
        vms=vms,
        present=frozenset(present),
        operations=operations,
        spec=spec,
        gone_s=gone,
    )


def applied(before: World, plan: Plan) -> World:
    """The world after the plan was written."""
    vms, nodes = dict(before.vms), dict(before.nodes)
    operations = {operation.name: operation for operation in before.operations}
    for step in plan:
        match step:
            case DecideVm(vm, also=also):
                vms[vm.name] = vm
                operations |= {operation.name: operation for operation in also}
            case DecideNode(node, also=also):
                nodes[node.name] = node
                operations |= {operation.name: operation for operation in also}
            case ForgetVm(vm):
                del vms[vm.name]
            case ForgetNode(node, also=also):
                del nodes[node.name]
                operations |= {operation.name: operation for operation in also}
            case WriteOperation(operation):
                operations[operation.name] = operation
            case FailOperation(operation):
                del operations[operation.name]
    left = tuple(x for x in operations.values() if x.state not in rows.FINAL)
    return replace(before, vms=vms, nodes=nodes, operations=left)


def _cluster(words: list[str]) -> cluster_pb2.ClusterSpec:
    spec = cluster_pb2.ClusterSpec(maintenance="maintenance" in words)
    spec.ha_disarmed = "disarmed" in words
    for name, value in _facts(words).items():
        setattr(spec, name, int(value))
    return spec


def _node(text: str) -> tuple[cluster_pb2.Node, bool, float]:
    name, state, memory, *words = text.split()
    number, there = NODE_STATES[state]
    node = cluster_pb2.Node(name=f"nodes/{name}")
    node.decision.state = number
    node.status.memory_for_vms_mib = int(memory)
    node.status.cpus = 4
    node.status.accelerator = "kvm"
    facts = _facts(words)
    node.status.boot_id = facts.get("boot", "b1")
    node.decision.boot_id = facts.get("seen", "b1")
    session = "" if state == "joining" else f"{name}-1"
    node.status.session = facts.get("session", session)
    node.status.restarting = "restarting" in words
    node.spec.drained = "drained" in words or "drain" in state
    node.spec.leaving = "leaving" in words or "leaving" in state
    if state.startswith((*AWAY, "back")):
        node.decision.lost_session = facts.get("lost", f"{name}-1")
    if "proof" in facts:
        node.decision.proof.means = cluster_pb2.PROOF_MEANS_POWER
        node.decision.proof.text = "its controller says that its power is off"
        node.decision.proof.session = facts["proof"]
    node.decision.fences = int(facts.get("fences", state.startswith("fenced")))
    node.status.fences_seen = int(facts.get("knows", 0))
    gone_s = float(facts.get("gone", 0))
    if node.decision.lost_session:
        node.decision.lost_for.FromMilliseconds(int(float(facts.get("known", gone_s)) * 1000))
    return node, there, gone_s


def _vm(text: str) -> vm_pb2.Vm:
    parts = [*map(str.strip, text.split("|")), "", "", "", ""]
    name, *words = parts[0].split()
    vm = vm_pb2.Vm(name=f"vms/{name}")
    _specify(vm, words)
    _decide(vm, parts[1].split())
    if parts[2]:
        _see(vm, parts[2].split())
    if parts[3]:
        phase = vm_pb2.MigrationStatus.Phase.Value(f"PHASE_{parts[3]}")
        vm.status.migration.id, vm.status.migration.phase = "m1", phase
    if parts[4]:
        vm.arrival.id, vm.arrival.node = "m1", vm.decision.migration.target
        vm.arrival.state = vm_pb2.VmArrival.State.Value(f"STATE_{parts[4]}")
    return vm


def _specify(vm: vm_pb2.Vm, words: list[str]) -> None:
    wanted = _facts(words)
    vm.spec.memory.memory_mib = int(wanted.get("memory", 512))
    vm.spec.cpu.vcpus = int(wanted.get("vcpus", 1))
    vm.spec.cpu.model = wanted.get("model", "")
    vm.spec.power = vm_pb2.PowerState.Value("POWER_STATE_" + wanted.get("power", "OFF"))
    vm.spec.power_request = int(wanted.get("asked", 0))
    vm.spec.autostart = vm_pb2.Autostart.Value("AUTOSTART_" + wanted.get("auto", "LAST_STATE"))
    vm.spec.crash_policy.max_restarts = int(wanted.get("tries", 5))
    vm.spec.crash_policy.delay_s = int(wanted.get("delay", 2))
    vm.spec.crash_policy.action = vm_pb2.CrashAction.Value(
        "CRASH_ACTION_" + wanted.get("crash", "RESTART")
    )
    vm.spec.ha.policy = vm_pb2.NodeFailurePolicy.Value(
        "NODE_FAILURE_POLICY_" + wanted.get("policy", "UNSPECIFIED")
    )
    vm.spec.ha.priority = int(wanted.get("priority", 0))
    vm.spec.ha.max_tries = int(wanted.get("elsewhere", 0))
    vm.spec.ha.start_after_timeout_s = int(wanted.get("patience", 0))
    for other in filter(None, wanted.get("after", "").split(",")):
        vm.spec.ha.start_after.append(f"vms/{other}")
    for volume in filter(None, wanted.get("volumes", "").split(",")):
        vm.spec.disks.add(id=f"d{len(vm.spec.disks)}", volume=f"pools/p/volumes/{volume}")
    if "deleted" in words:
        vm.meta.delete_time.CopyFrom(at(1))


def _decide(vm: vm_pb2.Vm, words: list[str]) -> None:
    decided = _facts(words)
    decision = vm.decision
    decision.node = _node_name(decided.get("node", ""))
    decision.power = vm_pb2.PowerState.Value("POWER_STATE_" + decided.get("power", "OFF"))
    decision.power_request = int(decided.get("asked", vm.spec.power_request))
    decision.restarts = int(decided.get("restarts", 0))
    decision.crashes_seen = int(decided.get("crashes", 0))
    decision.recoveries = int(decided.get("recoveries", 0))
    decision.fence_seen = int(decided.get("fence", 0))
    decision.home = _node_name(decided.get("home", ""))
    if "not-before" in decided:
        decision.not_before.CopyFrom(at(int(decided["not-before"])))
    if "waits-until" in decided:
        decision.waits_until.CopyFrom(at(int(decided["waits-until"])))
    for other in filter(None, decided.get("waits-for", "").split(",")):
        decision.waits_for.append(f"vms/{other}")
    if "to" in decided:
        method = f"MIGRATION_METHOD_{decided.get('method', 'LIVE')}"
        decision.migration.id = "m1"
        decision.migration.target = _node_name(decided["to"])
        decision.migration.method = vm_pb2.MigrationMethod.Value(method)
        decision.migration.operation = decided.get("operation", "")
        decision.migration.cancel = "cancel" in words
        decision.migration.power_request = decision.power_request


def _see(vm: vm_pb2.Vm, words: list[str]) -> None:
    facts = _facts(words)
    vm.status.state = vm_pb2.VmState.Value("VM_STATE_" + words[0])
    vm.status.node = _node_name(facts.get("by", vm.decision.node.removeprefix("nodes/")))
    vm.status.crashes = int(facts.get("crashes", 0))
    vm.status.guest_shutdown = "guest-shutdown" in words
    vm.status.power_request = int(facts.get("asked", vm.decision.power_request))
    vm.status.start_time.seconds = int(facts.get("since", 0))
    vm.status.why = facts.get("why", "")


def _node_name(node: str) -> str:
    return f"nodes/{node}" if node else ""


def _facts(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def told(plan: Plan) -> list[str]:
    """The plan, a line for each step."""
    return [_line(step) for step in plan]


def _line(step: object) -> str:
    match step:
        case DecideVm(row, what, why) | DecideNode(row, what, why):
            return f"{row.name} {what} ({why})"
        case FailOperation(operation, _, why):
            return f"{operation.name} fails ({why})"
        case WriteOperation(operation, why):
            return f"{operation.name} goes on ({why})"
        case ForgetVm(row, why) | ForgetNode(row, why):
            return f"{row.name} forgotten ({why})"
        case Unjudged(row, error):
            return f"{row.name} cannot be judged ({error})"
        case _:
            raise AssertionError(step)

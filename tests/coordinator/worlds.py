"""Worlds written as text, a line for each node and VM, and plans read back as text.

    node n1 online 4096
    node n2 silent 2048
    vm web memory=512 power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING

A VM's three parts, divided by bars, are its spec, its decision and its status.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.plan import DecideNode, DecideVm, FailOperation, Plan
from services.coordinator.core.world import World

NODE_STATES = {
    "online": (cluster_pb2.NODE_STATE_ONLINE, True),
    "silent": (cluster_pb2.NODE_STATE_ONLINE, False),
    "unknown": (cluster_pb2.NODE_STATE_UNKNOWN, False),
    "back": (cluster_pb2.NODE_STATE_UNKNOWN, True),
    "new": (cluster_pb2.NODE_STATE_UNSPECIFIED, True),
}


def at(seconds: float) -> Timestamp:
    """A time of day."""
    return Timestamp(seconds=int(seconds))


def world(text: str) -> World:
    """The world that the text describes."""
    nodes: dict[str, cluster_pb2.Node] = {}
    vms: dict[str, vm_pb2.Vm] = {}
    present: set[str] = set()
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, rest = line.split(maxsplit=1)
        if kind == "node":
            node, there = _node(rest)
            nodes[node.name] = node
            present |= {node.name} if there else set()
        else:
            vm = _vm(rest)
            vms[vm.name] = vm
    return World(nodes=nodes, vms=vms, present=frozenset(present))


def _node(text: str) -> tuple[cluster_pb2.Node, bool]:
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
    return node, there


def _vm(text: str) -> vm_pb2.Vm:
    spec, decision, status = ([*text.split("|"), "", ""])[:3]
    name, *words = spec.split()
    vm = vm_pb2.Vm(name=f"vms/{name}")
    wanted, decided, seen = _facts(words), _facts(decision.split()), status.split()
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
    for volume in filter(None, wanted.get("volumes", "").split(",")):
        vm.spec.disks.add(id=f"d{len(vm.spec.disks)}", volume=f"pools/p/volumes/{volume}")
    if "deleted" in words:
        vm.meta.delete_time.CopyFrom(at(1))
    if decided.get("node"):
        vm.decision.node = f"nodes/{decided['node']}"
    vm.decision.power = vm_pb2.PowerState.Value("POWER_STATE_" + decided.get("power", "OFF"))
    vm.decision.power_request = int(decided.get("asked", vm.spec.power_request))
    vm.decision.restarts = int(decided.get("restarts", 0))
    vm.decision.crashes_seen = int(decided.get("crashes", 0))
    if seen:
        facts = _facts(seen[1:])
        vm.status.state = vm_pb2.VmState.Value("VM_STATE_" + seen[0])
        vm.status.crashes = int(facts.get("crashes", 0))
        vm.status.guest_shutdown = "guest-shutdown" in seen
        vm.status.power_request = int(facts.get("asked", vm.decision.power_request))
        vm.status.start_time.seconds = int(facts.get("since", 0))
        vm.status.why = facts.get("why", "")
    return vm


def _facts(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def told(plan: Plan) -> list[str]:
    """The plan, a line for each step."""
    lines = []
    for step in plan:
        match step:
            case DecideVm(row, what, why) | DecideNode(row, what, why):
                lines.append(f"{row.name} {what} ({why})")
            case FailOperation(operation, _, why):
                lines.append(f"{operation.name} fails ({why})")
            case _:
                lines.append(f"{step.vm.name} forgotten ({step.why})")
    return lines

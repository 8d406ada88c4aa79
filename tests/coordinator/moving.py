"""Worlds in which VMs move, written as text: what worlds.py reads, and more.

    node n1 draining 4096 tags=ssd max=4 load=50 available=1000 deaf
    vm web power=RUNNING asked=1 tags=db | node=n1 power=RUNNING to=n2 by=1 | RUNNING phase=COPYING
    op 1 MigrateVm vms/web node=nodes/n2 RUNNING

A VM's decision may have a migration (to, by, how, cancel, since), its status a phase (left, of,
pause, told), a fourth part is the arrival (READY, or REFUSED with its reasons). An operation has
its id, method, target, fields of its request, and words: RUNNING, cancel, parts=3.
"""

from __future__ import annotations

from dataclasses import replace

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.methods import SERVICE, method
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
from tests.coordinator import worlds
from tests.coordinator.worlds import at

Operation = operation_pb2.Operation
State = cluster_pb2.NodeState

PLACEMENT = ("MigrateVm", "MoveVm", "UnmigrateVm", "BalanceCluster")
KNOWN = frozenset(worlds.NODE_STATES)
ABSENT = ("fencing", "fenced", "maintenance", "joining")


def world(text: str) -> World:
    """The world that the text describes."""
    lines = [line.split() for line in map(str.strip, text.splitlines()) if line]
    nodes = [line for line in lines if line[0] == "node"]
    vms = [line for line in lines if line[0] == "vm"]
    base = worlds.world("\n".join([*map(_plain_node, nodes), *map(_plain_vm, vms)]))
    for line in nodes:
        _finish_node(base.nodes[f"nodes/{line[1]}"], line)
    for number, line in enumerate(vms):
        _finish_vm(base.vms[f"vms/{line[1]}"], line, number)
    absent = {f"nodes/{line[1]}" for line in nodes if line[2] in ABSENT}
    operations = tuple(_operation(line[1:]) for line in lines if line[0] == "op")
    return replace(base, operations=operations, present=base.present - absent)


def applied(before: World, plan: Plan) -> World:
    """The world after the plan was written: rows at new versions, ended operations gone."""
    vms, nodes = dict(before.vms), dict(before.nodes)
    operations = {x.name: x for x in before.operations}
    for step in plan:
        match step:
            case DecideVm(row, _, _, _, also):
                vms[row.name] = _newer(row)
                operations |= {x.name: x for x in also}
            case DecideNode(node, _, _, _, also):
                nodes[node.name] = node
                operations |= {x.name: x for x in also}
            case ForgetVm(vm):
                del vms[vm.name]
            case ForgetNode(node, _, also):
                del nodes[node.name]
                operations |= {x.name: x for x in also}
            case WriteOperation(operation):
                operations[operation.name] = operation
            case FailOperation(operation):
                del operations[operation.name]
            case Unjudged(_, error):
                raise error
            case _:
                raise AssertionError(step)
    left = tuple(x for x in operations.values() if x.state not in rows.FINAL)
    return replace(before, vms=vms, nodes=nodes, operations=left)


def settled(now: float, before: World) -> World:
    """The world once there is nothing to decide at that time."""
    for _ in range(32):
        plan = decide(at(now), before)
        if not plan:
            return before
        before = applied(before, plan)
    raise AssertionError("two rules fight")


def told(plan: Plan) -> list[str]:
    """The plan, a line for each step and each operation."""
    lines = []
    for step in plan:
        match step:
            case DecideVm(row, what, why) | DecideNode(row, what, why):
                lines.append(f"{row.name} {what} ({why})")
                lines += [_told(operation) for operation in step.also]
            case ForgetNode(node, why, also):
                lines.append(f"{node.name} forgotten ({why})")
                lines += [_told(operation) for operation in also]
            case WriteOperation(operation):
                lines.append(_told(operation))
            case FailOperation(operation, _, why):
                lines.append(f"{operation.name} fails ({why})")
            case Unjudged(_, error):
                raise error
            case _:
                raise AssertionError(step)
    return lines


def _told(operation: Operation) -> str:
    state = Operation.State.Name(operation.state).removeprefix("STATE_")
    return f"{operation.name} {state}: {operation.error.message or operation.stage}"


def _newer(vm: vm_pb2.Vm) -> vm_pb2.Vm:
    after = rows.copied(vm)
    after.meta.etag = str(int(vm.meta.etag or 0) + 100)
    return after


def _plain_node(line: list[str]) -> str:
    state = line[2] if line[2] in KNOWN else "online"
    return " ".join([*line[:2], state, *line[3:]])


def _plain_vm(line: list[str]) -> str:
    """Without the arrival."""
    return "|".join(" ".join(line).split("|")[:3])


def _finish_node(node: cluster_pb2.Node, line: list[str]) -> None:
    facts = dict(word.split("=", 1) for word in line if "=" in word)
    if line[2] not in KNOWN:
        node.decision.state = State.Value("NODE_STATE_" + line[2].upper())
    node.spec.drained = line[2] in ("draining", "drained") or "drained" in line[4:]
    node.spec.tags.extend(filter(None, facts.get("tags", "").split(",")))
    node.spec.max_vms = int(facts.get("max", 0))
    node.status.load.load_percent = int(facts.get("load", 0))
    node.status.load.available_memory_mib = int(facts.get("available", 0))
    node.status.memory_mib = node.status.memory_for_vms_mib
    node.status.accelerator = facts.get("accelerator", "kvm")
    node.status.migration_host = "" if "deaf" in line else line[1]


def _finish_vm(vm: vm_pb2.Vm, line: list[str], number: int) -> None:
    parts = [part.split() for part in " ".join(line).split("|")]
    spec, decision, status, arrival = [*parts, [], [], []][:4]
    vm.meta.etag = str(number + 1)
    facts = dict(word.split("=", 1) for word in spec if "=" in word)
    _finish_spec(vm.spec, facts)
    facts = dict(word.split("=", 1) for word in decision if "=" in word)
    if facts.get("home"):
        vm.decision.home = f"nodes/{facts['home']}"
    if facts.get("to"):
        _finish_migration(vm, facts, "cancel" in decision)
    facts = dict(word.split("=", 1) for word in status if "=" in word)
    vm.status.node = f"nodes/{facts['at']}" if facts.get("at") else vm.decision.node
    if facts.get("phase"):
        seen = vm.status.migration
        seen.id = vm.decision.migration.id
        seen.phase = vm_pb2.MigrationStatus.Phase.Value("PHASE_" + facts["phase"])
        seen.remaining_bytes = int(facts.get("left", 0)) << 20
        seen.total_bytes = int(facts.get("of", 0)) << 20
        seen.downtime_ms, seen.why = int(facts.get("pause", 0)), facts.get("told", "")
    if arrival:
        vm.arrival.id, vm.arrival.node = vm.decision.migration.id, vm.decision.migration.target
        vm.arrival.state = vm_pb2.VmArrival.State.Value("STATE_" + arrival[0])
        vm.arrival.reasons.extend(word.replace("_", " ") for word in arrival[1:])


def _finish_spec(spec: vm_pb2.VmSpec, facts: dict[str, str]) -> None:
    spec.tags.extend(filter(None, facts.get("tags", "").split(",")))
    spec.ha.priority = int(facts.get("priority", 500))
    spec.ha.policy = vm_pb2.NodeFailurePolicy.Value(
        "NODE_FAILURE_POLICY_" + facts.get("ha", "RESTART")
    )
    spec.placement.nodes.extend(f"nodes/{x}" for x in facts.get("on", "").split(",") if x)
    spec.placement.selector = vm_pb2.NodeSelector.Value(
        "NODE_SELECTOR_" + facts.get("by", "UNSPECIFIED")
    )
    spec.migration.method = vm_pb2.MigrationMethod.Value(
        "MIGRATION_METHOD_" + facts.get("how", "LIVE")
    )
    if "balance" in facts:
        spec.placement.balance = facts["balance"] == "on"
    for network in filter(None, facts.get("nets", "").split(",")):
        spec.nics.add(id=network, network=f"networks/{network}")
    for word in filter(None, facts.get("rules", "").split(",")):
        _rule(spec.placement, word)


def _rule(placement: vm_pb2.PlacementSpec, word: str) -> None:
    """ "node:ssd!" a must, "node:-slow" a wish to avoid, "apart:db!", "with:db"."""
    kind, _, tag = word.partition(":")
    required, tag = tag.endswith("!"), tag.rstrip("!")
    if kind == "node":
        placement.node_rules.add(
            tag=tag.removeprefix("-"), avoid=tag.startswith("-"), required=required
        )
    else:
        placement.vm_rules.add(tag=tag, apart=kind == "apart", required=required)


def _finish_migration(vm: vm_pb2.Vm, facts: dict[str, str], cancel: bool) -> None:
    vm.decision.migration.CopyFrom(
        vm_pb2.Migration(
            id=f"{facts.get('by', '')}.{vm.name}",
            target=f"nodes/{facts['to']}",
            method=vm_pb2.MigrationMethod.Value("MIGRATION_METHOD_" + facts.get("how", "LIVE")),
            operation=f"operations/{facts['by']}" if facts.get("by") else "",
            cancel=cancel,
            time=at(int(facts.get("since", 0))),
            why="ann asked for it",
            power_request=vm.decision.power_request,
        )
    )


def _operation(words: list[str]) -> Operation:
    id, name, target, *rest = words
    service = "PlacementService" if name in PLACEMENT else "NodeService"
    facts = dict(word.split("=", 1) for word in rest if "=" in word)
    request = getattr(api, f"{name}Request")()
    for key, value in facts.items():
        if key in request.DESCRIPTOR.fields_by_name:
            kind = type(getattr(request, key))
            number = (
                vm_pb2.MigrationMethod.Value(f"MIGRATION_METHOD_{value}") if key == "method" else 0
            )
            setattr(request, key, number or kind(value))
    state = Operation.STATE_RUNNING if "RUNNING" in rest else Operation.STATE_PENDING
    operation = Operation(
        name=f"operations/{id}", method=method(service, name), target=target, service=SERVICE,
        state=state, caller="ann", cancel_requested="cancel" in rest,
        parts=int(facts.get("parts", 0)), parts_begun=int(facts.get("begun", 0)),
    )  # fmt: skip
    operation.request.Pack(request)
    return operation

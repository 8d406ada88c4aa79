"""What users ask of the cluster: the services' own plans, committed as `services.mesh.desk` commits
them, by a process that can be behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2 as placement_api
from pvc.core.v1 import operation_pb2
from services.compute.core import edits, requests
from services.coordinator import operation_service as operations
from services.coordinator import placement_service as placement
from services.coordinator.core import cluster_edits, death, node_edits, node_tasks
from services.mesh import rows
from services.mesh.desk import Call
from services.mesh.errors import PvcError
from services.state.store import Conflict
from tests.simulator.cluster import SimCluster
from tests.simulator.world import VM_DEFAULTS, facts

TRIES = 20


def ask(cluster: SimCluster, plan: Callable[..., Any], request: Message) -> Message | None:
    """The answer; None when it was refused, which the log tells."""
    store, clock = cluster.user_store, cluster.user_clock
    for _ in range(TRIES):
        call = Call(clock.now(), "token ann", cluster.entry(), clock.new_id)
        try:
            mutation = plan(store.snapshot(), request, call)
            store.commit(mutation.changes)
        except Conflict:
            continue
        except PvcError as error:
            cluster.tell("user", f"{what(request)} is refused: {error.message}")
            return None
        response: Message = mutation.response
        if isinstance(response, operation_pb2.Operation):
            cluster.accepted[response.name] = what(request)
        name = f" ({response.name})" if isinstance(response, operation_pb2.Operation) else ""
        cluster.tell("user", f"asks for {what(request)}{name}")
        return response
    raise AssertionError(f"others keep changing what {what(request)} is about")


def what(request: Message) -> str:
    """ "start vms/web"."""
    verb = type(request).__name__.removesuffix("Request")
    name = getattr(request, "name", "") or getattr(request, "vm_id", "")
    target = getattr(request, "node", "")
    return f"{verb} {name}" + (f" to {target}" if isinstance(target, str) and target else "")


def create(cluster: SimCluster, name: str, words: list[str]) -> None:
    """A VM with a disk in the shared pool; power=off: it is made and not started."""
    said = {**VM_DEFAULTS, **facts(words)}
    request = api.CreateVmRequest(vm_id=name, start=said["power"] == "on")
    spec = request.vm.spec
    spec.memory.memory_mib = int(said["memory"])
    spec.cpu.vcpus = int(said.get("cpus", 1))
    spec.shutdown_timeout_s = int(said.get("shutdown", 20))
    spec.disks.add(id="root", volume=cluster.add_volume(name))
    spec.vnc = spec.serial_console = spec.guest_agent = spec.rng = False
    _fill_rules(spec, said)
    ask(cluster, edits.create, request)


def _fill_rules(spec: vm_pb2.VmSpec, said: dict[str, str]) -> None:
    ha, placement = spec.ha, spec.placement
    if policy := said.get("policy"):
        ha.policy = vm_pb2.NodeFailurePolicy.Value(f"NODE_FAILURE_POLICY_{policy.upper()}")
    if priority := said.get("priority"):
        ha.priority = int(priority)
    if after := said.get("after"):
        ha.start_after.extend(f"vms/{vm}" for vm in after.split(","))
    if waits := said.get("waits"):
        ha.start_after_timeout_s = int(waits)
    if tries := said.get("tries"):
        ha.max_tries = int(tries)
    if nodes := said.get("nodes"):
        placement.nodes.extend(f"nodes/{node}" for node in nodes.split(","))
    if tags := said.get("tags"):
        spec.tags.extend(tags.split(","))
    if apart := said.get("apart"):
        placement.vm_rules.add(tag=apart, apart=True, required=True)
    if together := said.get("with"):
        placement.vm_rules.add(tag=together, required=True)
    if method := said.get("migration"):
        spec.migration.method = vm_pb2.MigrationMethod.Value(f"MIGRATION_METHOD_{method.upper()}")
    if said.get("postcopy") == "yes":
        spec.migration.allow_post_copy = True
    if auto := said.get("autostart"):
        spec.autostart = vm_pb2.Autostart.Value(f"AUTOSTART_{auto.upper()}")


POWER = {
    "start": (requests.START, api.StartVmRequest),
    "stop": (requests.STOP, api.StopVmRequest),
    "shutdown": (requests.SHUTDOWN, api.ShutdownVmRequest),
    "pause": (requests.PAUSE, api.PauseVmRequest),
    "resume": (requests.RESUME, api.ResumeVmRequest),
}


def power(cluster: SimCluster, verb: str, vm: str) -> None:
    wish, kind = POWER[verb]
    ask(cluster, requests.power(wish), kind(name=f"vms/{vm}"))


def reboot(cluster: SimCluster, vm: str) -> None:
    ask(cluster, requests.reboot, api.RebootVmRequest(name=f"vms/{vm}"))


def delete(cluster: SimCluster, vm: str) -> None:
    ask(cluster, edits.delete, api.DeleteVmRequest(name=f"vms/{vm}", force=True))


def migrate(cluster: SimCluster, verb: str, words: list[str]) -> None:
    """migrate web [n2]; move; unmigrate web."""
    plan, kind = MOVES[verb]
    request = kind(name=f"vms/{words[0]}")
    if len(words) > 1:
        request.node = f"nodes/{words[1]}"
    ask(cluster, plan, request)


def drain(cluster: SimCluster, node: str, shutdown: bool) -> None:
    request = placement_api.DrainNodeRequest(name=f"nodes/{node}", shutdown=shutdown)
    ask(cluster, node_tasks.drain, request)


def ready(cluster: SimCluster, node: str, leave: bool) -> None:
    request = placement_api.ReadyNodeRequest(name=f"nodes/{node}", leave_vms=leave)
    ask(cluster, node_tasks.ready, request)


def confirm_dead(cluster: SimCluster, node: str) -> None:
    request = placement_api.ConfirmNodeDeadRequest(name=f"nodes/{node}", why="both plugs are out")
    ask(cluster, death.confirm, request)


def setting(cluster: SimCluster, field: str, value: int) -> None:
    request = placement_api.UpdateClusterRequest()
    setattr(request.spec, field, type(getattr(request.spec, field))(value))
    request.update_mask.paths.append(field)
    ask(cluster, cluster_edits.update, request)


def lead(cluster: SimCluster, node: str, away: bool) -> None:
    request = placement_api.LeadNodeRequest(name=f"nodes/{node}", away=away)
    ask(cluster, node_edits.lead, request)


def cancel(cluster: SimCluster, target: str) -> None:
    """Whatever goes on about a VM or node."""
    for operation in cluster.user_store.snapshot().rows(operation_pb2.Operation):
        if operation.target.endswith(f"/{target}") and operation.state not in rows.FINAL:
            request = placement_api.CancelOperationRequest(name=operation.name)
            ask(cluster, operations.cancel, request)


MOVES: dict[str, tuple[Callable[..., Any], Any]] = {
    "migrate": (placement.migrate, placement_api.MigrateVmRequest),
    "move": (placement.move, placement_api.MoveVmRequest),
    "unmigrate": (placement.unmigrate, placement_api.UnmigrateVmRequest),
}

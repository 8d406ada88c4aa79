"""What becomes of work that a dead node had begun."""

from __future__ import annotations

from dataclasses import replace

from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import FailOperation, WriteOperation
from services.coordinator.core.world import World
from tests.coordinator.worlds import at, world

Operation = operation_pb2.Operation
NODES = "node n1 fenced 4096\nnode n2 online 4096\nnode n3 online 4096\n"
VM = "pvc.compute.v1.VmService"


def work(target: str, service: str = "storage", method: str = "", node: str = "n1") -> Operation:
    return Operation(
        name="operations/1", target=target, service=service, method=method, node=f"nodes/{node}",
        state=Operation.STATE_RUNNING, worker="n1-1", attempts=1,
    )  # fmt: skip


def seen(text: str, operation: Operation, **more: object) -> World:
    there = world(NODES + text, operation)
    return replace(there, shared_pools=frozenset({"pools/shared"}), **more)  # type: ignore[arg-type]


def heir(now: World) -> str:
    """The node that goes on with it, "" when it failed."""
    steps = [x for x in decide(at(5), now) if isinstance(x, WriteOperation | FailOperation)]
    (step,) = steps
    if isinstance(step, FailOperation):
        assert step.reason == reason_pb2.REASON_INTERRUPTED
        return ""
    assert step.operation.worker == "" and step.operation.attempts == 1
    assert step.operation.log[-1].text.startswith("n1 is dead; ")
    return step.operation.node.removeprefix("nodes/")


def test_work_on_a_shared_pool_goes_to_a_node_that_can_use_it() -> None:
    assert heir(seen("", work("pools/shared/volumes/root"))) == "n2"
    assert heir(seen("", work("pools/shared"))) == "n2"
    away = {"pools/shared": {"nodes/n2": "the folder is gone"}}
    assert heir(seen("", work("pools/shared/volumes/root"), not_ready=away)) == "n3"


def test_work_on_a_pool_of_the_dead_node_fails_and_says_what_remains() -> None:
    now = seen("", work("pools/local/volumes/root"))
    assert heir(now) == ""
    (step,) = decide(at(5), now)
    assert isinstance(step, FailOperation)
    assert "is there when n1 is back" in step.why and "pools/local/volumes/root" in step.why


def test_work_on_a_vm_goes_to_where_it_lives_by_now() -> None:
    runs = "vm web volumes=root power=RUNNING | node=n3 power=RUNNING | RUNNING"
    assert heir(seen(runs, work("vms/web", "compute", f"{VM}/CreateVmSnapshot"))) == "n3"
    assert heir(seen(runs, work("vms/web", "compute", f"{VM}/ResetVm"))) == ""


def test_a_vm_that_waits_to_be_recovered_keeps_its_work() -> None:
    text = "vm web memory=9000 power=RUNNING | node=n1 power=RUNNING | RUNNING"
    now = seen(text, work("vms/web", "compute", f"{VM}/CreateVmSnapshot"))
    now.vms["vms/web"].spec.disks.add(id="d", volume="pools/local/volumes/root")
    assert not [x for x in decide(at(5), now) if isinstance(x, FailOperation | WriteOperation)]


def test_a_deletion_goes_on_elsewhere() -> None:
    now = seen("", work("vms/web", "compute", f"{VM}/DeleteVm"))
    assert heir(now) == "n2", "the row is gone already; its volumes may not be"


def test_what_ends_by_converging_follows_its_vm() -> None:
    text = "vm web power=RUNNING | node=n2 power=RUNNING | STARTING"
    assert decide(at(5), seen(text, work("vms/web", "compute", f"{VM}/StartVm"))) == ()


def test_networks_are_everybodys() -> None:
    assert heir(seen("", work("networks/lan", "network"))) == "n2"


def test_what_was_being_built_fails() -> None:
    assert heir(seen("", work("images/debian", "provisioner"))) == ""


def test_work_of_nodes_that_are_only_away_is_waited_for() -> None:
    for node in ("n2", "n9-unknown"):
        text = "node n9-unknown unknown 100\n" if node != "n2" else ""
        now = seen(text, work("pools/shared/volumes/root", node=node))
        assert decide(at(5), now) == ()


def test_a_fenced_node_that_is_back_does_its_own_work() -> None:
    now = seen("", work("pools/shared/volumes/root"))
    now = replace(now, present=now.present | {"nodes/n1"})
    now.nodes["nodes/n1"].decision.why = "it is back, and looks through its VMs"
    assert decide(at(5), now) == ()

"""A node is forgotten once nothing of it is left."""

from __future__ import annotations

from dataclasses import replace

from services.coordinator.core.decide import decide
from tests.coordinator.moving import settled, told, world
from tests.coordinator.worlds import at

REMOVE = "op 1 RemoveNode nodes/n2"
KEPT = "node n1 online 4096"


def test_its_row_goes_with_the_end_of_the_operation() -> None:
    gone = replace(world(f"{KEPT}\nnode n2 leaving 100\n{REMOVE}"), present=frozenset({"nodes/n1"}))
    assert told(decide(at(0), gone)) == [
        "nodes/n2 forgotten (it was removed from the cluster)",
        "operations/1 SUCCEEDED: n2 has left the cluster",
    ]
    assert set(settled(0, gone).nodes) == {"nodes/n1"}


def test_services_that_work_are_waited_for() -> None:
    now = settled(0, world(f"{KEPT}\nnode n2 leaving 100\n{REMOVE}"))
    (operation,) = now.operations
    assert operation.stage == "waits for the services on n2 to end: stop them there"
    assert not settled(1, replace(now, present=frozenset({"nodes/n1"}))).operations


def test_vms_that_belong_to_it_keep_it() -> None:
    there = world(f"{KEPT}\nnode n2 leaving 100\nvm a | node=n2 | STOPPED\n{REMOVE}")
    now = settled(0, replace(there, present=frozenset({"nodes/n1"})))
    assert now.operations[0].stage == "waits: a belong to n2; move or delete them"


def test_a_row_that_is_gone_already_is_a_success() -> None:
    assert told(decide(at(0), world(f"{KEPT}\n{REMOVE}"))) == ["operations/1 SUCCEEDED: "]

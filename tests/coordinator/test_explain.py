"""Why a VM is where it is, in sentences."""

from __future__ import annotations

import pytest

from services.coordinator.core.capacity import load_of
from services.coordinator.core.explain import explain
from tests.coordinator.moving import world

NODES = "node n1 online 4096\nnode n2 online 4096 tags=ssd"


@pytest.mark.parametrize(
    ("vm", "reason"),
    [
        (
            "vm a power=RUNNING asked=2 | node=n1 power=OFF asked=1 | STOPPED",
            "what was asked for is not decided: no coordinator has looked yet",
        ),
        (
            "vm a power=RUNNING asked=1 | node=n1 power=OFF | CRASHED",
            "it does not run, though that was asked for: ",
        ),
        (
            "vm a power=RUNNING asked=1 | node=n1 power=RUNNING | FAILED why=disk",
            "it is to run and is FAILED: disk",
        ),
        (
            "vm a deleted | node=n1 | STOPPED",
            "it is being deleted",
        ),
        (
            "vm a power=RUNNING asked=1 | node=n1 power=RUNNING to=n2 by=7 | RUNNING phase=COPYING",
            "it is moving to n2, copying: ann asked for it (operations/7)",
        ),
        (
            "vm a power=RUNNING asked=1 | node=n1 power=RUNNING home=n2 | RUNNING",
            "it belongs to n2 and had to leave it for a while; 'pvc vm unmigrate a' brings it back",
        ),
        (
            "vm a how=NONE power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING",
            "it does not move while it runs: its spec.migration.method says that it stays where "
            "it is",
        ),
        (
            "vm a balance=off power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING",
            "balancing leaves it alone (spec.placement.balance)",
        ),
    ],
)  # fmt: skip
def test_a_reason_for_each_matter(vm: str, reason: str) -> None:
    asked = world(f"{NODES}\n{vm}")
    assert reason in explain(asked, load_of(asked), asked.vms["vms/a"]).reasons


def test_the_node_and_every_verdict_the_best_first() -> None:
    asked = world(f"{NODES}\nvm a rules=node:ssd! power=RUNNING asked=1 | node=n1 power=RUNNING "
                  "| RUNNING")  # fmt: skip
    asked.vms["vms/a"].decision.why = "it was asked for"
    answer = explain(asked, load_of(asked), asked.vms["vms/a"])
    assert answer.node == "nodes/n1"
    assert [(v.node, v.fits) for v in answer.verdicts] == [("nodes/n2", True), ("nodes/n1", False)]
    assert list(answer.verdicts[1].reasons) == ["lacks the tag ssd"]
    assert list(answer.reasons) == ["it is on n1: it was asked for"]


def test_a_node_that_is_not_well_is_told() -> None:
    asked = world(
        "node n1 unknown 100\nvm a power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING"
    )
    asked.nodes["nodes/n1"].decision.why = "its session ended"
    reasons = explain(asked, load_of(asked), asked.vms["vms/a"]).reasons
    assert reasons[0] == "its node n1 is UNKNOWN: its session ended"

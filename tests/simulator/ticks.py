"""When a loop's next step can matter. Most steps are looks at which nothing is due: they cost
microseconds, and a simulated hour has a million of them. Those that are known to do nothing are
left out; a step that is left out is one that would have returned at once.

This is the one place that looks into the private parts of what it drives.
"""

from __future__ import annotations

from collections.abc import Callable

from pvc.coordinator.v1 import cluster_pb2
from services.compute.agent import Agent
from services.compute.guard import Guard
from services.coordinator.core.power_on import is_under_way
from services.coordinator.fencer import Fencer
from services.coordinator.loop import Coordinator
from services.coordinator.switcher import Switcher
from services.mesh.clock import Clock
from services.state.store import Store

Hint = Callable[[], float]
"""For how many seconds nothing but a wake-up brings anything about."""

EVIDENCE_S = 1.0
"""A coordinator looks who is there at least this often, so that its evidence has no gaps."""
CALM_S = 5.0
FENCING = cluster_pb2.NODE_STATE_FENCING


def of_agent(agent: Agent, clock: Clock) -> Hint:
    """It sleeps until something changed, which wakes it, or until it is due."""
    return lambda: agent._due - clock.monotonic()


def of_coordinator(coordinator: Coordinator, clock: Clock) -> Hint:
    """As an agent, but for its evidence. Who does not lead has nothing else to do."""

    def hint() -> float:
        if coordinator.lead.lease is None:
            return EVIDENCE_S
        return min(EVIDENCE_S, coordinator._due - clock.monotonic())

    return hint


def of_fencer(fencer: Fencer, store: Store) -> Hint:
    """While no node is being fenced there is nothing to do."""

    def hint() -> float:
        nodes = store.snapshot().rows(cluster_pb2.Node)
        busy = fencer._cases or any(node.decision.state == FENCING for node in nodes)
        return 0.0 if busy else CALM_S

    return hint


def of_switcher(switcher: Switcher, store: Store) -> Hint:
    """While no node is to be switched on there is nothing to do."""

    def hint() -> float:
        nodes = store.snapshot().rows(cluster_pb2.Node)
        return 0.0 if switcher._cases or any(map(is_under_way, nodes)) else CALM_S

    return hint


def of_last_resort(guard: Guard, clock: Clock) -> Hint:
    """Nothing before the watchdog is about to fire."""

    def hint() -> float:
        times = guard._known.times
        if times is None or not guard._known.promised:
            return EVIDENCE_S
        return guard._fed + times.watchdog_s - times.last_resort_s - clock.monotonic()

    return hint

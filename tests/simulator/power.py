"""Switching machines off and on from outside: the controllers of their power, on virtual time, and
the calls to them, each on a strand of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.controllers import PERIOD_S as CHECK_PERIOD_S
from services.coordinator.controllers import ControllerChecks, Controllers
from services.coordinator.drivers.fake import FakeController, FakePower
from services.coordinator.drivers.power import PowerTarget
from services.coordinator.drivers.storage_fence import NoStorageFence, StorageFence
from services.coordinator.fencer import PERIOD_S as FENCE_PERIOD_S
from services.coordinator.fencer import Fencer, pursuits
from services.coordinator.loop import Coordinator
from services.coordinator.runner import Outcome, made
from services.coordinator.switcher import PERIOD_S as SWITCH_PERIOD_S
from services.coordinator.switcher import Switcher
from services.state.store import Lease, Snapshot, Store
from tests.simulator import ticks
from tests.simulator.clock import SimClock
from tests.simulator.engine import Process

REDFISH = cluster_pb2.PowerControl.PROTOCOL_REDFISH


def address_of(node: str) -> str:
    """Where a machine's controller is."""
    return f"https://bmc-{node}"


class SimPower(FakePower):
    """The controllers as one process reaches them: some of them not at all."""

    def __init__(
        self,
        process: Process,
        controllers: dict[str, FakeController],
        reaches: Callable[[str], bool],
    ) -> None:
        """reaches: address → whether this node's calls arrive there."""
        super().__init__(lambda seconds: process.engine.sleep(seconds) if seconds else None)
        self.controllers = controllers
        self._process = process
        self._reaches = reaches
        self._lost = FakeController(dead=True)

    def is_on(self, target: PowerTarget) -> bool:
        """See PowerDriver."""
        self._process.gate("asks for the power")
        answer = super().is_on(target)
        self._process.gate("asks for the power, answered")
        return answer

    def off(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        self._process.gate("cuts the power")
        super().off(target)
        self._process.gate("cuts the power, answered")

    def on(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        self._process.gate("power-on")
        super().on(target)
        self._process.gate("power-on done")

    def _reached(self, target: PowerTarget, verb: str) -> FakeController:
        if self._reaches(target.address):
            return super()._reached(target, verb)
        there, self.controllers = self.controllers, {}
        try:
            return super()._reached(target, verb)
        finally:
            self.controllers = there


class SimRunner:
    """See services.coordinator.runner.Runner."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.wake: Callable[[], None] = lambda: None

    def start(self, name: str, call: Callable[[], Any]) -> SimRunning:
        """See Runner."""
        running, process = SimRunning(), self._process

        def work() -> None:
            running.ended = made(call)
            self.wake()

        def begin() -> None:
            if process.alive:
                with process.engine.as_process(process):
                    process.engine.on_strand(work)

        process.engine.after(0.0, begin)
        return running


class SimRunning:
    """A call under way."""

    def __init__(self) -> None:
        self.ended: Outcome | None = None

    def outcome(self) -> Outcome | None:
        """See Running."""
        return self.ended


def add_fencing(
    process: Process,
    store: Store,
    clock: SimClock,
    node: str,
    coordinator: Coordinator,
    power: SimPower,
    storage: StorageFence | None = None,
) -> None:
    """The loops that services.coordinator.main makes of the same parts."""
    controllers = Controllers({REDFISH: power}, lambda: b"")

    def lease() -> Lease | None:
        return coordinator.lead.lease

    def gone_s(_snapshot: Snapshot, row: cluster_pb2.Node) -> float:
        return coordinator.evidence.gone_s(clock.monotonic()).get(row.name, 0.0)

    runner, asking = SimRunner(process), SimRunner(process)
    pursue = pursuits(controllers, storage or NoStorageFence(), runner, clock, gone_s)
    fencer = Fencer(store, clock, node, lease, pursue)
    checks = ControllerChecks(store, clock, controllers, asking, lease)
    loop = process.add("coordinator-fencer", fencer.step, FENCE_PERIOD_S, ("nodes",))
    loop.hint, runner.wake = ticks.of_fencer(fencer, store), loop.wake
    asking.wake = process.add(
        "coordinator-controllers", checks.step, CHECK_PERIOD_S, ("nodes",)
    ).wake
    add_switching(process, store, clock, node, coordinator, controllers)


def add_switching(
    process: Process,
    store: Store,
    clock: SimClock,
    node: str,
    coordinator: Coordinator,
    controllers: Controllers,
) -> None:
    """As services.coordinator.main."""

    def lease() -> Lease | None:
        return coordinator.lead.lease

    def gone_s(row: cluster_pb2.Node) -> float:
        return coordinator.evidence.gone_s(clock.monotonic()).get(row.name, 0.0)

    runner = SimRunner(process)
    switcher = Switcher(store, clock, node, lease, controllers, runner, gone_s)
    loop = process.add("coordinator-switcher", switcher.step, SWITCH_PERIOD_S, ("nodes",))
    loop.hint, runner.wake = ticks.of_switcher(switcher, store), loop.wake

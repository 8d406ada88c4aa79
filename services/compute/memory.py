"""What the agent remembers between two looks at a VM. Nothing that matters is lost with it: at
worst a guest is asked the same again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from pvc.compute.v1 import vm_pb2
from services.compute.core.ladder import Climb
from services.mesh.clock import Clock
from services.mesh.errors import PvcError


@dataclass(slots=True)
class Run:
    """About one run of a VM's emulator."""

    run: str
    tried: dict[str, str] = field(default_factory=dict)
    """See core.live.difference."""
    refused: dict[str, PvcError] = field(default_factory=dict)
    """What was said to the live changes that failed, by the same keys."""
    asked: bool = False
    """Its guest was asked who it is; before that what the status says is all that is known."""
    guest: vm_pb2.GuestStatus | None = None


@dataclass(slots=True)
class Trip:
    """About a VM's migration away from this node."""

    id: str
    climb: Climb | None = None
    """How far it was helped along."""
    given_up: str = ""
    """Why its end was asked for, when nothing helped."""
    told_at: float | None = None
    aborted_at: float | None = None


class Memory:
    """Used by all threads of the agent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._nudged: dict[str, tuple[int, float]] = {}
        self._trouble: dict[str, float] = {}
        self._warned: dict[str, str] = {}
        self._trips: dict[str, Trip] = {}

    def run(self, vm: str, run: str) -> Run:
        """What is known about this run; nothing yet when it is another one than last time."""
        with self._lock:
            known = self._runs.get(vm)
            if known is None or known.run != run:
                known = self._runs[vm] = Run(run)
            return known

    def current(self, vm: str) -> Run | None:
        """What is known about the run that was seen last."""
        with self._lock:
            return self._runs.get(vm)

    def refused(self, vm: str) -> Mapping[str, PvcError]:
        """What the running guest or its hypervisor refused."""
        with self._lock:
            known = self._runs.get(vm)
            return dict(known.refused) if known is not None else {}

    def trip(self, vm: vm_pb2.Vm) -> Trip:
        """What is known about the migration that is decided; nothing yet when it is another one
        than last time."""
        with self._lock:
            known = self._trips.get(vm.name)
            if known is None or known.id != vm.decision.migration.id:
                known = self._trips[vm.name] = Trip(vm.decision.migration.id)
            return known

    def nudge(self, vm: vm_pb2.Vm) -> None:
        """The guest was just asked to shut down, or to go on."""
        with self._lock:
            entered = vm.status.state_time.ToNanoseconds()
            self._nudged[vm.name] = (entered, self._clock.monotonic())

    def nudged_s(self, vm: vm_pb2.Vm) -> float | None:
        """How long ago that was; None when it was in another state than the present one, or
        never."""
        with self._lock:
            entered, at = self._nudged.get(vm.name, (-1, 0.0))
        if entered != vm.status.state_time.ToNanoseconds():
            return None
        return self._clock.monotonic() - at

    def is_news(self, vm: str, warning: str) -> bool:
        """It is another warning than the last one about this VM; "" begins anew."""
        with self._lock:
            before = self._warned.pop(vm, "")
            if warning:
                self._warned[vm] = warning
            return warning != before

    def trouble(self, vm: str, pause_s: float) -> None:
        """Something failed that may fail again at once."""
        with self._lock:
            self._trouble[vm] = self._clock.monotonic() + pause_s

    def troubled(self, vm: str) -> bool:
        """It is too early to try again."""
        with self._lock:
            return self._clock.monotonic() < self._trouble.get(vm, 0.0)

    def forget_all_but(self, domains: Collection[str], is_there: Callable[[str], bool]) -> None:
        """Drops what is known about domains that are no more, and about VMs that are not there."""
        with self._lock:
            now = self._clock.monotonic()
            self._runs = {vm: run for vm, run in self._runs.items() if vm in domains}
            self._trouble = {vm: until for vm, until in self._trouble.items() if now < until}
            self._nudged = {vm: told for vm, told in self._nudged.items() if is_there(vm)}
            self._warned = {vm: told for vm, told in self._warned.items() if is_there(f"vms/{vm}")}
            self._trips = {vm: trip for vm, trip in self._trips.items() if is_there(vm)}

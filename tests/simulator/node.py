"""One machine of a simulated cluster, and the processes on it: put together as their `main` does,
and started again when they end, as an init system does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from services.compute.agent import Agent
from services.compute.concerns import reads_of
from services.compute.drivers.hypervisor import Power
from services.compute.guard import LAST_RESORT_PERIOD_S, Guard
from services.compute.main import AGENT_PERIOD_S, JOBS_PERIOD_S
from services.compute.presence import Hardware, Presence
from services.compute.settings import ComputeSettings
from services.compute.standing import Standing
from services.compute.succession import Succession
from services.coordinator.drivers.fake import FakeController
from services.coordinator.loop import PERIOD_S as COORDINATOR_PERIOD_S
from services.coordinator.loop import READS as COORDINATOR_READS
from services.coordinator.loop import Coordinator
from services.mesh.jobs import work_of
from tests.simulator import ticks
from tests.simulator.clock import EPOCH_S, SimClock
from tests.simulator.engine import Process, ProcessDied
from tests.simulator.jobs import vm_jobs
from tests.simulator.machine import VERBS, Gated, Machine
from tests.simulator.power import SimPower, add_fencing, address_of
from tests.simulator.store import SimStore
from tests.simulator.watchdog import VERBS as WATCHDOG_VERBS
from tests.simulator.watchdog import SimWatchdog
from tests.simulator.world import Thing

if TYPE_CHECKING:
    from tests.simulator.cluster import SimCluster

RESTART_S = 1.0
"""From the end of a process to its next start."""
BOOT_S = 30.0
"""From power to the start of the services."""
BMC_FACTS = {
    "dead": ("dead",),
    "lying": ("lying",),
    "stuck": ("stuck",),
    "anothers": ("stuck", "lying"),
}
"""What a controller is from the beginning. One that is another machine's says "off" when it was
told to switch off, and switches nothing of this one."""
SERVICES = ("compute", "coordinator")


class SimNode:
    """A machine and the processes on it."""

    def __init__(self, cluster: SimCluster, number: int, thing: Thing) -> None:
        self.cluster = cluster
        self.thing = thing
        self.id = thing.name
        self.name = f"nodes/{thing.name}"
        rate, skew = float(thing.facts["rate"]), float(thing.facts["skew"])
        self.clock = SimClock(cluster.engine, number, skew, rate)
        self.machine = Machine(
            cluster.engine, self.id, cluster.locks, cluster.holder, cluster.touched
        )
        self.machine.hypervisor.join(cluster.wire, self.id)
        self.watchdog: SimWatchdog | None = None
        if thing.facts.get("watchdog", "yes") == "yes":
            wrong = float(thing.facts.get("watchdog-rate", "1"))
            self.watchdog = SimWatchdog(
                cluster.engine, lambda: self.reset("is reset by its watchdog"), wrong
            )
        self.controller = FakeController(
            cut=self._cut_by_controller, start=self._started_by_controller
        )
        for how in BMC_FACTS.get(thing.facts.get("bmc", "yes"), ()):
            setattr(self.controller, how, True)
        self.unreached: set[str] = set()
        """Controllers, by address, that this node does not reach."""
        self.processes: dict[str, Process] = {}
        self.stores: dict[str, SimStore] = {}
        self.noted = ""
        """The session that its agent noted for the next one."""
        self.cut: set[str] = set()
        """Services that cannot reach the store."""
        self.stopped: set[str] = set()
        """Services that are not to be started again."""
        self.late: dict[str, float] = {}
        """Service → how late its mirror is."""

    def start(self, service: str, behind_s: float = 0.0) -> None:
        """Starts a process, unless it runs or the machine is off."""
        known = self.processes.get(service)
        if not self.machine.on or service in self.stopped or (known and known.alive):
            return
        engine = self.cluster.engine
        if service in self.cut or not self.cluster.ensemble.up:
            engine.after(RESTART_S, lambda: self._start_again(service, behind_s))
            return
        process = Process(engine, self.id, service)
        store = SimStore(self.cluster.ensemble, process, behind_s)
        store.late_s = self.late.get(service, 0.0)
        self.processes[service], self.stores[service] = process, store
        process.needs_strand = lambda: store.may_wait
        with engine.as_process(process):
            self._build(service, process, store)
        process.on_death.append(lambda: self._ended(service, process))

    def _start_again(self, service: str, behind_s: float) -> None:
        """It could not begin without the store, and ended."""
        self.start(service, behind_s)

    def _build(self, service: str, process: Process, store: SimStore) -> None:
        try:
            match service:
                case "compute":
                    self._build_compute(process, store)
                case "coordinator":
                    coordinator = Coordinator(store, self.clock, self.name)
                    process.on_end.append(coordinator.lead.close)
                    controllers = {address_of(n.id): n.controller for n in self.cluster.with_bmc()}
                    power = SimPower(process, controllers, lambda x: x not in self.unreached)
                    add_fencing(process, store, self.clock, self.name, coordinator, power)
                    process.add(
                        "coordinator", coordinator.step, COORDINATOR_PERIOD_S, COORDINATOR_READS
                    ).hint = ticks.of_coordinator(coordinator, self.clock)
        except ProcessDied:
            process.die()

    def _host(self) -> str:
        """Where its hypervisor takes VMs in."""
        return self.id if self.thing.facts.get("door", "yes") == "yes" else ""

    def _build_compute(self, process: Process, store: SimStore) -> None:
        hypervisor = Gated(self.machine.hypervisor, process, VERBS)
        settings = ComputeSettings(
            self.name, Path("/nowhere"), version="1", parallel=0, migration_host=self._host()
        )
        booted = Timestamp(seconds=int(EPOCH_S + self.machine.booted_at + self.clock.skew_s))
        facts = hypervisor.facts()
        hardware = Hardware(
            int(self.thing.facts["cpus"]),
            int(self.thing.facts["memory"]) + settings.memory_reserve_mib,
            "6.1",
            self.machine.boot_id,
            booted,
        )
        self.machine.hypervisor.forget()
        standing = Standing(store, self.name)
        line = SimSuccession(self)
        presence = Presence(
            store, self.clock, settings, facts, hardware, standing,
            cast(Succession, line),
        )  # fmt: skip
        agent = Agent(store, self.clock, hypervisor, settings, facts, presence)
        loop = process.add("compute-agent", agent.step, AGENT_PERIOD_S, reads_of(self.name))
        agent.wake = loop.wake
        loop.hint = ticks.of_agent(agent, self.clock)
        self._add_guard(process, store, standing, hypervisor)
        jobs = vm_jobs(process, store, self.clock, self.name, hypervisor)
        process.add("compute-jobs", jobs.step, JOBS_PERIOD_S, work_of("compute"))
        self.machine.hypervisor.on_event(agent.look_again)

    def _add_guard(
        self, process: Process, store: SimStore, standing: Standing, hypervisor: Any
    ) -> None:
        """As services.compute.main, but for the threads that the guard has of its own."""
        device = self.watchdog
        gated = Gated(device, process, WATCHDOG_VERBS) if device is not None else None
        guard = Guard(store, self.clock, standing, gated, "/dev/watchdog")
        process.on_end.append(guard.leave)
        if device is not None:
            guard.kill = lambda: end_all(hypervisor)
            period_s = store.session_timeout_s / 24
            process.add("guard", guard.step, period_s, ())
            process.add("guard-feed", guard.feed, period_s, ())
            loop = process.add("guard-last-resort", guard.last_resort, LAST_RESORT_PERIOD_S, ())
            loop.hint = ticks.of_last_resort(guard, self.clock)

    def _ended(self, service: str, process: Process) -> None:
        self.cluster.tell(f"{process.name}", "ended")
        self.cluster.engine.after(RESTART_S, lambda: self.start(service))

    def start_all(self, behind_s: float = 0.0) -> None:
        for service in SERVICES:
            self.start(service, behind_s)

    def end(self, service: str) -> None:
        """The process is killed."""
        process = self.processes.get(service)
        if process is not None:
            process.die()

    def end_in_order(self, service: str, back_s: float) -> None:
        """The process is asked to end, does what it does then, and is started again later."""
        process, store = self.processes.get(service), self.stores.get(service)
        if process is None or store is None or not process.alive:
            return
        self.stopped.add(service)
        engine = self.cluster.engine

        def ending() -> None:
            for deed in process.on_end:
                deed()
            store.close()
            process.die()

        def again() -> None:
            self.stopped.discard(service)
            self.start(service)

        with engine.as_process(process):
            engine.on_strand(ending)
        engine.after(back_s, again)

    def _cut_by_controller(self) -> None:
        self.power_off("its controller cuts its power")

    def _started_by_controller(self) -> None:
        self.power_on(why="its controller switches it on")

    def power_off(self, why: str) -> None:
        """Everything in the machine ends at once."""
        self.controller.on = False
        if self.machine.on:
            self.cluster.tell(f"machine {self.id}", why)
            self.noted = ""
            self.machine.lose_power()
            if self.watchdog is not None:
                self.watchdog.power_lost()
            for service in SERVICES:
                self.end(service)

    def power_on(
        self, boot_s: float = BOOT_S, behind_s: float = 0.0, why: str = "has power"
    ) -> None:
        """behind_s: how old the state is that its services see first."""
        if not self.machine.on:
            self.controller.on = True
            self.cluster.tell(f"machine {self.id}", why)
            self.machine.boot()
            boots = self.machine.boots
            self.cluster.engine.after(boot_s, lambda: self._booted(boots, behind_s))

    def _booted(self, boots: int, behind_s: float) -> None:
        if self.machine.boots == boots and self.machine.on:
            self.start_all(behind_s)

    def reset(self, why: str) -> None:
        self.power_off(why)
        self.power_on()

    def set_cut(self, services: tuple[str, ...], cut: bool) -> None:
        for service in services:
            (self.cut.add if cut else self.cut.discard)(service)
            if service in self.stores:
                self.stores[service].set_cut(cut)

    def freeze(self, services: tuple[str, ...], seconds: float) -> None:
        """The processes stand still; the store does not hear of them meanwhile."""
        for service in services:
            process, store = self.processes.get(service), self.stores.get(service)
            if process is not None and store is not None and process.alive:
                store.set_silent(True)
                process.freeze(seconds)
                goes_on = partial(_goes_on, process, store)
                self.cluster.engine.at(process.frozen_until, goes_on)


def _goes_on(process: Process, store: SimStore) -> None:
    if not process.frozen:
        store.set_silent(False)


def end_all(hypervisor: Any) -> None:
    """As services.compute.guard, one after the other."""
    for domain in hypervisor.domains().values():
        if domain.power is not Power.OFF:
            hypervisor.destroy(domain.vm)


class SimSuccession:
    """As services.compute.succession; what it notes is gone when the machine starts anew."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._former = node.noted

    def former(self) -> str:
        """See Succession."""
        return self._former

    def note(self, session: str) -> None:
        """See Succession."""
        self._node.noted = session

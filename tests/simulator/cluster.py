"""A simulated cluster: machines with the real agents and coordinators on them, one store, a clock.

Puts the processes together as their `main` does, and starts them again when they end, as an init
system does. What is done to it is in `deeds`; what must always be so in `invariants`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.agent import READS as AGENT_READS
from services.compute.agent import Agent
from services.compute.drivers.fake_migration import Wire
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
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.simulator import ticks
from tests.simulator.clock import EPOCH_S, SimClock
from tests.simulator.engine import Engine, Process, ProcessDied
from tests.simulator.jobs import vm_jobs
from tests.simulator.machine import VERBS, Gated, Machine
from tests.simulator.power import REDFISH, SimPower, add_fencing, address_of
from tests.simulator.store import Ensemble, SimStore
from tests.simulator.watchdog import VERBS as WATCHDOG_VERBS
from tests.simulator.watchdog import SimWatchdog
from tests.simulator.world import Thing, World

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
POOL = "pools/shared"
_OPERATION = re.compile(r"operations/[0-9a-z]{26}")


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
        self.controller = FakeController(cut=self._cut_by_controller)
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
        loop = process.add("compute-agent", agent.step, AGENT_PERIOD_S, AGENT_READS)
        agent.wake = loop.wake
        loop.hint = ticks.of_agent(agent, self.clock)
        self._add_guard(process, store, standing, hypervisor)
        jobs = vm_jobs(process, store, self.clock, self.name, hypervisor)
        process.add("compute-jobs", jobs.step, JOBS_PERIOD_S, ("operations",))
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
            process.add("guard", guard.step, store.session_timeout_s / 12, ())
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

    def power_on(self, boot_s: float = BOOT_S, behind_s: float = 0.0) -> None:
        """behind_s: how old the state is that its services see first."""
        if not self.machine.on:
            self.controller.on = True
            self.cluster.tell(f"machine {self.id}", "has power")
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
                self.cluster.engine.after(seconds, lambda s=store: s.set_silent(False))
                process.freeze(seconds)


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


class SimCluster:
    """All of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = Engine()
        self.locks = world.option("locks", "on") == "on"
        timeout_s = float(world.option("timeout", "6"))
        self.ensemble = Ensemble(self.engine, world.seed, timeout_s)
        self.wire = Wire()
        self.owners: dict[str, tuple[str, int]] = {}
        """Session → the machine, and which of its starts, that its process ran in."""
        self.ensemble.session_began = self._session_began
        self.ensemble.session_ended = self._session_ended
        self._leader = ""
        self.log: list[str] = []
        self._numbers: dict[str, int] = {}
        self.listeners: list[tuple[str, str, Callable[[], None]]] = []
        """Process, words, and what is to happen once it says them."""
        self.excused: dict[str, int] = {}
        """VM → the request to run after which it may be off all the same."""
        self.began = 0
        self.began_at = 0.0
        """The line of the log, and the time, at which the script begins."""
        self.accepted: dict[str, str] = {}
        """Operations that users were promised, and what they are."""
        self.on_touched: Callable[[], None] = lambda: None
        self.nodes = {
            thing.name: SimNode(self, number, thing) for number, thing in enumerate(world.nodes)
        }
        self.user = Process(self.engine, "user", "gateway")
        self.user_store = SimStore(self.ensemble, self.user)
        self.user_clock = SimClock(self.engine, 99)
        self._storage = MemoryStore(self.ensemble.cluster)
        self.ensemble.cluster.mirror.on_change(self.look_at_leader)
        self.user_store.commit(list(self._first_rows()))

    def _first_rows(self) -> list[Put]:
        pool = storage_pb2.Pool(name=POOL)
        pool.spec.shared = True
        cluster = cluster_pb2.ClusterIdentity(name="clusters/this", display_name="sim")
        for field in cluster.spec.DESCRIPTOR.fields:
            if (value := self.world.options.get(field.name)) is not None:
                setattr(
                    cluster.spec, field.name, type(getattr(cluster.spec, field.name))(int(value))
                )
        return [Put(pool), Put(cluster), *map(Put, self._node_rows())]

    def _node_rows(self) -> Iterator[cluster_pb2.Node]:
        """The nodes as they are when they were added and have not come yet."""
        for node in self.nodes.values():
            row = cluster_pb2.Node(name=node.name, meta=meta_pb2.Meta(uid=node.name, generation=1))
            row.decision.state = cluster_pb2.NODE_STATE_JOINING
            row.spec.coordinator = node.thing.facts.get("coordinator", "yes") == "yes"
            if node.thing.facts.get("bmc", "yes") != "no":
                row.spec.power_control.protocol = REDFISH
                row.spec.power_control.address = address_of(node.id)
            row.spec.tags.extend(filter(None, node.thing.facts.get("tags", "").split(",")))
            yield row

    def add_volume(self, vm: str) -> str:
        """A volume that any node can open."""
        name = f"{POOL}/volumes/{vm}-root"
        if self.ensemble.snapshot.named(name) is None:
            row = storage_pb2.Volume(name=name, meta=meta_pb2.Meta(uid=name))
            row.spec.size_bytes = 1 << 30
            row.status.state = storage_pb2.VolumeStatus.STATE_READY
            row.status.path = f"/shared/{vm}-root.qcow2"
            row.status.size_bytes = 1 << 30
            self._storage.commit([Put(row)])
            self.user_store.catch_up()
        return name

    def start(self) -> None:
        """All machines have power, all services begin."""
        for node in self.nodes.values():
            node.start_all()

    def _session_began(self, process: str, session: str) -> None:
        node = self.nodes.get(process.partition("/")[0])
        if node is not None:
            self.owners[session] = (node.id, node.machine.boots)

    def _session_ended(self, process: str, session: str) -> None:
        self.tell("store", f"the session of {process} has ended")

    def look_at_leader(self) -> None:
        """Tells of another leader."""
        leader = self.ensemble.snapshot.leases.get("leader", "")
        if leader != self._leader:
            self._leader = leader
            self.tell("store", f"{leader or 'nobody'} leads")

    def with_bmc(self) -> list[SimNode]:
        """Nodes whose power can be switched from outside."""
        return [n for n in self.nodes.values() if n.thing.facts.get("bmc", "yes") != "no"]

    def holder(self, vm: str) -> str:
        """The machine that has a VM's images open."""
        for node in self.nodes.values():
            if vm in node.machine.running():
                return node.id
        return ""

    def runners(self, vm: str) -> list[str]:
        """Machines on which the VM's emulator is there."""
        return [n.id for n in self.nodes.values() if vm in n.machine.running()]

    def touched(self) -> None:
        """A machine or a domain changed."""
        self.on_touched()

    def tell(self, who: str, what: str) -> None:
        """A line of the log."""
        what = _OPERATION.sub(lambda found: self._called(found[0]), what)
        self.log.append(f"{self.engine.now - self.began_at:8.3f} {who}: {what}")

    def entry(self) -> str:
        """The node whose services answer the user."""
        for node in self.nodes.values():
            if node.machine.on:
                return node.name
        return next(iter(self.nodes.values())).name

    def heard(self, process: Process, words: str) -> None:
        """A process said something. What follows may end it there."""
        for listener in [one for one in self.listeners if one[0] == process.name]:
            if listener[1] in words:
                self.listeners.remove(listener)
                listener[2]()

    def _called(self, operation: str) -> str:
        """Operations by number: their ids are long, and say nothing."""
        number = self._numbers.setdefault(operation, len(self._numbers) + 1)
        return f"operation {number}"

    def node_row(self, node: str) -> Any:
        return self.ensemble.snapshot.find(cluster_pb2.Node, f"nodes/{node}")

    def close(self) -> None:
        """Ends everything, strands too."""
        for node in self.nodes.values():
            for process in node.processes.values():
                process.on_death.clear()
                process.die()
        self.engine.close()

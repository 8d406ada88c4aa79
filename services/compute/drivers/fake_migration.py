"""Migration between hypervisors in memory. They share a wire, which knows them by their hosts;
nothing happens but when one of them is asked something, and then as the clock has it by then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from services.compute.drivers.arrivals import with_files
from services.compute.drivers.fake_machine import Machine, Script, failed, running_xml
from services.compute.drivers.hypervisor import Crossing, OffReason, Passage, Power, Route

MEMORY_BYTES = 128 << 20
PASS_S = 0.5
"""One pass over the memory of a guest that writes as fast as it is copied."""
THROTTLE_PERCENT = 80


@dataclass(slots=True)
class Trip:
    """One migration that goes on."""

    vm: str
    source: FakeMigrations
    target: FakeMigrations
    route: Route
    began: float
    downtime_ms: int
    was: Power
    throttled: bool = False
    post_copy: bool = False
    post_copy_at: float = 0.0
    aborted: bool = False


@dataclass(slots=True)
class Wire:
    """What connects hypervisors."""

    hosts: dict[str, FakeMigrations] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    """Hosts that nobody reaches, and that reach nobody."""
    trips: list[Trip] = field(default_factory=list)
    busy: bool = False

    def advance(self) -> None:
        """Does what is due by now."""
        if self.busy:
            return
        self.busy = True
        try:
            for trip in tuple(self.trips):
                self._move(trip)
        finally:
            self.busy = False

    def _move(self, trip: Trip) -> None:
        source, target = trip.source.known(trip.vm), trip.target.known(trip.vm)
        script = trip.source.script(trip.vm)
        if source is None or source.power is Power.OFF:
            self._end(trip, "domain is not running")
        elif target is None or target.crossing is not Crossing.INCOMING:
            self._end(trip, "the other side closed the connection")
        elif {trip.source.host, trip.target.host} & self.cut:
            self._end(trip, "no answer from the other side")
        elif trip.aborted:
            self._end(trip, "operation aborted: canceled by client")
        elif trip.source.copied(trip):
            if script.migration_fails:
                self._end(trip, script.migration_fails)
            else:
                self._switch(trip, source, target)

    def _end(self, trip: Trip, why: str) -> None:
        """Without success: it goes on at the source, and what came in vanishes."""
        self.trips.remove(trip)
        coming = trip.target.known(trip.vm)
        if coming is not None and coming.crossing is Crossing.INCOMING:
            trip.target.drop(coming)
        trip.source.ended(trip.vm, Passage(ended=True, why=why))

    def _switch(self, trip: Trip, source: Machine, target: Machine) -> None:
        self.trips.remove(trip)
        target.power, target.crossing, target.kept = trip.was, Crossing.NONE, True
        trip.target.stirred(trip.vm)
        trip.source.gone(source)
        pause = 5 if trip.post_copy else trip.downtime_ms // 2
        trip.source.ended(trip.vm, Passage(ended=True, downtime_ms=pause))


class FakeMigrations(ABC):
    """Implements Migrations. `host` and `wire` are for the test to set."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._machines: dict[str, Machine] = {}
        self._scripts: dict[str, Script] = {}
        self._runs = 0
        self._passages: dict[str, Passage] = {}
        self.host = ""
        self.wire = Wire()

    def script(self, vm: str) -> Script:
        """How the VM misbehaves; change it at will."""
        return self._scripts.setdefault(vm, Script())

    def join(self, wire: Wire, host: str) -> None:
        """Connects it."""
        self.host, self.wire = host, wire
        wire.hosts[host] = self

    def forget(self) -> None:
        """What only the process that asks knows: as after its end."""
        self._passages.clear()

    def interrupt(self, vm: str) -> None:
        """The domain stands still at the source, and nobody there knows whether the other has it:
        as when libvirt dies in the middle of the switch-over."""
        self.wire.trips = [trip for trip in self.wire.trips if trip.vm != vm]
        machine = self._machine(vm)
        machine.power, machine.crossing = Power.PAUSED, Crossing.OUTGOING
        self._passages.pop(vm, None)
        self._wake(vm)

    def refuses(self, vm: str, host: str, copied: Collection[str]) -> tuple[str, ...]:
        """See Migrations."""
        peer = self._peer(host)
        machine = peer.known(vm) if peer is not None else None
        if machine is None:
            return (f"its node's hypervisor at {host} cannot be asked",)
        return self.script(vm).refuses

    def migrate(self, vm: str, route: Route) -> None:
        """See Migrations."""
        self._passages.pop(vm, None)
        self.wire.advance()
        if self._trip(vm) is None:
            self._do("migrate", vm, lambda: self._depart(vm, route))

    def migration(self, vm: str) -> Passage | None:
        """See Migrations."""
        self.wire.advance()
        trip = self._trip(vm)
        return self._passages.get(vm) if trip is None else self._progress(trip)

    def set_downtime(self, vm: str, downtime_ms: int) -> None:
        """See Migrations."""
        self._change_trip("set_downtime", vm, downtime_ms=downtime_ms)

    def throttle(self, vm: str) -> None:
        """See Migrations."""
        self._change_trip("throttle", vm, throttled=True)

    def start_post_copy(self, vm: str) -> None:
        """See Migrations."""
        self._change_trip("start_post_copy", vm, post_copy=True, post_copy_at=self._now())

    def abort_migration(self, vm: str) -> None:
        """See Migrations."""
        script = self.script(vm)
        heard = script.unheard_aborts <= 0
        script.unheard_aborts -= 1
        self._change_trip("abort_migration", vm, **({"aborted": True} if heard else {}))

    def known(self, vm: str) -> Machine | None:
        """The domain of that name."""
        return self._machines.get(vm)

    def copied(self, trip: Trip) -> bool:
        """By now there is little enough left."""
        script = self.script(trip.vm)
        if self._now() < trip.began + script.copying_s:
            return False
        if trip.post_copy:
            return self._now() >= trip.post_copy_at + script.post_copy_s
        slow = script.never_converges or (script.needs_throttle and not trip.throttled)
        return not slow and trip.downtime_ms >= script.needs_downtime_ms

    def ended(self, vm: str, passage: Passage) -> None:
        """A migration away from here ended so."""
        self._passages[vm] = passage
        self._wake(vm)

    def gone(self, machine: Machine) -> None:
        """It runs elsewhere."""
        self._off(machine, OffReason.MIGRATED)

    def drop(self, machine: Machine) -> None:
        """It does not come in after all."""
        self._off(machine, OffReason.DESTROYED)

    def stirred(self, vm: str) -> None:
        """Something about it changed."""
        self._wake(vm)

    def _depart(self, vm: str, route: Route) -> None:
        machine, target = self._running(vm, "migrate"), self._peer(route.host)
        if target is None:
            raise failed(f"migrate {vm}", f"unable to connect to server at '{route.host}'")
        if (there := target.known(vm)) is not None and there.power is not Power.OFF:
            raise failed(f"migrate {vm}", "domain is already active on the other host")
        target.receive(machine, route.files)
        began = self._now()
        self.wire.trips.append(
            Trip(vm, self, target, route, began, route.downtime_ms, machine.power)
        )

    def receive(self, machine: Machine, files: Mapping[str, str]) -> None:
        """It begins to come in. files: as in Route."""
        there = replace(machine, kept=False, console=None, off_at=None, crossing=Crossing.INCOMING)
        if files:
            there.defined, _ = with_files(machine.defined, files)
        there.power = Power.PAUSED
        self._begin_run(there)
        self._machines[machine.vm] = there
        self._wake(machine.vm)

    def _begin_run(self, machine: Machine) -> None:
        self._runs += 1
        machine.live = running_xml(machine.defined, self._runs)
        machine.run = f"run-{self._runs}"

    def _progress(self, trip: Trip) -> Passage:
        script, passed_s = self.script(trip.vm), self._now() - trip.began
        left = 1 - passed_s / script.copying_s if script.copying_s > passed_s else 0.25
        stalled_s = max(passed_s - script.copying_s, 0.0)
        return Passage(
            remaining_bytes=int(MEMORY_BYTES * left),
            total_bytes=MEMORY_BYTES,
            dirty_bytes_per_s=64 << 20,
            copied_bytes_per_s=64 << 20,
            iterations=1 + int(stalled_s / PASS_S),
            throttle_percent=THROTTLE_PERCENT if trip.throttled else 0,
            post_copy=trip.post_copy,
        )

    def _change_trip(self, verb: str, vm: str, **change: float) -> None:
        self.wire.advance()

        def act() -> None:
            trip = self._trip(vm)
            for field_name, value in change.items() if trip is not None else ():
                setattr(trip, field_name, value)

        self._do(verb, vm, act)

    def _trip(self, vm: str) -> Trip | None:
        return next((t for t in self.wire.trips if t.vm == vm and t.source is self), None)

    def _peer(self, host: str) -> FakeMigrations | None:
        return None if {host, self.host} & self.wire.cut else self.wire.hosts.get(host)

    @abstractmethod
    def _do(self, verb: str, vm: str, act: Callable[[], None]) -> None: ...

    @abstractmethod
    def _machine(self, vm: str) -> Machine: ...

    @abstractmethod
    def _running(self, vm: str, what: str) -> Machine: ...

    @abstractmethod
    def _off(self, machine: Machine, reason: OffReason) -> None: ...

    @abstractmethod
    def _wake(self, vm: str) -> None: ...

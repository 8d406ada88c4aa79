"""The machines: power, boot ids, and the domains on them. What is true here is what the invariants
go by, whatever anybody believes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pvc.core.v1 import reason_pb2
from services.compute.drivers.fake import FakeHypervisor
from services.compute.drivers.hypervisor import Crossing, Domain, OffReason, Passage, Power
from services.mesh.errors import PvcError
from tests.simulator.engine import Engine, Process

VERBS = frozenset(
    {
        "domains", "define", "start", "shutdown", "destroy", "undefine", "reset", "pause", "resume",
        "attach", "detach", "update_device", "set_vcpus", "set_memory", "refuses", "migrate",
        "migration", "set_downtime", "throttle", "start_post_copy", "abort_migration",
    }
)  # fmt: skip


class SimHypervisor(FakeHypervisor):
    """One machine's. Images that another machine has open are locked, unless there are no locks."""

    def __init__(self, engine: Engine, machine: Machine) -> None:
        super().__init__(lambda: engine.now, accelerator="kvm")
        self._owner = machine
        self.away = False
        """libvirtd does not answer; what runs goes on."""

    def domains(self) -> Mapping[str, Domain]:
        """See Hypervisor."""
        self._check_there()
        return super().domains()

    def start(self, vm: str) -> None:
        """See Hypervisor."""
        owner = self._owner
        if owner.locks and owner.holder(vm) not in ("", owner.name):
            known = self._machine(vm)
            if known.power is Power.OFF:
                known.off_reason = OffReason.START_FAILED
            raise PvcError(
                reason_pb2.REASON_HYPERVISOR_FAILED,
                f'the hypervisor could not start {vm}: Failed to get "write" lock: is another '
                "process using the image?",
            )
        super().start(vm)

    def refuses(self, vm: str, host: str, copied: Collection[str]) -> tuple[str, ...]:
        """See Migrations."""
        self._check_there()
        return super().refuses(vm, host, copied)

    def migration(self, vm: str) -> Passage | None:
        """See Migrations."""
        self._check_there()
        return super().migration(vm)

    def _do(self, verb: str, vm: str, act: Callable[[], None]) -> None:
        self._check_there()
        super()._do(verb, vm, act)
        self._owner.changed()

    def _off(self, machine: Any, reason: OffReason) -> None:
        super()._off(machine, reason)
        self._owner.changed()

    def _wake(self, vm: str) -> None:
        super()._wake(vm)
        self._owner.changed()

    def _check_there(self) -> None:
        if self.away:
            raise PvcError(reason_pb2.REASON_DEADLINE, "libvirt did not answer within 10 s")

    def stir(self) -> None:
        """Its events come again: everybody looks."""
        for wake in self._wakes:
            wake()

    def heal(self) -> None:
        """No verb misbehaves any more."""
        for script in self._scripts.values():
            script.start_fails = script.migration_fails = ""
            script.refuses = ()
            script.never_converges = False
            script.hangs.clear()
            script.works_late.clear()
        self.stir()

    def torn(self, vm: str) -> bool:
        """The switch-over of a migration is done, and nobody here is told: the domain stands still,
        and its other half goes on over there."""
        for trip in self.wire.trips:
            coming = trip.target.known(vm)
            if trip.vm == vm and trip.source is self and coming is not None:
                coming.power, coming.crossing, coming.kept = trip.was, Crossing.NONE, True
                trip.target.stirred(vm)
                self.interrupt(vm)
                return True
        return False

    def moving(self, vm: str) -> bool:
        """A migration away from here goes on."""
        return any(trip.vm == vm and trip.source is self for trip in self.wire.trips)

    def defined(self) -> list[str]:
        """All domains."""
        return list(self._machines)

    def on(self) -> list[str]:
        """VMs whose processors go, or may any moment: not those that stand between two machines,
        which only somebody who knows lets go on."""
        return [
            machine.vm
            for machine in self._machines.values()
            if machine.power is not Power.OFF and machine.crossing is Crossing.NONE
        ]

    def power_of(self, vm: str) -> Power:
        machine = self._machines.get(vm)
        return machine.power if machine is not None else Power.OFF


class Machine:
    """One node's hardware."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        locks: bool,
        holder: Callable[[str], str],
        changed: Callable[[], None],
    ) -> None:
        """holder: VM → the machine that has its images open, "" for none."""
        self._engine = engine
        self.name = name
        self.locks = locks
        self.holder = holder
        self.changed = changed
        self.on = True
        self.boots = 1
        self.booted_at = -60.0
        self.fenced_off = False
        """The storage refuses its addresses."""
        self.hypervisor = SimHypervisor(engine, self)

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    def lose_power(self) -> None:
        """Everything in it ends at once."""
        self.on = False
        self.hypervisor.lose_power()
        self.changed()

    def boot(self) -> None:
        """It starts anew; libvirtd knows what was defined."""
        self.on = True
        self.boots += 1
        self.booted_at = self._engine.now
        self.hypervisor.away = False

    def writing(self) -> list[str]:
        """VMs whose emulator can write to their volumes."""
        return [] if self.fenced_off else self.running()

    def running(self) -> list[str]:
        """VMs whose emulator is there: what they do not do now they may do any moment."""
        return self.hypervisor.on() if self.on else []


class Gated:
    """A driver as a process has it: before and after each verb it may die or stand still."""

    def __init__(self, target: Any, process: Process, verbs: frozenset[str]) -> None:
        self._target = target
        self._process = process
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._verbs:
            return found
        process = self._process

        def verb(*given: Any, **named: Any) -> Any:
            process.gate(name)
            answer = found(*given, **named)
            process.gate(f"{name} done")
            return answer

        self.__dict__[name] = verb
        return verb

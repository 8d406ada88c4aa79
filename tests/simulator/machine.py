"""The machines: power, boot ids, and the domains on them. What is true here is what the invariants
go by, whatever anybody believes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pvc.core.v1 import reason_pb2
from services.compute.drivers.fake import FakeHypervisor
from services.compute.drivers.hypervisor import Domain, OffReason, Power
from services.mesh.errors import PvcError
from tests.simulator.engine import Engine, Process

VERBS = frozenset(
    {
        "domains", "define", "start", "shutdown", "destroy", "undefine", "reset", "pause", "resume",
        "attach", "detach", "update_device", "set_vcpus", "set_memory",
    }
)  # fmt: skip


class SimHypervisor(FakeHypervisor):
    """One machine's. Images that another machine has open are locked, unless there are no locks."""

    def __init__(self, engine: Engine, machine: Machine) -> None:
        super().__init__(lambda: engine.now, accelerator="kvm")
        self._machine_of_mine = machine
        self.away = False
        """libvirtd does not answer; what runs goes on."""

    def domains(self) -> Mapping[str, Domain]:
        """See Hypervisor."""
        self._check_there()
        return super().domains()

    def start(self, vm: str) -> None:
        """See Hypervisor."""
        machine = self._machine_of_mine
        if machine.locks and machine.holder(vm) not in ("", machine.name):
            known = self._machine(vm)
            if known.power is Power.OFF:
                known.off_reason = OffReason.START_FAILED
            raise PvcError(
                reason_pb2.REASON_HYPERVISOR_FAILED,
                f'the hypervisor could not start {vm}: Failed to get "write" lock: is another '
                "process using the image?",
            )
        super().start(vm)

    def _do(self, verb: str, vm: str, act: Callable[[], None]) -> None:
        self._check_there()
        super()._do(verb, vm, act)
        self._machine_of_mine.changed()

    def _off(self, machine: Any, reason: OffReason) -> None:
        super()._off(machine, reason)
        self._machine_of_mine.changed()

    def _check_there(self) -> None:
        if self.away:
            raise PvcError(reason_pb2.REASON_DEADLINE, "libvirt did not answer within 10 s")

    def machine_stopped(self) -> None:
        """The machine lost its power, or was reset: no guest is left, what was defined is."""
        for machine in self._machines.values():
            if machine.power is not Power.OFF:
                super()._off(machine, OffReason.UNKNOWN)

    def stir(self) -> None:
        """Its events come again: everybody looks."""
        for wake in self._wakes:
            wake()

    def heal(self) -> None:
        """No verb misbehaves any more."""
        for script in self._scripts.values():
            script.start_fails = ""
            script.hangs.clear()
            script.works_late.clear()
        self.stir()

    def on(self) -> list[str]:
        """VMs whose emulator is there."""
        return [m.vm for m in self._machines.values() if m.power is not Power.OFF]

    def defined(self) -> list[str]:
        """All domains."""
        return list(self._machines)

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
        self.hypervisor.machine_stopped()
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

"""The fake driver as tests of the agent use it: it tells what was asked of it, in order, and can be
cut, blocked and away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from pvc.core.v1 import reason_pb2
from services.compute.drivers import observed
from services.compute.drivers.fake import FakeHypervisor
from services.compute.drivers.hypervisor import Domain, Facts, OffReason, Power, Route
from services.mesh.errors import PvcError

VERBS = (
    "start", "shutdown", "destroy", "undefine", "reset", "pause", "resume", "attach", "detach",
    "update_device", "set_vcpus", "set_memory", "migrate", "set_downtime", "throttle",
    "start_post_copy", "abort_migration",
)  # fmt: skip
"""What changes a domain; `define`, which names it inside its XML, is told too."""


class Cut(BaseException):
    """The process ends here."""


class TellingHypervisor(FakeHypervisor):
    """See the file's text. Safe for several threads."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(now)
        self.told: list[str] = []
        """ "define web", "attach web ua-disk-data"…"""
        self.before: Callable[[str], None] = lambda call: None
        """Called before everything that is asked; may raise."""
        self.away = False
        self.blocked: dict[str, threading.Event] = {}
        """Domains whose start waits for the event."""
        self._one = threading.RLock()
        for verb in VERBS:
            setattr(self, verb, self._telling(verb))

    def facts(self) -> Facts:
        return super().facts()

    def domains(self) -> Mapping[str, Domain]:
        self._ask("domains")
        with self._one:
            return super().domains()

    def define(self, xml: str) -> None:
        call = f"define {observed.parse_domain(xml).vm}"
        self._ask(call)
        with self._one:
            self.told.append(call)
            super().define(xml)

    def end(self, vm: str, reason: OffReason) -> None:
        """The emulator ends for this reason, whatever it was doing."""
        with self._one:
            self._off(self._machine(vm), reason)

    def halt(self, vm: str) -> None:
        """The emulator stops the processors by itself, as when a disk is full."""
        with self._one:
            self._machine(vm).power = Power.PAUSED

    def names(self) -> set[str]:
        """The domains that there are."""
        return set(self._machines)

    def shape(self) -> dict[str, Any]:
        """What the domains are, without what differs from run to run."""
        return {name: (m.uuid, m.power) for name, m in self._machines.items()}

    def _telling(self, verb: str) -> Callable[..., None]:
        act = getattr(super(), verb)

        def tell(vm: str, *arguments: Any) -> None:
            what = arguments[0] if arguments else ""
            what = observed.device_alias(what) if str(what).startswith("<") else what
            what = f"to {what.host}" if isinstance(what, Route) else what
            call = f"{verb} {vm} {what}".strip()
            self._ask(call)
            if verb == "start" and vm in self.blocked:
                self.blocked[vm].wait(240)
            with self._one:
                self.told.append(call)
                act(vm, *arguments)

        return tell

    def _ask(self, call: str) -> None:
        self.before(call)
        if self.away:
            raise PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, "no connection")

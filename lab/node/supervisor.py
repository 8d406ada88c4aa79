"""Keeps a node's services running: starts what ended again, ends what is told to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.node.plan import Plan, Program

NEVER = float("inf")


@dataclass(slots=True)
class Service:
    """A program, and how it stands."""

    program: Program
    pid: int = 0
    wanted: bool = False
    start_at: float = NEVER
    kill_at: float = NEVER
    starts: int = 0
    ended: str = ""
    """How it ended the last time."""


class Supervisor:
    """For a single thread. Times are monotonic."""

    def __init__(self, plan: Plan) -> None:
        self._environment = dict(plan.environment)
        self._services = {program.name: Service(program) for program in plan.programs}

    def names(self) -> tuple[str, ...]:
        """The services."""
        return tuple(self._services)

    def boot(self) -> None:
        """Starts those whose condition holds."""
        for service in self._services.values():
            condition = service.program.condition
            if not condition or Path(condition).exists():
                self._start(service)

    def start(self, name: str, now: float) -> None:
        """One, or all of them."""
        for service in self._named(name):
            service.wanted = True
            if not service.pid:
                service.start_at = now

    def stop(self, name: str, now: float) -> None:
        """Tells one, or all of them, to end, and kills it if it does not."""
        for service in self._named(name):
            service.wanted, service.start_at = False, NEVER
            self._signal(service, signal.SIGTERM)
            service.kill_at = now + service.program.stop_s if service.pid else NEVER

    def restart(self, name: str, now: float) -> None:
        """Ends and starts one, or all that run."""
        for service in self._named(name):
            self.stop(service.program.name, now)
            self.start(service.program.name, now)

    def kill(self, name: str) -> None:
        """Kills one, or all; they are started again as after any death."""
        for service in self._named(name):
            self._signal(service, signal.SIGKILL)

    def state(self) -> dict[str, dict[str, object]]:
        """Of each service: its process here (0: none), how often it was started, how it ended."""
        return {
            name: {"pid": one.pid, "wanted": one.wanted, "starts": one.starts, "ended": one.ended}
            for name, one in self._services.items()
        }

    def due_s(self) -> float | None:
        """How long nothing is to be done."""
        soonest = min(min(one.start_at, one.kill_at) for one in self._services.values())
        return None if soonest == NEVER else max(0.0, soonest - time.monotonic())

    def tick(self, now: float) -> None:
        """Does what is due."""
        for service in self._services.values():
            if service.kill_at <= now:
                service.kill_at = NEVER
                self._signal(service, signal.SIGKILL)
            if service.start_at <= now and not service.pid:
                self._start(service)

    def bury(self) -> None:
        """Takes the exit status of all that ended, of orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self._services.values():
                if service.pid == pid:
                    self._ended(service, status)

    def _ended(self, service: Service, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        service.pid, service.kill_at = 0, NEVER
        service.ended = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        if service.wanted:
            service.start_at = time.monotonic() + service.program.restart_s

    def _start(self, service: Service) -> None:
        program = service.program
        service.wanted, service.start_at = True, NEVER
        service.starts += 1
        command = ["/usr/bin/env", "-C", program.directory, *program.command]
        log = os.open(program.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            service.pid = os.posix_spawn(
                command[0], command, self._environment, setsid=True,
                file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1),
                              (os.POSIX_SPAWN_DUP2, log, 2)],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )  # fmt: skip
        finally:
            os.close(log)
            os.close(null)

    def _named(self, name: str) -> Iterator[Service]:
        yield from (self._services[name],) if name else self._services.values()

    def _signal(self, service: Service, number: signal.Signals) -> None:
        if service.pid:
            with suppress(ProcessLookupError):
                os.kill(service.pid, number)

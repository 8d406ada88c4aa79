"""A controller and a storage in memory, with scripted misbehaviour: for tests and the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.coordinator.drivers.power import ANSWER_S, PowerTarget, failed


@dataclass(slots=True)
class FakeController:
    """One machine's. The machine itself is what `on`, `cut` and `start` reach."""

    password: str = ""
    on: bool = True
    cut: Callable[[], None] = lambda: None
    """Called when its power is cut."""
    start: Callable[[], None] = lambda: None
    """Called when it is switched on."""
    dead: bool = False
    """It does not answer."""
    refuses: bool = False
    """It refuses to switch anything."""
    lying: bool = False
    """It takes the command, does nothing, and tells the truth about that when asked."""
    stuck: bool = False
    """It says "off" whatever is so."""
    slow_s: float = 0.0
    """It answers after this long."""
    told: list[str] = field(default_factory=list)


class FakePower:
    """See PowerDriver. wait: what a slow answer is waited for with."""

    def __init__(self, wait: Callable[[float], None] = lambda _seconds: None) -> None:
        self.controllers: dict[str, FakeController] = {}
        """Address → the controller there."""
        self._wait = wait

    def is_on(self, target: PowerTarget) -> bool:
        """See PowerDriver."""
        controller = self._reached(target, "status")
        return controller.on and not controller.stuck

    def off(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        controller = self._reached(target, "off")
        if controller.refuses:
            raise failed(target, "it refuses to switch the power off")
        if not controller.lying and controller.on:
            controller.on = False
            controller.cut()

    def on(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        controller = self._reached(target, "on")
        if controller.refuses:
            raise failed(target, "it refuses to switch the power on")
        if not controller.lying and not controller.on:
            controller.on = True
            controller.start()

    def _reached(self, target: PowerTarget, verb: str) -> FakeController:
        controller = self.controllers.get(target.address)
        if controller is None or controller.dead:
            self._wait(ANSWER_S)
            raise failed(target, f"no answer within {ANSWER_S:g} s")
        self._wait(min(controller.slow_s, ANSWER_S))
        if controller.slow_s > ANSWER_S:
            raise failed(target, f"no answer within {ANSWER_S:g} s")
        if controller.password != target.password:
            raise failed(target, "it refuses the user or the password")
        controller.told.append(verb)
        return controller


class FakeStorageFence:
    """See StorageFence."""

    def __init__(self) -> None:
        self.uncovered: Mapping[str, str] = {}
        """Volume → why it cannot be fenced."""
        self.confirms = True
        self.fenced: set[str] = set()
        self.failure: Exception | None = None

    def covers(self, volumes: Sequence[str]) -> str:
        """See StorageFence."""
        return next((self.uncovered[name] for name in volumes if name in self.uncovered), "")

    def fence(self, clients: Sequence[str]) -> bool:
        """See StorageFence."""
        if self.failure is not None:
            raise self.failure
        self.fenced |= set(clients)
        return self.confirms

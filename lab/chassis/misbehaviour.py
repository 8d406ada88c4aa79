"""How a controller misbehaves: by order, so that fencing can be tried against bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lab.chassis import Machine


@dataclass(slots=True)
class Misbehaviour:
    """One node's. Changed while it is in use; whoever answers looks each time."""

    slow_s: float = 0.0
    """Answers after this long."""
    dead: bool = False
    """Does not answer, nor refuse to."""
    refuses: bool = False
    """Answers that it cannot."""
    lying: bool = False
    """Takes the command and does nothing; says what is so."""
    stuck: bool = False
    """Says that the power is off, whatever is so."""

    def set(self, wanted: Mapping[str, Any]) -> None:
        """Takes on what is named, and drops everything else. Raises ValueError for what it does not
        know."""
        known = {one.name: one for one in fields(self)}
        for name, value in wanted.items():
            right = float | int if name == "slow_s" else bool
            if name not in known or not isinstance(value, right):
                raise ValueError(f"a controller cannot be {name}={value}: {', '.join(known)}")
        for name, one in known.items():
            setattr(self, name, wanted.get(name, one.default))


class Switch:
    """A machine's power as a misbehaving controller sees it."""

    def __init__(self, machine: Machine, misbehaviour: Misbehaviour) -> None:
        self._machine = machine
        self.misbehaviour = misbehaviour

    def is_on(self) -> bool:
        """What is said."""
        return self._machine.is_on() and not self.misbehaviour.stuck

    def off(self) -> None:
        """What is done."""
        if not self.misbehaviour.lying:
            self._machine.power_off()

    def on(self) -> None:
        """What is done."""
        if not self.misbehaviour.lying:
            self._machine.power_on()

    def reset(self) -> None:
        """What is done."""
        if not self.misbehaviour.lying:
            self._machine.reset()

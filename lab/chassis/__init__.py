"""What is outside a node and can end it: controllers of its power, and its watchdog.

Each piece is given the machine that it switches. Whoever puts a chassis together gives several
pieces the same Misbehaviour.
"""

from __future__ import annotations

from typing import Protocol


class Machine(Protocol):
    """What is switched."""

    def is_on(self) -> bool: ...

    def power_on(self) -> None: ...

    def power_off(self) -> None:
        """At once, without asking."""
        ...

    def reset(self) -> None: ...

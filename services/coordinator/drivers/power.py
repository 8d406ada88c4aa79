"""What a controller of a machine's power is asked. Its drivers ask; they decide nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError

ANSWER_S = 3.0
"""How long one answer of a controller may take."""


@dataclass(frozen=True, slots=True)
class PowerTarget:
    """A controller and the account to use on it; see PowerControl in the contract."""

    address: str
    user: str = ""
    password: str = field(default="", repr=False)
    system: str = ""
    certificate: str = ""
    """PEM; "" for the machine's own list of authorities."""


class PowerDriver(Protocol):
    """The verbs. All raise PvcError POWER_FAILED with the controller's words, within seconds, and
    all may be repeated."""

    def is_on(self, target: PowerTarget) -> bool:
        """What the controller says of the power. What is neither on nor off counts as on."""
        ...

    def off(self, target: PowerTarget) -> None:
        """Has the power cut, without asking the machine. Returns when the controller took the
        command, which is no proof that it was carried out. Not an error when it was off."""
        ...

    def on(self, target: PowerTarget) -> None:
        """Has the machine switched on. Returns when the controller took the command. Not an error
        when it was on, and then nothing happens to it."""
        ...


def failed(target: PowerTarget, words: str) -> PvcError:
    """The controller did not do it."""
    return PvcError(reason_pb2.REASON_POWER_FAILED, f"the controller at {target.address}: {words}")

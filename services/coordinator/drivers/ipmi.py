"""IPMI 2.0 controllers, by ipmitool. Decides nothing.

The password goes through a pipe: a command line can be read by everybody on the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from services.coordinator.drivers.power import ANSWER_S, PowerTarget, failed

PORT = 623
RUN_S = 2 * ANSWER_S
"""How long one run of the program may take: it opens a session, asks, and closes it."""
_STATUS = re.compile(r"^Chassis Power is (on|off)$", re.MULTILINE)
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*"
_ADDRESS = re.compile(rf"({_HOST})(?::([0-9]{{1,5}}))?")
_OFF, _ON = "Chassis Power Control: Down/Off", "Chassis Power Control: Up/On"
_WORDS_MAX = 300


class Ipmi:
    """See PowerDriver. program: another ipmitool than the installed one."""

    def __init__(self, program: str = "ipmitool", run_s: float = RUN_S) -> None:
        self._program = program
        self._run_s = run_s

    def is_on(self, target: PowerTarget) -> bool:
        """See PowerDriver."""
        told = self._run(target, "status")
        found = _STATUS.search(told)
        if found is None:
            raise failed(target, f"it does not say whether it is on: {told[:_WORDS_MAX]}")
        return found[1] == "on"

    def off(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        self._switch(target, "off", _OFF)

    def on(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        self._switch(target, "on", _ON)

    def _switch(self, target: PowerTarget, verb: str, taken: str) -> None:
        told = self._run(target, verb)
        if taken not in told:
            raise failed(target, f"it did not take the command: {told[:_WORDS_MAX]}")

    def _run(self, target: PowerTarget, verb: str) -> str:
        """What the program prints."""
        password, written = os.pipe()
        try:
            os.write(written, target.password.encode() + b"\n")
            os.close(written)
            ended = subprocess.run(
                [self._program, *arguments(target, password), "power", verb],
                pass_fds=(password,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._run_s,
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
            )
        except subprocess.TimeoutExpired as error:
            raise failed(target, f"no answer within {self._run_s:g} s") from error
        except OSError as error:
            raise failed(target, f"ipmitool cannot be run: {error}") from error
        finally:
            os.close(password)
        if ended.returncode:
            words = " ".join(ended.stderr.split()) or f"exit status {ended.returncode}"
            raise failed(target, words[:_WORDS_MAX])
        return ended.stdout


def arguments(target: PowerTarget, password: int) -> Sequence[str]:
    """How the program is told of a controller. password: the descriptor to read it from.

    Cipher suite 3 is the one that all have; being asked which they have costs some ten seconds.
    One try: who asks knows what to do about silence.
    """
    found = _ADDRESS.fullmatch(target.address)
    if found is None:
        raise failed(target, "an IPMI address is host or host:port")
    told = ["-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-H", found[1].strip("[]")]
    told += ["-p", found[2] or str(PORT), "-f", f"/dev/fd/{password}"]
    return [*told, "-U", target.user] if target.user else told

"""The power of a node: on is a fresh boot in namespaces of its own, off ends everything in it at
once. Safe to be used by several threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lab.cluster import files, switch
from lab.cluster.cgroup import Cgroup
from lab.cluster.emulator import PLACES
from lab.cluster.site import ROOT, LabError, Node

BOOT_TIMEOUT_S = 60.0
FIRMWARE_S = 5.0
"""How old a machine is by its own clock when its system takes over."""
RESET_PAUSE_S = 1.0
_LOOK_S = 0.01


class Machine:
    """The power switch of a node. Ends what it started when it is itself gone: the running node
    holds the other end of a pipe."""

    def __init__(self, node: Node, emulator: Path) -> None:
        self.node = node
        self._emulator = emulator
        self._cgroup = Cgroup.of(node)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._power = -1
        self.when_off: Callable[[], None] = lambda: None
        """Called whenever it has lost its power."""

    def is_on(self) -> bool:
        """It has power: whether anything in it still works is another matter."""
        with self._lock:
            return self._process is not None and self._process.poll() is None

    def power_on(self) -> None:
        """Boots it, if it is off. Raises LabError when it does not come up."""
        with self._lock:
            if self.is_on():
                return
            self.power_off()
            self._cgroup.make()
            switch.plug_in(self.node)
            _emptied(self.node.run)
            plan = self.node.run / "plan.json"
            files.plan(self.node, self._emulator, PLACES).write(plan)
            self._launch(plan)
            self._await_boot()

    def power_off(self) -> None:
        """Ends everything in it, and returns when nothing of it is left. Raises LabError."""
        with self._lock:
            self._cgroup.remove()
            if self._power >= 0:
                os.close(self._power)
                self._power = -1
            if self._process is not None:
                self._process.wait()
                self._process = None
            switch.unplug(self.node)
            self.when_off()

    def reset(self) -> None:
        """Off, and on again."""
        with self._lock:
            self.power_off()
            time.sleep(RESET_PAUSE_S)
            self.power_on()

    def freeze(self) -> None:
        """Everything in it stands still, as in a machine that hangs."""
        self._cgroup.freeze()

    def thaw(self) -> None:
        """It goes on as if nothing had been."""
        self._cgroup.thaw()

    def frozen(self) -> bool:
        """It hangs."""
        return self._cgroup.frozen()

    def _launch(self, plan: Path) -> None:
        supply, self._power = os.pipe2(os.O_CLOEXEC)
        log = self.node.disk / "console.log"
        command = [*_namespaces(self.node), sys.executable, "-S", "-m", "lab.node.init"]
        launch = [sys.executable, "-I", "-S", str(ROOT / "lab/node/enter.py")]
        words = [*launch, str(self._cgroup.path), *command, str(plan), str(supply)]
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
                    pass_fds=(supply,), start_new_session=True, env=files.environment(),
                )  # fmt: skip
        finally:
            os.close(supply)
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _await_boot(self) -> None:
        end = time.monotonic() + BOOT_TIMEOUT_S
        while not (self.node.run / "ready").exists():
            if not self.is_on() or time.monotonic() > end:
                self.power_off()
                raise LabError(f"{self.node.name} does not boot: see {self.node.disk}/console.log")
            time.sleep(_LOOK_S)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """A node whose first process ended by itself has lost its power like any other."""
        process.wait()
        with self._lock:
            if self._process is process:
                self.power_off()


def _namespaces(node: Node) -> list[str]:
    """A command's beginning that gives it namespaces of its own, and a clock that starts anew."""
    begun = f"{FIRMWARE_S - time.clock_gettime(time.CLOCK_BOOTTIME):.0f}"
    monotonic = f"{FIRMWARE_S - time.monotonic():.0f}"
    return [
        *("nsenter", f"--net=/run/netns/{node.namespace}"),
        *("unshare", "--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork"),
        *("--time", "--boottime", begun, "--monotonic", monotonic),
    ]


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # Passable for all: the network's servers run as users of their own.
    folder.mkdir(mode=0o755, parents=True)
    (folder / "lock").mkdir()

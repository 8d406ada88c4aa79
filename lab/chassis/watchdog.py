"""A node's watchdog, outside the node as hardware is: resets it unless it is fed in time.

Listens on a socket that the node sees. One line a message: `arm MILLISECONDS`, `feed`, `disarm`;
each is answered `ok`, or `error` with the reason. That a caller hangs up means nothing.
"""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT_MS_MAX = 3_600_000
LINE_MAX = 256


class WatchdogTimer:
    """Counts. `fire` is called, once for each time it was armed, when it was not fed in time."""

    def __init__(
        self, fire: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fire = fire
        self._clock = clock
        self._changed = threading.Condition()
        self._timeout_s = 0.0
        self._deadline = 0.0
        self._ended = False
        self.fired = 0
        """How often it has reset the machine."""

    @property
    def armed(self) -> bool:
        """It counts."""
        return self._timeout_s > 0

    def carry_out(self, line: str) -> str:
        """A message's answer."""
        match line.split():
            case ["arm", text] if text.isdecimal() and 0 < int(text) <= TIMEOUT_MS_MAX:
                self._set(int(text) / 1000)
            case ["feed"]:
                if not self.armed:
                    return "error it is not armed"
                self._set(self._timeout_s)
            case ["disarm"]:
                self._set(0.0)
            case _:
                return "error say: arm MILLISECONDS, feed or disarm"
        return "ok"

    def power_lost(self) -> None:
        """The machine is off: a watchdog does not outlive its power."""
        self._set(0.0)

    def run(self) -> None:
        """Counts until `end`; in a thread of its own."""
        while not self._ended:
            if self._due():
                self._fire()

    def end(self) -> None:
        """Has `run` return."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _set(self, timeout_s: float) -> None:
        with self._changed:
            self._timeout_s = timeout_s
            self._deadline = self._clock() + timeout_s
            self._changed.notify_all()

    def _due(self) -> bool:
        """Waits for something; whether its time is over."""
        with self._changed:
            if self._ended:
                return False
            left = self._deadline - self._clock()
            if self.armed and left <= 0:
                self._timeout_s = 0.0
                self.fired += 1
                return True
            self._changed.wait(left if self.armed else None)
            return False


class WatchdogServer:
    """Takes a node's messages on a socket at `path`."""

    def __init__(self, path: Path, timer: WatchdogTimer) -> None:
        path.unlink(missing_ok=True)
        bound = type("Bound", (_Caller,), {"timer": timer})
        self._timer = timer
        self._server = socketserver.ThreadingUnixStreamServer(str(path), bound)
        self._server.daemon_threads = True
        path.chmod(0o600)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=timer.run, daemon=True),
        ]

    def start(self) -> None:
        """Begins to listen and to count."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Listens and counts no more."""
        self._timer.end()
        self._server.shutdown()
        self._server.server_close()


class _Caller(socketserver.StreamRequestHandler):
    timer: WatchdogTimer

    def handle(self) -> None:
        """Message after message."""
        while line := self.rfile.readline(LINE_MAX):
            answer = self.timer.carry_out(line.decode(errors="replace"))
            self.wfile.write(f"{answer}\n".encode())

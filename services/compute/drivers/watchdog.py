"""Watchdogs: what resets the machine unless it is fed in time. The drivers feed when they are told
to, and never by themselves."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SOCKET_S = 1.0
"""How long a watchdog outside the machine may take to answer."""
_WDIOC_SETTIMEOUT = 0xC0045706
_WDIOC_GETTIMEOUT = 0x80045707
_INT = struct.Struct("i")


class Watchdog(Protocol):
    """The verbs. They raise OSError when it does not do it."""

    def arm(self, timeout_s: float) -> float:
        """Has it reset the machine unless it is fed within the timeout; feeds it. Gives the timeout
        that it really has. One that counts already, for whomever, goes on with the new timeout."""
        ...

    def feed(self) -> None:
        """The timeout begins anew."""
        ...

    def disarm(self) -> None:
        """It resets nothing any more. Some cannot be disarmed, and say nothing of it."""
        ...


class DeviceWatchdog:
    """The kernel's, /dev/watchdog. To open it is to feed it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._using = threading.Lock()
        """A file that is closed meanwhile may be another's by then."""

    def arm(self, timeout_s: float) -> float:
        """See Watchdog. It counts in whole seconds."""
        with self._using:
            if self._file < 0:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            fcntl.ioctl(self._file, _WDIOC_SETTIMEOUT, _INT.pack(max(int(timeout_s), 1)))
            told = fcntl.ioctl(self._file, _WDIOC_GETTIMEOUT, bytes(_INT.size))
        self.feed()
        return float(_INT.unpack(told)[0])

    def feed(self) -> None:
        """See Watchdog."""
        with self._using:
            if self._file < 0:
                raise OSError(f"{self._path} is not open")
            os.write(self._file, b"\0")

    def disarm(self) -> None:
        """See Watchdog: an agreed letter before it is closed."""
        with self._using:
            if self._file >= 0:
                file, self._file = self._file, -1
                try:
                    os.write(file, b"V")
                finally:
                    os.close(file)


class SocketWatchdog:
    """One outside the machine that takes its messages on a socket: a line each, `arm MS`, `feed` or
    `disarm`, answered `ok`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._talking = threading.Lock()

    def arm(self, timeout_s: float) -> float:
        """See Watchdog."""
        milliseconds = max(int(timeout_s * 1000), 1)
        self._say(f"arm {milliseconds}")
        return milliseconds / 1000

    def feed(self) -> None:
        """See Watchdog."""
        self._say("feed")

    def disarm(self) -> None:
        """See Watchdog."""
        self._say("disarm")

    def _say(self, message: str) -> None:
        with self._talking:
            self._exchange(message)

    def _exchange(self, message: str) -> None:
        try:
            if self._socket is None:
                self._socket = _connected(self._path)
            self._socket.sendall(f"{message}\n".encode())
            answer = self._socket.recv(256).decode(errors="replace").strip()
        except OSError:
            self._hang_up()
            raise
        if answer != "ok":
            self._hang_up()
            raise OSError(f"{self._path} answered to {message!r}: {answer or 'nothing'}")

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class FakeWatchdog:
    """One in memory. fire: called, when `look` finds that it was not fed in time."""

    def __init__(self, clock: Callable[[], float], fire: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._fire = fire
        self.timeout_s = 0.0
        self.least_s = 0.0
        """It cannot be set to less."""
        self.deadline = float("inf")
        self.broken = ""
        """Why every verb fails."""

    @property
    def armed(self) -> bool:
        """It counts."""
        return self.timeout_s > 0

    def arm(self, timeout_s: float) -> float:
        """See Watchdog."""
        self._check()
        self.timeout_s = max(timeout_s, self.least_s)
        self.deadline = self._clock() + self.timeout_s
        return self.timeout_s

    def feed(self) -> None:
        """See Watchdog."""
        self._check()
        self.look()
        if self.armed:
            self.deadline = self._clock() + self.timeout_s

    def disarm(self) -> None:
        """See Watchdog."""
        self._check()
        self.timeout_s, self.deadline = 0.0, float("inf")

    def look(self) -> None:
        """Fires if its time is over, once."""
        if self._clock() >= self.deadline:
            self.timeout_s, self.deadline = 0.0, float("inf")
            self._fire()

    def _check(self) -> None:
        if self.broken:
            raise OSError(self.broken)


def watchdog_at(place: str) -> Watchdog | None:
    """What the configuration names: "", the path of a device, or "unix:" and that of a socket."""
    if not place:
        return None
    if place.startswith("unix:"):
        return SocketWatchdog(Path(place.removeprefix("unix:")))
    return DeviceWatchdog(Path(place))


def _connected(path: Path) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire.settimeout(SOCKET_S)
    try:
        wire.connect(str(path))
    except OSError:
        wire.close()
        raise
    return wire

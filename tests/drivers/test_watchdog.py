"""The watchdogs' drivers: the kernel's device, one on a socket, and the fake."""

from __future__ import annotations

import fcntl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.chassis.watchdog import WatchdogServer, WatchdogTimer
from services.compute.drivers.watchdog import (
    DeviceWatchdog,
    FakeWatchdog,
    SocketWatchdog,
    watchdog_at,
)


@pytest.fixture
def fired() -> threading.Event:
    return threading.Event()


class Slept(WatchdogTimer):
    """One whose time passes when the test says so."""

    def __init__(self, fire: Callable[[], None]) -> None:
        self.now_s = 0.0
        super().__init__(fire, lambda: self.now_s)

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self.now_s += seconds
            self._changed.notify_all()


@pytest.fixture
def timer(tmp_path: Path, fired: threading.Event) -> Iterator[Slept]:
    made = Slept(fired.set)
    server = WatchdogServer(tmp_path / "watchdog", made)
    server.start()
    yield made
    server.stop()


def test_it_fires_unless_it_is_fed(tmp_path: Path, timer: Slept, fired: threading.Event) -> None:
    watchdog = SocketWatchdog(tmp_path / "watchdog")
    assert watchdog.arm(30.0) == 30.0
    for _ in range(3):
        timer.sleep(29.0)
        watchdog.feed()
    timer.sleep(29.9)
    assert not fired.wait(0.1)
    timer.sleep(0.1)
    assert fired.wait(60)
    with pytest.raises(OSError, match="not armed"):
        watchdog.feed()
    assert timer.fired == 1


def test_a_disarmed_one_does_not_fire(tmp_path: Path, timer: Slept, fired: threading.Event) -> None:
    watchdog = SocketWatchdog(tmp_path / "watchdog")
    watchdog.arm(30.0)
    watchdog.disarm()
    timer.sleep(31.0)
    assert not fired.wait(0.1) and not timer.armed


def test_it_counts_on_when_its_caller_is_gone(
    tmp_path: Path, timer: Slept, fired: threading.Event
) -> None:
    first = SocketWatchdog(tmp_path / "watchdog")
    first.arm(30.0)
    first._hang_up()
    second = SocketWatchdog(tmp_path / "watchdog")
    second.feed()
    second._hang_up()
    timer.sleep(30.0)
    assert fired.wait(60)


def test_power_that_is_lost_takes_it_along(
    tmp_path: Path, timer: Slept, fired: threading.Event
) -> None:
    SocketWatchdog(tmp_path / "watchdog").arm(30.0)
    timer.power_lost()
    timer.sleep(31.0)
    assert not fired.wait(0.1)


@pytest.mark.parametrize("line", ["", "arm", "arm x", "arm 0", "arm -5", "feed me", "arm 99999999"])
def test_what_is_no_message_is_refused(timer: Slept, line: str) -> None:
    assert timer.carry_out(line).startswith("error") and not timer.armed


def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        SocketWatchdog(tmp_path / "nowhere").feed()


class Kernel:
    """What the kernel does when it is asked about a watchdog."""

    def __init__(self, least_s: int = 1) -> None:
        self.least_s = least_s
        self.timeout_s = 60

    def ioctl(self, _file: int, request: int, argument: Any) -> bytes:
        if request == 0xC0045706:
            self.timeout_s = max(struct.unpack("i", argument)[0], self.least_s)
        else:
            assert request == 0x80045707
        return struct.pack("i", self.timeout_s)


def test_the_kernels_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, device = Kernel(least_s=2), tmp_path / "watchdog"
    device.touch()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    watchdog = DeviceWatchdog(device)
    with pytest.raises(OSError, match="not open"):
        watchdog.feed()
    assert watchdog.arm(3.9) == 3.0, "whole seconds, and never more than was asked for"
    assert watchdog.arm(0.5) == 2.0, "what it really has is told"
    watchdog.feed()
    watchdog.disarm()
    assert device.read_bytes() == b"\0\0\0V"
    watchdog.disarm()
    assert device.read_bytes() == b"\0\0\0V", "once"


def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        DeviceWatchdog(tmp_path / "watchdog").arm(3)


def test_the_fake_does_the_same() -> None:
    now, fired = [0.0], []
    watchdog = FakeWatchdog(lambda: now[0], lambda: fired.append(now[0]))
    assert watchdog.arm(3.0) == 3.0 and watchdog.armed
    now[0] = 2.0
    watchdog.feed()
    now[0] = 4.9
    watchdog.look()
    assert fired == []
    now[0] = 5.0
    watchdog.feed()
    watchdog.look()
    assert fired == [5.0] and not watchdog.armed, "too late, and once"
    watchdog.arm(3.0)
    watchdog.disarm()
    now[0] = 99.0
    watchdog.look()
    assert fired == [5.0]


def test_what_the_configuration_names() -> None:
    assert watchdog_at("") is None
    assert isinstance(watchdog_at("/dev/watchdog"), DeviceWatchdog)
    assert isinstance(watchdog_at("unix:/run/w"), SocketWatchdog)

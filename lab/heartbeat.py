"""Counts a guest's heartbeats in the world beyond the nodes: echo requests that it sends every few
milliseconds. Each has a number, so what was lost is known, and for how long nothing came."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.cluster.site import OUTSIDE, Lab
from services.network.drivers.namespace import within

PERIOD_MS = 5
COMMAND = f"ping -q -i {PERIOD_MS / 1000} {OUTSIDE}"
"""What the guest runs."""
_ECHO_REQUEST = 8
_NUMBERS = 1 << 16
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_ROOM_BYTES = 1 << 24
"""For those that come while nobody listens, on a machine that does much else."""
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Beat:
    """One that came. time_s: when the kernel had it, by a clock that only this machine has."""

    time_s: float
    sender: int
    number: int


@dataclass(frozen=True, slots=True)
class Count:
    """What a stretch of time showed."""

    beats: int
    lost: int
    longest_gap_s: float


class Heartbeats:
    """Those that come while `listening`."""

    def __init__(self) -> None:
        self._beats: list[Beat] = []
        self._ended = threading.Event()

    @property
    def last_s(self) -> float:
        """When the last one came; 0 when none did."""
        return self._beats[-1].time_s if self._beats else 0.0

    def since(self, time_s: float) -> list[Beat]:
        """Those that came after a moment (`time.time()`)."""
        return [beat for beat in list(self._beats) if beat.time_s >= time_s]

    def listen(self, wire: socket.socket) -> None:
        """Until `end`."""
        while not self._ended.is_set():
            try:
                packet, notes, _, _ = wire.recvmsg(2048, 64)
            except TimeoutError:
                continue
            header = (packet[0] & 15) * 4
            kind, _, _, sender, number = struct.unpack_from("!BBHHH", packet, header)
            if kind == _ECHO_REQUEST:
                self._beats.append(Beat(_arrival(notes), sender, number))

    def end(self) -> None:
        """No more."""
        self._ended.set()


@contextmanager
def listening(lab: Lab) -> Iterator[Heartbeats]:
    """Heartbeats as they come to the world beyond the lab's nodes."""
    heard = Heartbeats()
    with within(lab.switch, _wire) as wire:
        thread = threading.Thread(target=heard.listen, args=(wire,), daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            heard.end()
            thread.join()


def count(beats: list[Beat]) -> Count:
    """Of one guest's heartbeats, in order."""
    steps = [
        ((after.number - before.number) % _NUMBERS, after.time_s - before.time_s)
        for before, after in itertools.pairwise(beats)
    ]
    lost = sum(number - 1 for number, _ in steps if 0 < number < _NUMBERS // 2)
    return Count(len(beats), lost, max((gap for _, gap in steps), default=0.0))


def _wire() -> socket.socket:
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    wire.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    wire.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
    wire.settimeout(_LOOK_S)
    return wire


def _arrival(notes: list[tuple[int, int, bytes]]) -> float:
    for level, kind, value in notes:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", value)
            return float(seconds + nanoseconds / 1e9)
    return time.time()

"""Ports for servers that tests start: below those that the kernel gives to connections, and others
in every test process, so that nobody takes one between its choice and its use."""

from __future__ import annotations

import itertools
import os
import random
import socket

FIRST, PAST, STEP = 10_240, 32_000, 8
_candidates = itertools.cycle(random.Random(os.getpid()).sample(range(FIRST, PAST, STEP), 2_000))


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on, and that this process did not name lately."""
    return next(port for port in _candidates if _is_free(port, address))


def free_block(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        first = free_port()
        if all(_is_free(first + step) for step in range(1, count)):
            return first


def _is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True

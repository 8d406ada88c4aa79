"""Ports for servers that tests start: below those that the kernel gives to connections, and never
one that another test process of the machine has named and may not have taken yet."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections import deque

FIRST, PAST, STEP = 10_240, 32_000, 8
KEPT = 64
"""So many of those named last are kept from others."""
_candidates = itertools.cycle(random.Random(os.getpid()).sample(range(FIRST, PAST, STEP), 2_000))
_named: deque[socket.socket] = deque()


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on, and that no test process named lately."""
    return next(port for port in _candidates if _is_free(port, address) and _is_ours(port))


def free_block(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    assert count <= STEP
    while True:
        first = free_port()
        if all(_is_free(first + step) for step in range(1, count)):
            return first


def _is_ours(port: int) -> bool:
    """Takes the name that stands for the port: it goes with its process, however that ends."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0pvc-test-port-{port}")
    except OSError:
        name.close()
        return False
    _named.append(name)
    if len(_named) > KEPT:
        _named.popleft().close()
    return True


def _is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True

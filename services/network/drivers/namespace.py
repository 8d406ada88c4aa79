"""Doing something inside a network namespace: the one place that enters one. A namespace belongs
to a thread, so the work runs in a thread of its own that ends with it; no other thread ever
changes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from services.network.drivers.fabric import FabricError

FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def within(namespace: str, work: Callable[[], T]) -> T:
    """The result of `work`, or what it raised, run inside the namespace ("" is the caller's own).

    Sockets and processes made by the work stay in the namespace after the thread has ended. The
    work must end by itself: give everything in it a timeout."""
    if not namespace:
        return work()

    def enter_and_work() -> T:
        _enter(namespace)
        return work()

    return apart(enter_and_work)


@contextlib.contextmanager
def opened(namespace: str) -> Iterator[int | None]:
    """A descriptor of the namespace; None for the caller's own. Raises FabricError."""
    if not namespace:
        yield None
        return
    try:
        descriptor = os.open(FOLDER / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FabricError(f"network namespace {namespace} cannot be opened: {error}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def apart(work: Callable[[], T]) -> T:
    """The result of `work`, or what it raised, run in a thread that ends with it."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="in a namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def exists(namespace: str) -> bool:
    """Whether the name stands for a namespace that can be entered; a left-over empty file is
    none."""
    try:
        return (FOLDER / namespace).stat().st_dev != FOLDER.stat().st_dev
    except FileNotFoundError:
        return False


def _enter(namespace: str) -> None:
    with opened(namespace) as descriptor:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise FabricError(
                f"network namespace {namespace} cannot be entered: {os.strerror(code)}"
            )

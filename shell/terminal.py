"""A serial console on this terminal: raw while it lasts, restored whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Any

LEAVE = b"\x1d"
"""Ctrl-]."""
READ_BYTES = 4096
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def attach(console: Any, stdin: int | None = None, stdout: int | None = None) -> None:
    """Connects a console with a terminal until Ctrl-] is typed, the input ends or the console does.

    Raises what the console broke off with.
    """
    source = sys.stdin.fileno() if stdin is None else stdin
    target = sys.stdout.fileno() if stdout is None else stdout
    ended, tell_ended = os.pipe()
    failures: list[BaseException] = []
    reader = threading.Thread(
        target=_read_all, args=(console, target, tell_ended, failures), daemon=True
    )
    try:
        with raw(source):
            reader.start()
            _type_all(console, source, ended)
            console.close()
            reader.join(2)
    finally:
        os.close(ended)
    if failures:
        raise failures[0]


def _type_all(console: Any, source: int, ended: int) -> None:
    """Sends what is typed until Ctrl-], the end of input, or the end of the console."""
    with signals_wake() as woken:
        while True:
            ready, _, _ = select.select([source, ended, *woken], [], [])
            if ended in ready:
                return
            for wakened in woken:
                if wakened in ready:
                    os.read(wakened, READ_BYTES)
            if source not in ready:
                continue
            typed = os.read(source, READ_BYTES)
            before, leave, _ = typed.partition(LEAVE)
            if before:
                console.write(before)
            if leave or not typed:
                return


def _read_all(console: Any, target: int, tell_ended: int, failures: list[BaseException]) -> None:
    """Shows what the guest writes, until it ends; then closes its end of the pipe."""
    try:
        while piece := console.read():
            _write(target, piece)
    except Exception as error:  # noqa: BLE001 - raised again by attach, in the thread that waits
        failures.append(error)
    finally:
        os.close(tell_ended)


def _write(target: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(target, piece) :]


@contextlib.contextmanager
def raw(terminal: int) -> Iterator[None]:
    """The terminal raw meanwhile; as it was before afterwards, also when a signal ends the process.
    Does nothing to what is no terminal.
    """
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    with signals_raise():
        try:
            tty.setraw(terminal)
            yield
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Signals that would end the process leave by an exception meanwhile."""

    def leave(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_wake() -> Iterator[tuple[int, ...]]:
    """Descriptors that can be read once a signal came. A select that watches them too cannot sleep
    through one that arrives just before it; its handler runs when the select returns."""
    if threading.current_thread() is not threading.main_thread():
        yield ()
        return
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield (woken,)
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(wake)


_OBEYED = bytes(code for code in range(32) if code not in b"\t\n\r") + b"\x7f"
_SEQUENCES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])"
)
"""What terminals obey: colours and cursor moves, titles, and the shorter ones."""
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
"""The same in one character of UTF-8."""


def tamed(piece: bytes) -> bytes:
    """A log as a terminal may show it: lines, without anything that the terminal would obey."""
    return _C1.sub(b"", _SEQUENCES.sub(b"", piece)).translate(None, _OBEYED)

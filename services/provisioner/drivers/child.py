"""One child process: its output line by line, a deadline, cancel, and no survivor in any case.

It runs what it is told and judges nothing but the exit status.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# How often a running child is looked at when it says nothing: the delay of a cancel.
TICK_S = 0.2
LINES_KEPT = 20

Cancelled = Callable[[], bool]
OnLine = Callable[[str], None]

# A process namespace of its own: when its first process ends, for whatever reason, the kernel ends
# all others in it, also those that left the process group. A mount namespace of its own: nothing
# mounted in there is ever seen outside. `setpriv` ends it when this thread's process is killed.
CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
)


class ChildFailed(Exception):
    """A program that could not start, failed, or took too long, with its last words."""


class ChildCancelled(Exception):
    """The child was ended because the caller asked for it."""


def run_child(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    cancelled: Cancelled,
    on_line: OnLine = lambda line: None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> None:
    """Runs to the end; raises ChildFailed or ChildCancelled, never leaving the child behind.

    `stdin` is written at once and must fit into a pipe (64 KiB).
    """
    assert len(stdin) <= 65536
    child = _start(arguments, environment)
    try:
        assert child.stdin is not None
        # A child that is gone already tells why by its status.
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(stdin)
            child.stdin.close()
        last = _follow(child, time.monotonic() + timeout_s, cancelled, on_line)
    except BaseException:
        _end(child)
        raise
    if child.returncode != 0:
        raise ChildFailed(
            f"{_program(arguments)} ended with status {child.returncode}: " + " / ".join(last)
        )


def _program(arguments: Sequence[str]) -> str:
    """What is run, behind the programs that contain it."""
    inner = arguments[len(CONTAINED) :] if tuple(arguments[: len(CONTAINED)]) == CONTAINED else ()
    return (inner or arguments)[0]


def _start(
    arguments: Sequence[str], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise ChildFailed(f"{arguments[0]} cannot be started: {error.strerror}") from error


def _follow(
    child: subprocess.Popen[bytes], deadline: float, cancelled: Cancelled, on_line: OnLine
) -> list[str]:
    """Hands out lines until the child closed its output and ended; returns the last ones."""
    last: deque[str] = deque(maxlen=LINES_KEPT)
    rest = b""
    assert child.stdout is not None
    output = child.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if cancelled():
                raise ChildCancelled
            if time.monotonic() > deadline:
                raise ChildFailed("it took too long; it said last: " + " / ".join(last))
            if not selector.select(TICK_S):
                continue
            chunk = os.read(output, 65536)
            lines, rest = _lines(rest + chunk, final=not chunk)
            for line in lines:
                last.append(line)
                on_line(line)
            if not chunk:
                break
    child.stdout.close()
    try:
        child.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise ChildFailed("it closed its output and did not end") from error
    return list(last)


def _lines(text: bytes, *, final: bool) -> tuple[list[str], bytes]:
    """Whole lines as text, and the beginning of the next; a carriage return ends a line too."""
    *whole, rest = text.replace(b"\r", b"\n").split(b"\n")
    if final:
        whole, rest = [*whole, rest], b""
    return [line.decode("utf-8", "replace").rstrip() for line in whole if line.strip()], rest


def _end(child: subprocess.Popen[bytes]) -> None:
    # The session's id is the child's, and stays taken until it is waited for below.
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def contained(arguments: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs `arguments` so that it can leave nothing running or mounted."""
    return (*CONTAINED, *arguments)


def build_environment(temporary: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a build's programs: nothing of ours but the proxies."""
    proxies = {
        name: os.environ[name]
        for name in ("http_proxy", "https_proxy", "no_proxy")
        if name in os.environ
    }
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LC_ALL": "C.UTF-8", "TMPDIR": str(temporary), **proxies, **extra}

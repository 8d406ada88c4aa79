"""`pvc` as a process of its own, in pipes; for one in a terminal see test_terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.doors.world import World

ROOT = Path(__file__).parents[2]
PATHS = ":".join(str(ROOT / part) for part in ("", "clients/python/src", "clients/python/gen"))
ENTRY = "from shell.main import main; main()"


def environment(world: World | None, **more: str) -> dict[str, str]:
    """What the process knows of the world outside, and nothing of the tester's own settings."""
    address = f"unix:{world.socket}" if world else "127.0.0.1:1"
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "PYTHONPATH": PATHS,
        "PVC_CONNECTION": address,
        **more,
    }


def begun(world: World | None, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A process that runs a command, with a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(world, **more),
        text=True,
        start_new_session=True,
    )


def ran(world: World | None, *arguments: str, **more: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command."""
    process = begun(world, *arguments, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err

"""Runs the machine's programs for the lab: lists of words, a time limit, and what they said when
they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from lab.cluster.site import LabError

TIMEOUT_S = 30.0


def run(words: Sequence[str], timeout_s: float = TIMEOUT_S, lines: Sequence[str] = ()) -> str:
    """What the program printed; it is given `lines` to read. Raises LabError."""
    try:
        done = subprocess.run(
            words, input="\n".join(lines), capture_output=True, text=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{words[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"{' '.join(words)}: {said or f'exit status {done.returncode}'}")
    return done.stdout


def ip_lines(namespace: str, lines: Sequence[str]) -> None:
    """Has `ip` do several things inside a network namespace, in order, up to the first failure."""
    run(["ip", "-n", namespace, "-batch", "-"], lines=lines)

"""Running programs inside a node, as its administrator would at its console."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from lab.cluster.cgroup import Cgroup
from lab.cluster.files import environment
from lab.cluster.site import ROOT, LabError, Node

TIMEOUT_S = 120.0
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time")


def command(node: Node, words: Sequence[str]) -> list[str]:
    """The words that run `words` in a node, for the machine. Raises LabError when it is off."""
    try:
        pid = int(node.pid_file.read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"{node.name} is off: lab/pvc-lab on {node.name}") from error
    # In the node's control group, so that it ends and stands still with the node.
    group = [sys.executable, "-I", "-S", str(ROOT / "lab/node/enter.py"), str(Cgroup.of(node).path)]
    return [*group, "nsenter", "--target", str(pid), *_NAMESPACES, "--wd=/", "--", *words]


def run(node: Node, words: Sequence[str], timeout_s: float = TIMEOUT_S, typed: str = "") -> str:
    """What the program printed; it is given `typed` to read. Raises LabError with its words when it
    fails."""
    try:
        done = subprocess.run(
            command(node, words), input=typed, capture_output=True, text=True, timeout=timeout_s,
            check=False, env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{node.name}: {' '.join(words)} took over {timeout_s:g} s") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"{node.name}: {' '.join(words)}: {said}")
    return done.stdout


def become(node: Node, words: Sequence[str]) -> None:
    """Runs the program in place of this one, at this terminal."""
    run_words = command(node, words)
    os.execvpe(run_words[0], run_words, environment())

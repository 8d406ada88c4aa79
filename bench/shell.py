"""How soon pvc-shell's prompt is there and how long a keystroke takes: `python -m bench.shell`.

The start is a whole process in a pseudo-terminal, until its prompt is drawn. A keystroke is all
that is done for it but the drawing: offers, help pane, colours, with ten thousand VMs in memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.figures import Figure, Line, check, seconds
from bench.ground import Ground
from bench.programs import alone
from pvc.compute.v1 import vm_pb2
from shell.live import Rows
from shell.main import pvc as tree
from shell.prompt.kinds import KINDS
from shell.prompt.lexer import LineLexer
from shell.prompt.offers import Offers, spot_of
from shell.prompt.pane import pane
from shell.prompt.speech import Plain
from tests.shell.emulator import Emulator

STARTS = 9
VMS = 10_000
LINES = ("vm start v", "vm start vm-49", "vm start vm-00042", "vm start 9p", "vm start xyz")


class Known:
    """The names of the VMs, as the prompt has them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def names(
        self, collection: str, typed: str, limit: int, parent: str = ""
    ) -> Sequence[tuple[str, str]]:
        """See shell.prompt.offers.Known."""
        found = ((name, self._rows.find(name)) for name in self._rows.best(typed, limit))
        return [(name, told.help) for name, told in found if told is not None]

    def files(self, typed: str) -> Sequence[tuple[str, str]]:
        """None are looked for."""
        return ()

    def connections(self) -> Sequence[tuple[str, str]]:
        """None are looked for."""
        return ()


def measure(ground: Ground) -> list[Line]:
    """Starts at a PVC that runs, and keystrokes."""
    socket = f"unix:{ground.pvc().base}/run/pvc.sock"
    return [
        Line("pvc-shell to the prompt", "ms", starts(socket), aim="<= 400"),
        Line(f"a keystroke, {VMS:,} VMs", "ms", keystrokes(), aim="<= 30"),
    ]


def starts(address: str) -> Figure:
    """From the start of the process until its prompt is drawn."""
    samples = []
    with tempfile.TemporaryDirectory() as home:
        for _ in range(STARTS):
            with Emulator(home=Path(home), environment={"PVC_CONNECTION": address}) as shell:
                shell.wait_for("pvc")
                samples.append((time.monotonic() - shell.began) * 1000)
    return Figure(tuple(samples[1:]))


def filled() -> Rows:
    """Ten thousand VMs."""
    rows = Rows(KINDS["vms"])
    for n in range(VMS):
        row = vm_pb2.Vm(name=f"vms/vm-{n:05}-{'prod' if n % 3 else 'test'}")
        row.status.state = vm_pb2.VM_STATE_RUNNING
        row.decision.node = f"nodes/n{n % 50}"
        rows.put(row)
    rows.complete()
    return rows


def keystrokes() -> Figure:
    """Of lines that are being typed, each several times."""
    rows = filled()
    offers, lexer = Offers(tree, Known(rows), Plain()), LineLexer(tree, lambda _: rows, Plain())

    def stroke(line: str) -> None:
        offers.at(line, len(line))
        lexer.styled(line)
        pane(spot_of(tree, line, len(line), Plain()), lambda _, name: rows.row(name), 80, 7)

    check(offers.at(LINES[0], len(LINES[0])), "nothing is offered")
    stroke(LINES[0])
    return Figure(tuple(seconds(partial(stroke, line)) * 1000 for line in LINES * 5))


if __name__ == "__main__":
    sys.exit(alone(measure))

"""`pvc top`: how busy the nodes are, over and over."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from shell import columns
from shell.measures import mebibytes
from shell.node_columns import Around, around
from shell.render import Column, Output, painted, table
from shell.tree import Command

BAR = 20
CLEAR = "\x1b[H\x1b[2J"


@click.command(cls=Command, examples=("pvc top", "pvc node top --once", "pvc top --interval 1"))
@click.option("--interval", type=click.FloatRange(0.2), default=2.0, show_default=True,
              help="Seconds between two looks.")  # fmt: skip
@click.option("--once", is_flag=True, help="One look; also where no terminal is.")
@click.pass_obj
def top(session: Any, /, interval: float, once: bool) -> None:
    """Show how busy the nodes are, the busiest first, until Ctrl-C."""
    if once or not sys.stdout.isatty():
        click.echo(_look(session), nl=False)
        return
    while True:
        shown = _look(session)
        click.echo(f"{CLEAR}{shown}", nl=False)
        time.sleep(interval)


def _look(session: Any) -> str:
    cluster = session.cluster.status()
    mask = ["name", "decision.node", "decision.power", "spec.memory"]
    there = around(cluster.leader, session.cluster.vms.list(read_mask=mask))
    nodes = sorted(session.cluster.nodes.list(), key=busy, reverse=True)
    running = cluster.vms.get("RUNNING", 0)
    health = columns.enum_word(cluster, "health")
    colour = session.coloured(sys.stdout)
    head = (
        f"{cluster.name}  {painted(health, columns.state_style(health), colour)}  "
        f"{running} VMs run, {cluster.running_operations} operations go on  "
        f"{time.strftime('%H:%M:%S', time.localtime(session.now()))}\n\n"
    )
    return head + table(nodes, _columns(there), session.view(Output()))


def busy(node: Any) -> float:
    """How much of its processors is wanted, as a share."""
    wanted, there = float(node.status.load.load_percent), float(node.status.cpus) * 100
    return wanted / max(there, 1.0)


def used(node: Any) -> float:
    """How much of its memory is in use, as a share; 0 when nobody knows."""
    if not node.status.HasField("load") or not node.status.memory_mib:
        return 0.0
    share: float = 1 - float(node.status.load.available_memory_mib) / float(node.status.memory_mib)
    return share


def bar(share: float) -> str:
    """ "#####...............  25%"."""
    filled = min(max(round(share * BAR), 0), BAR)
    return f"{'#' * filled}{'.' * (BAR - filled)} {share * 100:4.0f}%"


def hot(text: str) -> str:
    """The style of a bar."""
    percent = float(text.rpartition(" ")[2].rstrip("%") or 0)
    return "bad" if percent >= 90 else "busy" if percent >= 70 else "good"


def _columns(there: Around) -> list[Column]:
    def vms(node: Any) -> str:
        found = there.burdens.get(node.name)
        return str(found.vms if found else 0)

    def promised(node: Any) -> str:
        found = there.burdens.get(node.name)
        return mebibytes(found.memory_mib) if found and found.memory_mib else "0"

    return [
        Column("NODE", lambda r, v: columns.last(r.name)),
        Column("STATE", lambda r, v: columns.enum_word(r.decision, "state") or "new",
               style=columns.state_style),
        Column("CPU LOAD", lambda r, v: bar(busy(r)), style=hot),
        Column("CPUS", lambda r, v: str(r.status.cpus or ""), right=True),
        Column("MEMORY USED", lambda r, v: bar(used(r)), style=hot),
        Column("OF", lambda r, v: mebibytes(r.status.memory_mib), right=True),
        Column("PROMISED", lambda r, v: promised(r), right=True),
        Column("VMS", lambda r, v: vms(r), right=True),
    ]  # fmt: skip

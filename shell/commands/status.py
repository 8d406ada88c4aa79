"""`pvc cluster status` on one screen: how the cluster is, what is wrong, what to do about it; and
`pvc cluster fault`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from shell import columns, node_columns
from shell.commands.event import GRAVER
from shell.measures import size
from shell.query import before, filter_of
from shell.render import Column, Output, clean, json_text, painted, table, yaml_text
from shell.tree import Command, Group, command, format_option

FULL_PERCENT = 80
"""A pool that is fuller is worth a word."""
SHOWN_MAX = 10
RECENT_S = 3600
LOOK = {"nodes": "node", "vms": "vm", "pools": "pool", "networks": "network"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that wants a person's attention."""

    subject: str
    """The thing it is about: "nodes/n3"; "" for the cluster."""
    text: str
    todo: str
    """The command to go on with; "" for none."""


def faults_of(cluster: Any) -> list[Fault]:
    """What is wrong, the most urgent first, each with what to do."""
    return [_fault(text) for text in cluster.faults]


def _fault(text: str) -> Fault:
    head = text.split(" ")[0].rstrip(":")
    collection, _, own = head.partition("/")
    if collection in LOOK and own:
        return Fault(head, text, _todo(collection, own, text))
    for word, todo in (
        ("maintenance", "pvc cluster maintenance off"),
        ("disarmed", "pvc cluster ha arm"),
        ("reserve_nodes", "pvc node list -f wide; pvc cluster set --reserve-nodes N"),
        ("leads", "pvc node list"),
    ):
        if word in text:
            return Fault("", text, todo)
    return Fault("", text, "")


def _todo(collection: str, own: str, text: str) -> str:
    if collection == "nodes" and "was added" in text:
        return f"sudo pvc cluster join, on {own}"
    if collection == "vms":
        return f"pvc vm explain {own}; pvc vm log {own}"
    return f"pvc {LOOK[collection]} info {own}"


FAULT = (
    Column("SUBJECT", lambda r, v: r.subject or "cluster"),
    Column("FAULT", lambda r, v: r.text, elastic=True),
    Column("WHAT TO DO", lambda r, v: r.todo),
)


@click.group(cls=Group)
def fault() -> None:
    """What wants a person's attention."""


@command(fault, "list", "pvc cluster fault list", "pvc cluster fault list -f json")
@format_option
def list_faults(session: Any, format: Output) -> None:
    """List what is wrong, the most urgent first, each with the command to go on with."""
    found = faults_of(session.cluster.status())
    match format.format:
        case "json" | "yaml":
            _dump(found, format.format)
        case "name":
            for one in found:
                click.echo(one.subject or "cluster")
        case _ if found:
            click.echo(table(found, FAULT, session.view(format)), nl=False)
        case _:
            session.note("nothing is wrong")


def _dump(found: Sequence[Fault], format: str) -> None:
    plain = [{"subject": one.subject, "fault": one.text, "todo": one.todo} for one in found]
    if format == "json":
        click.echo(json_text(plain, 2))
    else:
        click.echo(yaml_text(plain), nl=False)


@click.command(
    cls=Command, examples=("pvc cluster status", "pvc cluster status -f json", "pvc status")
)
@click.option("--short", is_flag=True, help="Its health in one word; ends with 1 unless it is ok.")
@format_option
@click.pass_obj
def status(session: Any, /, short: bool, format: Output) -> int:
    """Say how the cluster is: who leads, how many of what are in which state, what is wrong and
    what to do, what goes on."""
    found = session.cluster.status()
    if short:
        word = columns.enum_word(found, "health") or "unknown"
        click.echo(word)
        return 0 if word == "ok" else 1
    told = [one for one in columns.CLUSTER if one.title != "FAULTS"]
    session.show_one(found, told if format.for_people else columns.CLUSTER, format)
    if format.for_people:
        for line in _screen(session, found):
            click.echo(line)
    return 0


def _screen(session: Any, cluster: Any) -> Iterator[str]:
    """What stands below the record."""
    colour = session.coloured(sys.stdout)
    for title, lines in (
        ("What is wrong", _wrong(cluster, colour)),
        ("Nodes", _nodes(session, cluster)),
        ("Pools that fill up", _pools(session)),
        ("What goes on", _operations(session)),
        ("What happened in the last hour", _events(session)),
    ):
        shown = list(lines)
        if shown:
            yield ""
            yield painted(f"{title}:", "bold", colour)
            yield from (f"  {line}" for line in shown[: SHOWN_MAX * 2])


def _wrong(cluster: Any, colour: bool) -> Iterator[str]:
    for one in faults_of(cluster):
        yield painted(clean(one.text), "bad", colour)
        if one.todo:
            yield painted(f"  → {clean(one.todo)}", "dim", colour)


def _rows(session: Any, rows: Sequence[Any], told: Sequence[Column]) -> list[str]:
    shown = list(rows)[:SHOWN_MAX]
    lines = table(shown, told, session.view(Output())).splitlines() if shown else []
    more = len(rows) - len(shown)
    return [*lines, *([f"… and {more} more"] if more > 0 else [])]


def _nodes(session: Any, cluster: Any) -> list[str]:
    mask = ["name", "decision.node", "decision.power", "spec.memory"]
    vms = session.cluster.vms.list(read_mask=mask)
    told = node_columns.columns(node_columns.around(cluster.leader, vms))
    titles = ("NAME", "STATE", "ROLE", "VMS", "MEMORY", "CPUS", "LOAD")
    nodes = list(session.cluster.nodes.list())
    return _rows(session, nodes, [one for one in told if one.title in titles])


def _pools(session: Any) -> Iterator[str]:
    for pool in session.cluster.pools.list():
        total, free = pool.status.capacity_bytes, pool.status.available_bytes
        used = 100 - free * 100 // total if total else 0
        if used >= FULL_PERCENT:
            yield f"{columns.last(pool.name)}: {used} % used, {size(free)} free of {size(total)}"


def _operations(session: Any) -> list[str]:
    found = session.cluster.operations.list(filter="state = PENDING OR state = RUNNING")
    titles = ("NAME", "WHAT", "TARGET", "DONE", "STAGE")
    return _rows(session, list(found), [c for c in columns.OPERATION if c.title in titles])


def _events(session: Any) -> list[str]:
    query = filter_of("events", [], GRAVER["warning"], f'time >= "{before(session, RECENT_S)}"')
    newest = session.cluster.events.list(filter=query, order_by="name desc", page_size=SHOWN_MAX)
    rows = [row for row, _ in zip(newest, range(SHOWN_MAX), strict=False)]
    titles = ("TIME", "SEVERITY", "MESSAGE", "WHY")
    return _rows(session, rows[::-1], [c for c in columns.EVENT if c.title in titles])

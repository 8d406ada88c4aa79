"""`pvc node`: the machines of the cluster, let in, changed, emptied, taken out."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from shell import node_columns
from shell.answers import tell
from shell.commands.edit import add_edit, add_export
from shell.commands.fields import field, nothing_given, put
from shell.commands.losses import listed, node_loss
from shell.commands.raw import amended
from shell.commands.several import Which, chosen, several
from shell.commands.wait import add_wait
from shell.failures import Declined
from shell.listing import Listing, show_list
from shell.measures import span
from shell.render import Output, clean, painted
from shell.tree import (
    Group,
    Pair,
    Span,
    answer_option,
    command,
    copy_option,
    dry_run_option,
    format_option,
    list_options,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(
    cls=Group,
    aliases={"flush": "drain", "unflush": "ready", "modify": "update", "set": "update"},
    lazy={
        "bmc": ("shell.commands.bmc:bmc", "The controllers of the nodes' power"),
        "top": ("shell.commands.top:top", "How busy they are"),
    },
)
def node() -> None:
    """The machines of the cluster."""


add_edit(node, "nodes", "nodes", "n1")
add_export(node, "nodes", "nodes", "n1")
add_wait(node, "nodes", "nodes", "n1")


@command(node, "list", "pvc node list", "pvc node list --state drained -f wide")
@list_options
@click.option("-s", "--state", help="Only in this state: online, drained, fenced…")
def list_(session: Any, asked: Listing, state: str | None) -> None:
    """List nodes; PATTERNs for the name may have stars."""
    terms = [f"decision.state = {state.upper()}"] if state else []
    found = partial(_columns, session)
    show_list(session, asked, session.cluster.nodes, found, path="nodes", terms=terms)


@command(node, "info", "pvc node info n1", "pvc node info n1 -f yaml")
@name_argument("nodes")
@format_option
def info(session: Any, name: str, format: Output) -> None:
    """Show everything about one: proofs of its death, its controller, its watchdog, its faults."""
    session.show_one(session.cluster.nodes.get(name), _columns(session), format)


def _columns(session: Any) -> Sequence[Any]:
    """What is shown of nodes, among it what other rows tell of them."""
    mask = ["name", "decision.node", "decision.power", "spec.memory"]
    vms = session.cluster.vms.list(read_mask=mask)
    return node_columns.columns(node_columns.around(session.cluster.status().leader, vms))


@command(
    node,
    "add",
    "pvc node add n4 10.0.0.4",
    "pvc node add n4 10.0.0.4 --coordinator | ssh n4 sudo pvc cluster join",
)
@click.argument("name")
@click.argument("address")
@click.option("--coordinator", is_flag=True, help="It may lead, and lets others in.")
@click.option("--expires", type=Span(), help="How long its token is good for. [default: 1h]")
@dry_run_option
def add(
    session: Any, name: str, address: str, coordinator: bool, expires: int | None, dry_run: bool
) -> None:
    """Expect a machine; print the token that lets it join, once.

    NAME is its host name, ADDRESS where the other nodes reach it.
    """
    answer = session.cluster.nodes.add(
        name,
        address,
        coordinator=coordinator,
        expires_in_s=expires or 0,
        **options(dry_run=dry_run),
    )
    if dry_run:
        click.echo(f"nodes/{name}: this would be accepted; nothing was changed")
        return
    click.echo(answer.token)
    click.echo(
        f"{name} is expected. On it, within {span(expires or 3600)}, and with this token:\n"
        "  sudo pvc cluster join",
        err=True,
    )


@command(node, "remove", "pvc node remove n4", "pvc node remove n4 --dry-run")
@name_argument("nodes", "names", nargs=-1)
@waiting_options
@yes_option
def remove(session: Any, names: tuple[str, ...], wait: Any, dry_run: bool, yes: bool) -> None:
    """Take nodes out of the cluster: drained ones, dead ones, or those that never came."""
    if not dry_run and not yes:
        for name in names:
            session.cluster.nodes.get(name)
        loss = "".join(node_loss(session, name) for name in names)
        what = "What is on their own disks is lost to it."
        session.confirm(f"Take {listed(names)} out of the cluster? {what}{loss}", yes=False)
    begin = session.cluster.nodes.remove
    extra = options(dry_run=dry_run)
    act(session, names, lambda n: begin(n, **extra), "node {} is gone", wait=wait, dry_run=dry_run)


@command(node, "drain", "pvc node drain n1", "pvc node drain n1 --shutdown --no-wait")
@several("nodes", tags=True)
@click.option("--shutdown", is_flag=True, help="Restart elsewhere what cannot move while it runs.")
@copy_option
@waiting_options
def drain(
    session: Any, which: Which, shutdown: bool, copy_volumes: bool, wait: Any, dry_run: bool
) -> None:
    """Move all VMs off nodes and keep new ones away."""
    names = _chosen(session, which)
    begin = session.cluster.nodes.drain
    extra = options(dry_run=dry_run) | {"shutdown": shutdown, "copy_volumes": copy_volumes}
    act(session, names, lambda n: begin(n, **extra), "node {} is empty", wait=wait, dry_run=dry_run)


@command(node, "ready", "pvc node ready n1", "pvc node ready --all --leave-vms")
@several("nodes", tags=True)
@click.option("--leave-vms", is_flag=True, help="Leave the VMs where they are by now.")
@copy_option
@waiting_options
def ready(
    session: Any, which: Which, leave_vms: bool, copy_volumes: bool, wait: Any, dry_run: bool
) -> None:
    """Let drained nodes carry VMs again, and bring back those that had to leave."""
    names = _chosen(session, which)
    begin = session.cluster.nodes.ready
    extra = options(dry_run=dry_run) | {"leave_vms": leave_vms, "copy_volumes": copy_volumes}
    act(session, names, lambda n: begin(n, **extra), "node {} is ready", wait=wait, dry_run=dry_run)


def _chosen(session: Any, which: Which) -> tuple[str, ...]:
    return chosen(session, which, "nodes", node_columns.columns(node_columns.around("", ())))


def _verb(name: str, verb: str, done: str, help: str, **given: Any) -> None:
    """Adds a command that answers when it is done. done: "node {} leads"."""

    @command(node, name, f"pvc node {name} n2")
    @name_argument("nodes")
    @answer_option
    @dry_run_option
    def ask(session: Any, name: str, dry_run: bool, shown: str) -> None:
        answer = getattr(session.cluster.nodes, verb)(name, **given, **options(dry_run=dry_run))
        would = f"nodes/{name}: this would be accepted; nothing was changed"
        tell(session, shown, answer, would if dry_run else done.format(name))

    ask.help = help


_verb("promote", "promote", "node {} is a coordinator", "Let a node lead, and let others in.")
_verb("demote", "demote", "node {} is no coordinator any more", "Keep a node from leading.")
_verb("primary", "lead", "node {} leads", "Hand the lead over to a node.")
_verb("secondary", "lead", "node {} leads no more", "Hand the lead over to another.", away=True)


def this_machine() -> str:
    """The id that this machine has as a node."""
    return socket.gethostname().partition(".")[0]


@command(node, "is-primary", "pvc node is-primary", "pvc node is-primary n2")
@name_argument("nodes", required=False)
def is_primary(session: Any, name: str | None) -> int:
    """Say by the exit code whether a node leads (this machine, without NAME): 0 yes, 1 no."""
    wanted = name or this_machine()
    return 0 if session.cluster.status().leader == f"nodes/{wanted}" else 1


@command(node, "update", "pvc node update n1 --add-tag ssd --max-vms 50")
@name_argument("nodes")
@field("node.spec.description", "--description", help="A text for people.")
@field("node.spec.tags", "--tag", multiple=True, help="All its tags, instead of those it has.")
@click.option("--add-tag", multiple=True, help="One more tag.")
@click.option("--remove-tag", multiple=True, help="A tag less.")
@field(
    "node.spec.max_vms", "--max-vms", type=int, zero=True, help="Most VMs on it; 0: as many as fit."
)
@field("node.spec.address", "--address", help="Where the other nodes reach it.")
@field("node.meta.labels", "--label", multiple=True, type=Pair(),
       help="A label of your own: KEY=VALUE.")  # fmt: skip
@answer_option
@dry_run_option
def update(session: Any, name: str, dry_run: bool, shown: str, **given: Any) -> None:
    """Change what is wanted of a node."""
    from shell.spec import retagged

    def change() -> Any:
        found, told = session.cluster.nodes.get(name), dict(given)
        tag, add, remove = (told.pop(key) for key in ("tag", "add_tag", "remove_tag"))
        if tag or add or remove:
            told["tag"] = retagged(tag or found.spec.tags, add, remove)
        paths = put(found, "node", told)
        nothing_given(paths)
        return session.cluster.nodes.update(found, paths, **options(dry_run=dry_run))

    tell(session, shown, amended(change), f"node {name} {'would be' if dry_run else 'is'} changed")


@command(node, "log", "pvc node log n1", "pvc node log n1 --follow")
@name_argument("nodes", required=False)
@click.option("-l", "--lines", type=click.IntRange(1), default=100, show_default=True,
              help="How many, the newest.")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
def log(session: Any, name: str | None, lines: int, follow: bool) -> None:
    """Show what happened to a node, and what its agents did (this machine, without NAME)."""
    from shell.commands.event import show_events

    wanted = session.cluster.nodes.get(name or this_machine()).name
    own = wanted.partition("/")[2]
    query = f'subject = "{wanted}" OR cause = "* {own}"'
    show_events(session, Listing(limit=lines, watch=follow), query)


@command(
    node,
    "confirm-dead",
    "pvc node confirm-dead n3 --why 'pulled both plugs'",
    "pvc node confirm-dead n3 --why 'burnt down' --dry-run",
)
@name_argument("nodes")
@click.option("--why", required=True, help="How you know, for the record.")
@dry_run_option
@yes_option
def confirm_dead(session: Any, name: str, why: str, dry_run: bool, yes: bool) -> None:
    """Say that a node is dead, so that its VMs are started elsewhere.

    If it is not dead, they run twice and their disks are destroyed. Wants the node's name typed.
    """
    nodes = session.cluster.nodes
    found = nodes.confirm_dead(name, why, validate_only=True)
    _warn(session, name, found.warnings)
    if dry_run:
        return
    _typed(name, yes)
    nodes.confirm_dead(name, why)
    click.echo(f"node {name} is held to be dead; its VMs start elsewhere: pvc event watch")


def _warn(session: Any, name: str, warnings: Sequence[str]) -> None:
    colour = session.coloured(sys.stderr)
    head = f"If {name} is not dead after all:" if warnings else f"No VM is lost if {name} lives."
    click.echo(painted(head, "bad" if warnings else "bold", colour), err=True)
    for warning in warnings:
        click.echo(f"  {clean(warning)}", err=True)


def _typed(name: str, yes: bool) -> None:
    """Returns when the name was typed. Raises Declined."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Declined("nobody can answer here: add --yes if you are certain that it is dead")
    click.echo(
        f"Type the node's name if you are certain that it is dead [{name}]: ", nl=False, err=True
    )
    if sys.stdin.readline().strip() != name:
        raise Declined("nothing was changed")


def secret_of(path: str | None) -> str:
    """A password out of a file, "-" for standard input, or as it is typed."""
    if path == "-":
        return sys.stdin.readline().rstrip("\n")
    if path:
        return Path(path).read_text().rstrip("\n")
    return str(click.prompt("Password of the controller", hide_input=True, err=True))

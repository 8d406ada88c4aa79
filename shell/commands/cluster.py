"""`pvc cluster`: the cluster as a whole, made, joined, told how to behave, balanced."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.measures import parse_span
from shell.render import Output, clean
from shell.tree import Group, command, format_option, options, waiting_options, yes_option
from shell.waiting import finish

INIT = "services.pvcd.init"
"""Where a new cluster is made; only on a machine that runs the services."""
JOIN = "services.pvcd.join"
"""Where a machine becomes a node."""
REMOVE = "services.pvcd.remove"
"""Where PVC is taken off a machine."""


@click.group(cls=Group, aliases={"info": "status"})
def cluster() -> None:
    """The cluster as a whole."""


@command(cluster, "status", "pvc cluster status", "pvc cluster status -f json")
@format_option
def status(session: Any, format: Output) -> None:
    """Say who leads, how many of what are in which state, and what is wrong."""
    session.show_one(session.cluster.status(), columns.CLUSTER, format)


config_option = click.option(
    "--config", type=click.Path(dir_okay=False), help="This machine's configuration."
)


def _here(module: str) -> Any:
    """A module of the services, which only machines that run them have."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        problem = f"this installation has no services, only the client ({error})"
        raise click.ClickException(problem) from None


@contextmanager
def _told() -> Iterator[None]:
    """Has the services' own refusals told like any other."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "reason_name"):
            raise
        raise click.ClickException(str(error)) from None


@command(cluster, "init", "sudo pvc cluster init", "sudo pvc cluster init --config lab.toml")
@config_option
@yes_option
def init(session: Any, config: str | None, yes: bool) -> None:
    """Make a new cluster on this machine: state, CA, first token. Needs no server."""
    make = _here(INIT).init
    if config and not Path(config).exists():
        raise click.BadParameter(f"{config} does not exist", param_hint="--config")
    session.confirm("Make a new cluster on this machine?", yes=yes)
    with _told():
        begun = make(Path(config) if config else None)
    for name in begun.made:
        click.echo(f"made {name}")
    click.echo(f"cluster {begun.cluster} is on {begun.node}; its first token: {begun.token_file}")
    session.note(
        f"from your desk: pvc connection add {begun.cluster} --address HOST --token-file "
        "admin.token --ca ca.crt, with copies of that file and of tls/ca.crt beside it"
    )


@command(cluster, "join", "sudo pvc cluster join", "sudo pvc cluster join --config lab.toml")
@click.argument("token", required=False)
@config_option
def join(session: Any, token: str | None, config: str | None) -> None:
    """Make this machine a node of the cluster that expects it (pvc node add).

    Without TOKEN it is asked for, or read from standard input: other users of the machine can see
    what is on a command line. May be repeated if it broke off.
    """
    make = _here(JOIN).join
    if not token and sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    given = token or sys.stdin.readline()
    with _told():
        joined = make(given, Path(config) if config else None)
    for path in joined.made:
        click.echo(f"made {path}")
    role = ", a coordinator" if joined.coordinator else ""
    click.echo(f"this machine is {joined.node} of the cluster {joined.cluster}{role}")
    click.echo(
        f"next: start PVC's services with --config {joined.config}, then see it come: "
        "pvc node list",
        err=True,
    )
    session.note(
        "then at your desk: pvc connection modify NAME --address HOST,HOST… with all nodes, so "
        "that any of them may be down"
    )


@command(cluster, "leave", "sudo pvc cluster leave", "sudo pvc cluster leave --force --yes")
@config_option
@click.option("--force", is_flag=True, help="Though the cluster was not told, or is gone.")
@yes_option
def leave(session: Any, config: str | None, force: bool, yes: bool) -> None:
    """Take PVC off this machine: its VMs, its networks, all its state. Stop its services first.

    A node of several is taken out of its cluster before: pvc node remove.
    """
    take_off = _here(REMOVE).remove
    session.confirm(
        "Take PVC off this machine? Its VMs end, and what is in its state folder is lost.", yes=yes
    )
    with _told():
        left = take_off(Path(config) if config else None, force=force)
    for remains in left:
        click.echo(remains, err=True)
    click.echo("PVC is off this machine" if not left else "PVC is off this machine, but for that")


def _switch(group: click.Group, name: str, field: str, on: tuple[str, str], off: tuple[str, str],
            ask: str, help: str) -> None:  # fmt: skip
    """Adds a command that switches something. on, off: (word, what is told then); ask: before it is
    switched on."""

    @command(group, name, f"pvc cluster {name} {on[0]}", f"pvc cluster {name} {off[0]}")
    @click.argument("word", metavar=f"[{on[0]}|{off[0]}]", type=click.Choice([on[0], off[0]]))
    @yes_option
    def switch(session: Any, word: str, yes: bool) -> None:
        from pvc.coordinator.v1 import cluster_pb2

        value = word == on[0]
        if value:
            session.confirm(ask, yes=yes)
        session.cluster.update(cluster_pb2.ClusterSpec(**{field: value}), [field])
        click.echo((on if value else off)[1])

    switch.help = help


_switch(
    cluster,
    "maintenance",
    "maintenance",
    ("on", "maintenance: no node is fenced, nothing is restarted elsewhere"),
    ("off", "maintenance is over"),
    "Stop fencing, recovery and balancing until it is switched off?",
    "Switch off fencing, recovery and balancing while you work on the machines; VMs go on.",
)
_switch(
    cluster,
    "ha",
    "ha_disarmed",
    ("disarm", "disarmed: nodes that fail are not fenced, their VMs not restarted"),
    ("arm", "armed: the VMs of nodes that fail are restarted"),
    "Leave the VMs of nodes that fail where they are until it is armed again?",
    "Arm or disarm the recovery of the VMs of nodes that fail.",
)


@command(cluster, "settings", "pvc cluster settings", "pvc cluster settings -f yaml")
@format_option
def settings(session: Any, format: Output) -> None:
    """Show how the cluster is to behave; `pvc cluster set` changes it."""
    session.show_one(session.cluster.status().spec, columns.SETTINGS, format)


class Milliseconds(click.ParamType[int]):
    """A short time: 500ms, 2s; becomes milliseconds."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Milliseconds."""
        text = str(value)
        digits = text.removesuffix("ms")
        if digits.isascii() and digits.isdigit():
            return int(digits)
        try:
            return parse_span(text) * 1000
        except ValueError:
            self.fail(f"{text!r} is no time; write it like 500ms or 2s", param, ctx)


@command(
    cluster,
    "set",
    "pvc cluster set --reserve-nodes 1",
    "pvc cluster set --fence-delay 500ms --auto-balance --balance-threshold 15",
)
@click.option("--reserve-nodes", type=click.IntRange(0),
              help="Keep room to restart the VMs of so many failed nodes.")  # fmt: skip
@click.option("--fence-max-percent", type=click.IntRange(1, 100),
              help="Most nodes that may be fenced at a time; one always may.")  # fmt: skip
@click.option("--fence-delay", "fence_delay_ms", type=Milliseconds(),
              help="How long a node that is gone is waited for.")  # fmt: skip
@click.option("--restart-grace", "restart_grace_s", type=click.IntRange(1),
              help="The same in seconds, for one whose agent restarts.")  # fmt: skip
@click.option("--migrations-per-node", type=click.IntRange(1), help="Most at a time.")
@click.option("--migrations-per-cluster", type=click.IntRange(1), help="Most at a time.")
@click.option("--auto-balance/--no-auto-balance", default=None, help="Balance by itself, or not.")
@click.option("--balance-threshold", "balance_threshold_percent", type=click.IntRange(1, 100),
              help="How uneven the nodes may be used.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
def set_(session: Any, dry_run: bool, **given: Any) -> None:
    """Change how the cluster is to behave."""
    from pvc.coordinator.v1 import cluster_pb2

    wanted = {key: value for key, value in given.items() if value is not None}
    if not wanted:
        raise click.UsageError("nothing to change: give at least one option")
    spec = cluster_pb2.ClusterSpec(**wanted)
    after = session.cluster.update(spec, list(wanted), **options(dry_run=dry_run))
    session.show_one(after.spec, columns.SETTINGS, Output())
    if dry_run:
        click.echo("this would be so; nothing was changed", err=True)


@command(cluster, "balance", "pvc cluster balance --dry-run", "pvc cluster balance --max-moves 5")
@click.option("--selector", type=click.Choice(["mem", "memprov", "load", "vcpus", "vms"]),
              help="What is to be even. [default: memory promised to VMs]")  # fmt: skip
@click.option("--max-moves", type=click.IntRange(1, 1000), default=100, show_default=True,
              help="Most moves.")  # fmt: skip
@format_option
@waiting_options
def balance(
    session: Any, selector: str | None, max_moves: int, format: Output, wait: bool, dry_run: bool
) -> None:
    """Move VMs so that the nodes are evenly used; --dry-run only shows the moves."""
    from pvc.compute.v1 import vm_pb2

    word = f"NODE_SELECTOR_{(selector or 'unspecified').upper()}"
    chosen = vm_pb2.NodeSelector.Value(word)
    plan = session.cluster.plan_balance(chosen, max_moves)
    _show_moves(session, plan, format)
    if dry_run or not plan.moves:
        return
    pending = session.cluster.balance(chosen, max_moves)
    finish(session, pending, "the nodes are evenly used", wait=wait)


def _show_moves(session: Any, plan: Any, format: Output) -> None:
    if not format.for_people:
        session.show_one(plan, columns.MOVE, format)
        return
    session.show_many(list(plan.moves), columns.MOVE, format, "there is nothing to move")
    click.echo(f"spread: {plan.spread_before:.1f} % → {plan.spread_after:.1f} %", err=True)
    for limit in plan.limits:
        click.echo(f"  {clean(limit)}", err=True)

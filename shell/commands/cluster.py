"""`pvc cluster`: the cluster as a whole, told how to behave, balanced."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.fields import field, nothing_given, put
from shell.measures import parse_span
from shell.render import Output, clean
from shell.tree import (
    Group,
    Span,
    command,
    dry_run_option,
    format_option,
    options,
    wait_options,
    yes_option,
)
from shell.waiting import finish


@click.group(
    cls=Group,
    aliases={"info": "status", "faults": "fault"},
    lazy={
        "init": ("shell.commands.cluster_machine:init", "Make a new cluster on this machine"),
        "join": ("shell.commands.cluster_machine:join", "Make this machine a node"),
        "leave": ("shell.commands.cluster_machine:leave", "Take PVC off this machine"),
        "status": ("shell.commands.status:status", "How it is, what is wrong, what to do"),
        "fault": ("shell.commands.status:fault", "What wants a person's attention"),
        "task": ("shell.commands.operation:task", "List long work, or wait for some"),
    },
)
def cluster() -> None:
    """The cluster as a whole."""


WOULD = "this would be accepted; nothing was changed"


def _switch(group: click.Group, name: str, field: str, on: tuple[str, str], off: tuple[str, str],
            ask: str, help: str) -> None:  # fmt: skip
    """Adds a command that switches something. on, off: (word, what is told then); ask: before it is
    switched on."""

    @command(group, name, f"pvc cluster {name} {on[0]}", f"pvc cluster {name} {off[0]}")
    @click.argument("word", metavar=f"[{on[0]}|{off[0]}]", type=click.Choice([on[0], off[0]]))
    @dry_run_option
    @yes_option
    def switch(session: Any, word: str, dry_run: bool, yes: bool) -> None:
        from pvc.coordinator.v1 import cluster_pb2

        value = word == on[0]
        if value and not dry_run and not getattr(session.cluster.status().spec, field):
            session.confirm(ask, yes=yes)
        spec = cluster_pb2.ClusterSpec(**{field: value})
        session.cluster.update(spec, [field], **options(dry_run=dry_run))
        session.say(f"cluster {name}: {WOULD if dry_run else (on if value else off)[1]}")

    switch.help = help


_switch(
    cluster,
    "maintenance",
    "maintenance",
    ("on", "no node is fenced, nothing is restarted elsewhere"),
    ("off", "it is over"),
    "Stop fencing, recovery and balancing until it is switched off?",
    "Switch off fencing, recovery and balancing while you work on the machines; VMs go on.",
)
_switch(
    cluster,
    "ha",
    "ha_disarmed",
    ("disarm", "disarmed; nodes that fail are not fenced, their VMs not restarted"),
    ("arm", "armed; the VMs of nodes that fail are restarted"),
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
@field(
    "ClusterSpec.reserve_nodes",
    "--reserve-nodes",
    type=int,
    help="Keep room to restart the VMs of so many failed nodes.",
)
@field(
    "ClusterSpec.fence_max_percent",
    "--fence-max-percent",
    type=int,
    help="Most nodes that may be fenced at a time; one always may.",
)
@field(
    "ClusterSpec.fence_delay_ms",
    "--fence-delay",
    type=Milliseconds(),
    help="How long a node that is gone is waited for.",
)
@field(
    "ClusterSpec.restart_grace_s",
    "--restart-grace",
    type=Span(),
    help="The same, for one whose agent restarts.",
)
@field(
    "ClusterSpec.power_on_after_fence",
    "--power-on-after-fence/--no-power-on-after-fence",
    default=None,
    help="Switch fenced nodes on again through their controllers, or not.",
)
@field("ClusterSpec.migrations_per_node", "--migrations-per-node", type=int, help="Most at a time.")
@field(
    "ClusterSpec.migrations_per_cluster",
    "--migrations-per-cluster",
    type=int,
    help="Most at a time.",
)
@field(
    "ClusterSpec.auto_balance",
    "--auto-balance/--no-auto-balance",
    default=None,
    help="Balance by itself, or not.",
)
@field(
    "ClusterSpec.balance_threshold_percent",
    "--balance-threshold",
    type=int,
    help="How uneven the nodes may be used.",
)
@field(
    "ClusterSpec.audit_kept_days",
    "--audit-days",
    type=int,
    help="How long entries of the audit log are kept.",
)
@field(
    "ClusterSpec.audit_kept_entries",
    "--audit-entries",
    type=int,
    help="How many of them are kept.",
)
@dry_run_option
@format_option
def set_(session: Any, dry_run: bool, format: Output, **given: Any) -> None:
    """Change how the cluster is to behave."""
    from pvc.coordinator.v1 import cluster_pb2

    spec = cluster_pb2.ClusterSpec()
    paths = put(spec, "ClusterSpec", given)
    nothing_given(paths)
    after = session.cluster.update(spec, paths, **options(dry_run=dry_run))
    session.show_one(after.spec, columns.SETTINGS, format)
    if dry_run:
        session.note("this would be so; nothing was changed")


@command(cluster, "balance", "pvc cluster balance --dry-run", "pvc cluster balance --max-moves 5")
@click.option("--selector", type=click.Choice(["mem", "memprov", "load", "vcpus", "vms"]),
              help="What is to be even. [default: memory promised to VMs]")  # fmt: skip
@click.option("--max-moves", type=click.IntRange(1, 1000), default=100, show_default=True,
              help="Most moves.")  # fmt: skip
@format_option
@wait_options
@dry_run_option
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

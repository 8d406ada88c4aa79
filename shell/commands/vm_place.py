"""`pvc vm migrate` and its kin: where VMs are and get to; and the options that say where they may
be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from shell import columns
from shell.render import Output, clean
from shell.tree import (
    command,
    copy_option,
    format_option,
    live_names,
    name_argument,
    options,
    stacked,
    waiting_options,
)
from shell.waiting import act

if TYPE_CHECKING:
    from pvc_client import Pending

METHODS = ("live", "shutdown")
SELECTORS = ("mem", "memprov", "load", "vcpus", "vms")

method_option = click.option(
    "-m",
    "--method",
    type=click.Choice(METHODS),
    help="While it runs, or off and on again. [default: the VM's]",
)


class Rule(click.ParamType[str]):
    """A rule as it is written, looked at before anything else is done."""

    name = "RULE"

    def __init__(self, kind: str) -> None:
        """kind: "node_rule", "vm_rule"."""
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The same text."""
        from shell.spec import items

        try:
            items(self._kind, [value])
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


place_options = stacked(
    click.option("--ha-policy", type=click.Choice(["restart", "stop", "ignore"]),
                 help="What becomes of it when its node fails."),
    click.option("--ha-priority", type=click.IntRange(1, 1000), help="Higher starts first."),
    click.option("--start-after", multiple=True, shell_complete=live_names("vms"),
                 help='A VM that must run before it starts by itself; "" for none.'),
    click.option("--selector", type=click.Choice(SELECTORS), help="What makes a node the better."),
    click.option("--limit-nodes", multiple=True, shell_complete=live_names("nodes"),
                 help='A node that it may be on, and no others; "" for all.'),
    click.option("--node-rule", multiple=True, type=Rule("node_rule"),
                 help='TAG of nodes that it should be on, avoid:TAG; with :required a must.'),
    click.option("--vm-rule", multiple=True, type=Rule("vm_rule"),
                 help='with:TAG or apart:TAG of other VMs; with :required a must. "" for none.'),
    click.option("--balance/--no-balance", default=None, help="Balancing may move it, or not."),
    click.option("--migration-method", type=click.Choice([*METHODS, "none"]),
                 help="How it moves; none: not at all."),
    click.option("--allow-post-copy/--no-post-copy", default=None,
                 help="Run on the target before all memory is there, where it must."),
    click.option("--max-downtime", type=click.IntRange(10, 60000),
                 help="Longest pause when it moves, in ms."),
)  # fmt: skip


def add_places(group: click.Group) -> None:
    """Adds the commands to `pvc vm`."""
    _moving(group, "migrate", "Move VMs to another node for a while; unmigrate brings them back.")
    _moving(group, "move", "Move VMs to another node for good.")
    _back(group)
    _explain(group)


def _moving(group: click.Group, verb: str, help: str) -> None:
    @command(group, verb, f"pvc vm {verb} web", f"pvc vm {verb} web db --node n2 --method live")
    @name_argument("vms", "names", nargs=-1)
    @click.option("-t", "--node", default="", shell_complete=live_names("nodes"),
                  help="Where to. [default: the best]")  # fmt: skip
    @method_option
    @copy_option
    @waiting_options
    def go(
        session: Any, names: tuple[str, ...], node: str, method: str | None, copy_volumes: bool,
        wait: bool, dry_run: bool,
    ) -> None:  # fmt: skip
        begin = getattr(session.cluster.vms, verb)
        extra = options(dry_run=dry_run) | {"to": node, "copy_volumes": copy_volumes}
        extra |= _method(method)
        _go(session, names, lambda n: begin(n, **extra), wait=wait, dry_run=dry_run)

    go.help = help


def _back(group: click.Group) -> None:
    @command(group, "unmigrate", "pvc vm unmigrate web")
    @name_argument("vms", "names", nargs=-1)
    @method_option
    @copy_option
    @waiting_options
    def unmigrate(
        session: Any, names: tuple[str, ...], method: str | None, copy_volumes: bool, wait: bool,
        dry_run: bool,
    ) -> None:  # fmt: skip
        """Bring VMs back to the node that they had to leave."""
        extra = options(dry_run=dry_run) | {"copy_volumes": copy_volumes} | _method(method)
        begin = session.cluster.vms.unmigrate
        _go(session, names, lambda n: begin(n, **extra), wait=wait, dry_run=dry_run)


def _go(
    session: Any, names: tuple[str, ...], begin: Callable[[str], Pending[Any]], *, wait: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    def told(vm: Any) -> str:
        where, how = columns.last(vm.decision.node), clean(vm.decision.last_move)
        return f"vm {columns.last(vm.name)} is on {where}" + (f" ({how})" if how else "")

    act(session, names, begin, told, wait=wait, dry_run=dry_run)


def _method(method: str | None) -> dict[str, Any]:
    from pvc.compute.v1 import vm_pb2

    word = f"MIGRATION_METHOD_{method.upper()}" if method else ""
    return {"method": vm_pb2.MigrationMethod.Value(word)} if word else {}


def _explain(group: click.Group) -> None:
    @command(group, "explain", "pvc vm explain web", "pvc vm explain web -f json")
    @name_argument("vms")
    @format_option
    def explain(session: Any, name: str, format: Output) -> None:
        """Say why a VM is where it is, and why not elsewhere."""
        found = session.cluster.vms.explain(name)
        if not format.for_people:
            session.show_one(found, columns.EXPLAINED, format)
            return
        where = f"is on {columns.last(found.node)}" if found.node else "is on no node"
        click.echo(f"{name} {where}")
        for reason in found.reasons:
            click.echo(f"  {clean(reason)}")
        if found.verdicts:
            click.echo("")
            session.show_many(list(found.verdicts), columns.VERDICT, format)

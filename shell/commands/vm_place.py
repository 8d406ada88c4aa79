"""`pvc vm migrate` and its kin: where VMs are and get to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from shell import columns
from shell.commands.fields import field
from shell.commands.several import Which, chosen, several
from shell.commands.vm_options import METHODS
from shell.render import Output, clean
from shell.tree import (
    command,
    copy_option,
    format_option,
    live_names,
    name_argument,
    options,
    waiting_options,
)
from shell.waiting import act

if TYPE_CHECKING:
    from pvc_client import Pending


method_option = click.option(
    "-m",
    "--method",
    type=click.Choice(METHODS),
    help="While it runs, or off and on again. [default: the VM's]",
)


def add_places(group: click.Group) -> None:
    """Adds the commands to `pvc vm`."""
    _moving(group, "migrate", "Move VMs to another node for a while; unmigrate brings them back.")
    _moving(group, "move", "Move VMs to another node for good.")
    _back(group)
    _explain(group)


def _moving(group: click.Group, verb: str, help: str) -> None:
    @command(group, verb, f"pvc vm {verb} web", f"pvc vm {verb} web db --node n2 --method live")
    @several("vms", tags=True)
    @field("MigrateVmRequest.node", "-t", "--node", "--target", default="",
           shell_complete=live_names("nodes"), help="Where to. [default: the best]")  # fmt: skip
    @method_option
    @copy_option
    @waiting_options
    def go(
        session: Any, which: Which, node: str, method: str | None, copy_volumes: bool,
        wait: bool, dry_run: bool,
    ) -> None:  # fmt: skip
        names = chosen(session, which, "vms", columns.VM)
        begin = getattr(session.cluster.vms, verb)
        extra = options(dry_run=dry_run) | {"to": node, "copy_volumes": copy_volumes}
        extra |= _method(method)
        _go(session, names, lambda n: begin(n, **extra), wait=wait, dry_run=dry_run)

    go.help = help


def _back(group: click.Group) -> None:
    @command(group, "unmigrate", "pvc vm unmigrate web")
    @several("vms", tags=True)
    @method_option
    @copy_option
    @waiting_options
    def unmigrate(
        session: Any, which: Which, method: str | None, copy_volumes: bool, wait: bool,
        dry_run: bool,
    ) -> None:  # fmt: skip
        """Bring VMs back to the node that they had to leave."""
        extra = options(dry_run=dry_run) | {"copy_volumes": copy_volumes} | _method(method)
        names = chosen(session, which, "vms", columns.VM)
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

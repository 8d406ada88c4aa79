"""`pvc cluster init`, `join` and `leave`: what is done on a machine itself, without a server."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shell.tree import Command, yes_option

INIT = "services.pvcd.init"
"""Where a new cluster is made; only on a machine that runs the services."""
JOIN = "services.pvcd.join"
"""Where a machine becomes a node."""
REMOVE = "services.pvcd.remove"
"""Where PVC is taken off a machine."""

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


@click.command(
    cls=Command,
    examples=(
        "sudo pvc cluster init",
        "sudo pvc cluster init --config lab.toml",
    ),
)
@config_option
@yes_option
@click.pass_obj
def init(session: Any, /, config: str | None, yes: bool) -> None:
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


@click.command(
    cls=Command,
    examples=(
        "sudo pvc cluster join",
        "sudo pvc cluster join --config lab.toml",
    ),
)
@click.argument("token", required=False)
@config_option
@click.pass_obj
def join(session: Any, /, token: str | None, config: str | None) -> None:
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


@click.command(
    cls=Command,
    examples=(
        "sudo pvc cluster leave",
        "sudo pvc cluster leave --force --yes",
    ),
)
@config_option
@click.option("--force", is_flag=True, help="Though the cluster was not told, or is gone.")
@yes_option
@click.pass_obj
def leave(session: Any, /, config: str | None, force: bool, yes: bool) -> None:
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

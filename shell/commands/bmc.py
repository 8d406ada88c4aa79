"""`pvc node bmc`: the controllers that switch the nodes' power from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shell.answers import tell
from shell.commands.node import secret_of
from shell.tree import Group, answer_option, command, dry_run_option, name_argument, options


@click.group(cls=Group)
def bmc() -> None:
    """The controllers of the nodes' power: how a node's death is proven, and its VMs saved."""


@command(
    bmc,
    "set",
    "pvc node bmc set n1 --protocol redfish --address https://bmc-n1.example.org --user root",
    "pvc node bmc set n1 --protocol ipmi --address 10.9.0.1 --user root --password-file secret",
)
@name_argument("nodes")
@click.option(
    "--protocol", type=click.Choice(["redfish", "ipmi"]), required=True, help="Its language."
)
@click.option("--address", required=True, help="Redfish: its URL. IPMI: HOST or HOST:PORT.")
@click.option("--user", default="", help="The account.")
@click.option("--password-file", help="File with the password; - for stdin. Else it is asked for.")
@click.option("--keep-password", is_flag=True, help="Leave the password as it is.")
@click.option("--system", default="", help="Redfish: which of its systems the node is.")
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False),
              help="Redfish: PEM file of its certificate, or its authority's.")  # fmt: skip
@click.option("--check/--no-check", default=True, show_default=True, help="Ask it at once.")
@answer_option
@dry_run_option
def set_(
    session: Any, name: str, protocol: str, password_file: str | None, keep_password: bool,
    certificate: str | None, check: bool, dry_run: bool, shown: str,
    **given: str,
) -> None:  # fmt: skip
    """Tell how a node's power is switched. The password is kept sealed."""
    from pvc.coordinator.v1 import cluster_pb2

    found = session.cluster.nodes.get(name)
    control = cluster_pb2.PowerControl()
    for key, value in given.items():
        setattr(control, key, value)
    control.protocol = cluster_pb2.PowerControl.Protocol.Value(f"PROTOCOL_{protocol.upper()}")
    if certificate:
        control.certificate = Path(certificate).read_text()
    if not keep_password:
        control.password = secret_of(password_file)
    found.spec.power_control.CopyFrom(control)
    found.meta.etag = ""  # the coordinator writes this row all the time
    paths = ["spec.power_control"]
    answer = session.cluster.nodes.update(found, paths, **options(dry_run=dry_run))
    done = f"the controller of {name} {'would be' if dry_run else 'is'} set"
    tell(session, shown, answer, done)
    if check and not dry_run:
        _check(session, name)


@command(bmc, "clear", "pvc node bmc clear n1")
@name_argument("nodes")
@answer_option
@dry_run_option
def clear(session: Any, name: str, dry_run: bool, shown: str) -> None:
    """Forget a node's controller and its password."""
    found = session.cluster.nodes.get(name)
    found.spec.ClearField("power_control")
    found.meta.etag = ""
    extra = options(dry_run=dry_run)
    answer = session.cluster.nodes.update(found, ["spec.power_control"], **extra)
    tell(session, shown, answer, f"{name} {'would have' if dry_run else 'has'} no controller")


@command(bmc, "check", "pvc node bmc check n1")
@name_argument("nodes")
def check(session: Any, name: str) -> None:
    """Ask a node's controller whether its power is on: could it be fenced today?"""
    _check(session, name)


def _check(session: Any, name: str) -> None:
    answer = session.cluster.nodes.check_power(name)
    took_s = answer.took.ToMilliseconds() / 1000
    click.echo(f"the power of {name} is {'on' if answer.on else 'off'} ({took_s:.1f} s)")

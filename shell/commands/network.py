"""`pvc network`: virtual networks."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info, add_list
from shell.tree import Group, command, name_argument, options, waiting_options, yes_option
from shell.waiting import act


@click.group(cls=Group, aliases={"add": "create", "remove": "delete"})
def network() -> None:
    """Virtual networks that VMs are attached to."""


add_list(network, "networks", "networks", columns.NETWORK, "pvc network list -f wide")
add_info(network, "networks", columns.NETWORK, "pvc network info default")


@command(network, "create", "pvc network create lan --ipnet 10.65.0.0/24 --nat",
         "pvc network create bare")  # fmt: skip
@click.argument("name")
@click.option("--ipnet", default="", help="IPv4 network to manage; a bare network without it.")
@click.option("--gateway", default="", help="Its gateway; the first address without it.")
@click.option("--dhcp-start", default="", help="First address for VMs.")
@click.option("--dhcp-end", default="", help="Last address for VMs.")
@click.option("--nat/--no-nat", default=False, show_default=True, help="A way to the outside.")
@click.option("--domain", default="", help="The guests' DNS domain.")
@click.option("--mtu", type=click.IntRange(576, 9216), help="Largest packet.")
@click.option("--description", default="", help="A text for people.")
@waiting_options
def create(session: Any, name: str, wait: bool, dry_run: bool, **given: Any) -> None:
    """Make a network."""
    spec = _spec(given)
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.networks.create(n, spec, **extra),
        "network {} is ready",
        wait=wait,
        dry_run=dry_run,
    )


def _spec(given: dict[str, Any]) -> Any:
    from pvc.network.v1 import network_pb2

    spec = network_pb2.NetworkSpec(
        nat=given["nat"],
        domain=given["domain"],
        mtu=given["mtu"] or 0,
        description=given["description"],
    )
    addresses = {
        "cidr": given["ipnet"],
        "gateway": given["gateway"],
        "dhcp_first": given["dhcp_start"],
        "dhcp_last": given["dhcp_end"],
    }
    if any(addresses.values()):
        spec.ipv4.CopyFrom(network_pb2.Ipv4Spec(**addresses))
    return spec


@command(network, "delete", "pvc network delete lan")
@name_argument("networks")
@waiting_options
@yes_option
def delete(session: Any, name: str, wait: bool, dry_run: bool, yes: bool) -> None:
    """Remove a network that no VM uses."""
    if not dry_run:
        session.confirm(f"Remove the network {name}?", yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.networks.delete(n, **extra),
        "network {} is gone",
        wait=wait,
        dry_run=dry_run,
    )

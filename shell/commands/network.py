"""`pvc network`: virtual networks."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.edit import add_edit, add_export
from shell.commands.fields import argument, field, nothing_given, put
from shell.commands.losses import listed
from shell.commands.raw import amended, begin
from shell.commands.several import Which, chosen, several
from shell.commands.shared import add_info, add_list
from shell.commands.wait import add_wait
from shell.listing import Listing, show_rows
from shell.render import Column
from shell.tree import (
    Group,
    Pair,
    command,
    name_argument,
    options,
    rows_options,
    stacked,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group, aliases={"add": "create", "remove": "delete", "update": "modify"})
def network() -> None:
    """Virtual networks that VMs are attached to."""


@click.group(cls=Group)
def dhcp() -> None:
    """The addresses that a network gives to VMs."""


network.add_command(dhcp)
add_list(network, "networks", "networks", columns.NETWORK, "pvc network list -f wide")
add_info(network, "networks", columns.NETWORK, "pvc network info default")
add_edit(network, "networks", "networks", "default")
add_export(network, "networks", "networks", "default")
add_wait(network, "networks", "networks", "default")

network_options = stacked(
    field("network.spec.ipv4.cidr", "--ipnet", "--cidr", "-i",
          help="IPv4 network to manage; a bare network without it."),
    field("network.spec.ipv4.gateway", "--gateway", "-g",
          help="Its gateway; the first address without it."),
    field("network.spec.ipv4.dhcp_first", "--dhcp-start", help="First address for VMs."),
    field("network.spec.ipv4.dhcp_last", "--dhcp-end", help="Last address for VMs."),
    field("network.spec.nat", "--nat/--no-nat", default=None, help="A way to the outside."),
    field("network.spec.domain", "--domain", "-n", help="The guests' DNS domain."),
    field("network.spec.mtu", "--mtu", "-m", type=int, help="Largest packet."),
    field("network.spec.description", "--description", "-d", help="A text for people."),
    field("network.meta.labels", "--label", multiple=True, type=Pair(),
          help="A label of your own: KEY=VALUE."),
)  # fmt: skip


@command(network, "create", "pvc network create lan --ipnet 10.65.0.0/24 --nat",
         "pvc network create bare")  # fmt: skip
@argument("CreateNetworkRequest.network_id", "name")
@network_options
@field("network.spec.vni", "--vni", type=int, help="Number of its overlay; chosen without it.")
@waiting_options
def create(session: Any, name: str, wait: Any, dry_run: bool, **given: Any) -> None:
    """Make a network."""
    from pvc.network.v1 import network_service_pb2 as pb

    request = pb.CreateNetworkRequest(network_id=name, validate_only=dry_run)
    request.network.SetInParent()
    put(request.network, "network", given)

    def make(_name: str) -> Any:
        return begin(session, "NetworkService/CreateNetwork", request)

    act(session, [name], make, "network {} is ready", wait=wait, dry_run=dry_run)


@command(network, "modify", "pvc network modify lan --nat", "pvc network modify lan --mtu 9000")
@name_argument("networks")
@network_options
@waiting_options
def modify(session: Any, name: str, wait: Any, dry_run: bool, **given: Any) -> None:
    """Change a network, while VMs use it."""

    def change(_name: str) -> Any:
        found = session.cluster.networks.get(name)
        paths = put(found, "network", given)
        nothing_given(paths)
        return session.cluster.networks.update(found, tuple(paths), **options(dry_run=dry_run))

    done = "network {} is changed"
    act(session, [name], lambda n: amended(lambda: change(n)), done, wait=wait, dry_run=dry_run)


@command(network, "delete", "pvc network delete lan", "pvc network delete lan bare --yes")
@several("networks")
@waiting_options
@yes_option
def delete(session: Any, which: Which, wait: Any, dry_run: bool, yes: bool) -> None:
    """Remove networks that no VM uses."""
    names = chosen(session, which, "networks", columns.NETWORK)
    if not dry_run and not yes:
        for name in names:
            session.cluster.networks.get(name)
        session.confirm(f"Remove the network {listed(names)}?", yes=False)
    extra = options(dry_run=dry_run)
    remove = session.cluster.networks.delete
    act(session, names, lambda n: remove(n, **extra), "network {} is gone", wait=wait,
        dry_run=dry_run)  # fmt: skip


ADDRESS = (
    Column("ADDRESS", lambda r, v: r.address),
    Column("MAC", lambda r, v: r.mac),
    Column("VM", lambda r, v: columns.last(r.vm)),
    Column("NIC", lambda r, v: r.nic),
    Column("HOST NAME", lambda r, v: r.host_name, elastic=True),
    Column("LAST ASKED", lambda r, v: columns.when(r, "lease_time") or "never"),
)


@command(dhcp, "list", "pvc network dhcp list default", "pvc network dhcp list default -f csv")
@name_argument("networks")
@rows_options
def addresses(session: Any, name: str, asked: Listing) -> None:
    """List who has which address on a network."""
    found = session.cluster.networks.get(name)
    show_rows(session, asked, list(found.status.addresses), ADDRESS)

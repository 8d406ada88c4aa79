"""`pvc storage` and `pvc provisioner`: older names for volumes, pools, snapshots and images."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.listing import Listing, show_list
from shell.measures import size
from shell.render import Column, Output
from shell.tree import Group, command, format_option


@click.group(
    cls=Group,
    lazy={
        "volume": ("shell.commands.two_words:volume", "Virtual disks and their snapshots"),
        "pool": ("shell.commands.pool:pool", "Places to keep volumes in"),
        "snapshot": ("shell.commands.two_words:snapshot", "Snapshots of volumes"),
    },
)
def storage() -> None:
    """Volumes, pools and snapshots, as PVC has always called them together."""


@click.group(
    cls=Group,
    lazy={
        "image": ("shell.commands.image:image", "Images that VMs are made from"),
        "create": ("shell.commands.provision:create", "Make a VM from an image"),
    },
)
def provisioner() -> None:
    """Images, and VMs that are made from them."""


@command(storage, "status", "pvc storage status")
@format_option
def status(session: Any, format: Output) -> None:
    """Show every pool: whether it can be used, and why not."""
    told = [one for one in columns.POOL if one.title != "PROMISED"] + [
        one for one in columns.POOL if one.title == "WHY"
    ]
    pools = session.cluster.pools
    show_list(session, Listing(format), pools, list(dict.fromkeys(told)), path="pools")


UTIL = (
    Column("POOL", lambda r, v: columns.last(r.name)),
    Column("SIZE", lambda r, v: size(r.status.capacity_bytes), right=True),
    Column("USED", lambda r, v: size(_used(r)), right=True),
    Column("USED %", lambda r, v: _percent(_used(r), r.status.capacity_bytes), right=True),
    Column("PROMISED", lambda r, v: size(r.status.promised_bytes), right=True),
    Column("PROMISED %", lambda r, v: _percent(r.status.promised_bytes, r.status.capacity_bytes),
           right=True),
    Column("RESERVE", lambda r, v: size(r.spec.reserve_bytes), right=True),
)  # fmt: skip


def _used(pool: Any) -> int:
    return int(pool.status.capacity_bytes - pool.status.available_bytes)


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 // whole}" if whole else ""


@command(storage, "util", "pvc storage util")
@format_option
def util(session: Any, format: Output) -> None:
    """Show how full the pools are, and how much more is promised than there is."""
    show_list(session, Listing(format), session.cluster.pools, UTIL, path="pools")

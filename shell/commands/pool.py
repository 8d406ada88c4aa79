"""`pvc pool`: places to keep volumes in."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info, add_list
from shell.tree import (
    Group,
    Size,
    command,
    live_names,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group, aliases={"add": "create", "remove": "delete"})
def pool() -> None:
    """Places to keep volumes in."""


add_list(pool, "pools", "pools", columns.POOL, "pvc pool list -f wide")
add_info(pool, "pools", columns.POOL, "pvc pool info local")


@command(
    pool,
    "create",
    "pvc pool create fast --path /srv/fast",
    "pvc pool create nfs --path /mnt/nfs/pvc --shared",
)
@click.argument("name")
@click.option("--path", required=True, help="The folder: made if missing, else empty.")
@click.option("--node", default="", help="Its node.", shell_complete=live_names("nodes"))
@click.option("--shared", is_flag=True, help="All nodes see this same folder.")
@click.option("--reserve", type=Size("G"), help="Room that new volumes leave free.")
@click.option("--description", default="", help="A text for people.")
@waiting_options
def create(
    session: Any,
    name: str,
    path: str,
    node: str,
    shared: bool,
    reserve: int | None,
    description: str,
    wait: bool,
    dry_run: bool,
) -> None:
    """Make a pool in a folder."""
    from pvc.storage.v1 import storage_pb2

    spec = storage_pb2.PoolSpec(
        description=description,
        directory=storage_pb2.DirectoryPool(path=path),
        node=f"nodes/{node}" if node else "",
        reserve_bytes=reserve or 0,
        shared=shared,
    )
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.pools.create(n, spec, **extra),
        "pool {} is ready",
        wait=wait,
        dry_run=dry_run,
    )


@command(pool, "delete", "pvc pool delete fast", "pvc pool delete fast --force")
@name_argument("pools")
@click.option("--force", is_flag=True, help="With its volumes, when its disk is gone for good.")
@waiting_options
@yes_option
def delete(session: Any, name: str, force: bool, wait: bool, dry_run: bool, yes: bool) -> None:
    """Forget a pool that holds no volumes."""
    if not dry_run:
        also = " and all its volumes, whatever is left of them" if force else ""
        session.confirm(f"Forget the pool {name}{also}?", yes=yes)
    extra = options(dry_run=dry_run) | {"force": force}
    act(
        session,
        [name],
        lambda n: session.cluster.pools.delete(n, **extra),
        "pool {} is gone",
        wait=wait,
        dry_run=dry_run,
    )

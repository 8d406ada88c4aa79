"""`pvc pool`: places to keep volumes in."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.answers import tell
from shell.commands.edit import add_edit, add_export
from shell.commands.fields import argument, field, nothing_given, put
from shell.commands.losses import pool_loss
from shell.commands.raw import amended, begin
from shell.commands.shared import add_info, add_list
from shell.commands.wait import add_wait
from shell.tree import (
    Group,
    Pair,
    Size,
    answer_option,
    command,
    dry_run_option,
    live_names,
    name_argument,
    options,
    stacked,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group, aliases={"add": "create", "remove": "delete", "update": "modify"})
def pool() -> None:
    """Places to keep volumes in."""


add_list(pool, "pools", "pools", columns.POOL, "pvc pool list -f wide")
add_info(pool, "pools", columns.POOL, "pvc pool info local")
add_edit(pool, "pools", "pools", "local")
add_export(pool, "pools", "pools", "local")
add_wait(pool, "pools", "pools", "local")

pool_options = stacked(
    field("pool.spec.reserve_bytes", "--reserve", type=Size("G"),
          help="Room that new volumes leave free."),
    field("pool.spec.description", "--description", help="A text for people."),
    field("pool.meta.labels", "--label", multiple=True, type=Pair(),
          help="A label of your own: KEY=VALUE."),
)  # fmt: skip


@command(
    pool,
    "create",
    "pvc pool create fast --path /srv/fast",
    "pvc pool create nfs --path /mnt/nfs/pvc --shared",
)
@argument("CreatePoolRequest.pool_id", "name")
@field("pool.spec.directory.path", "--path", required=True,
       help="The folder: made if missing, else empty.")  # fmt: skip
@field("pool.spec.node", "--node", help="Its node.", shell_complete=live_names("nodes"))
@field("pool.spec.shared", "--shared", is_flag=True, help="All nodes see this same folder.")
@pool_options
@waiting_options
def create(session: Any, name: str, wait: Any, dry_run: bool, **given: Any) -> None:
    """Make a pool in a folder."""
    from pvc.storage.v1 import storage_service_pb2 as pb

    request = pb.CreatePoolRequest(pool_id=name, validate_only=dry_run)
    put(request.pool, "pool", given)

    def make(_name: str) -> Any:
        return begin(session, "StorageService/CreatePool", request)

    act(session, [name], make, "pool {} is ready", wait=wait, dry_run=dry_run)


@command(pool, "modify", "pvc pool modify fast --reserve 10G")
@name_argument("pools")
@pool_options
@answer_option
@dry_run_option
def modify(session: Any, name: str, dry_run: bool, shown: str, **given: Any) -> None:
    """Change what a pool keeps free, or what is said of it."""

    def change() -> Any:
        found = session.cluster.pools.get(name)
        paths = put(found, "pool", given)
        nothing_given(paths)
        return session.cluster.pools.update(found, paths, **options(dry_run=dry_run))

    tell(session, shown, amended(change), f"pool {name} {'would be' if dry_run else 'is'} changed")


@command(pool, "delete", "pvc pool delete fast", "pvc pool delete fast --force")
@name_argument("pools")
@click.option("--force", is_flag=True, help="With its volumes, when its disk is gone for good.")
@waiting_options
@yes_option
def delete(session: Any, name: str, force: bool, wait: Any, dry_run: bool, yes: bool) -> None:
    """Forget a pool that holds no volumes."""
    if not dry_run and not yes:
        also = " and all its volumes, whatever is left of them" if force else ""
        loss = pool_loss(session, name)
        session.confirm(f"Forget the pool {name}{also}?{loss}", yes=False)
    extra = options(dry_run=dry_run) | {"force": force}
    remove = session.cluster.pools.delete
    act(session, [name], lambda n: remove(n, **extra), "pool {} is gone", wait=wait,
        dry_run=dry_run)  # fmt: skip

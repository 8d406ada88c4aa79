"""`pvc snapshot`: snapshots of single volumes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from shell import columns
from shell.commands.fields import argument, field
from shell.listing import Listing, show_list
from shell.render import Output
from shell.tree import (
    Group,
    command,
    format_option,
    inner_list_options,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group, aliases={"add": "create", "remove": "delete"})
def snapshot() -> None:
    """Snapshots of single volumes (pvc vm snapshot takes them of whole VMs)."""


def name_by_time(session: Any) -> str:
    """What a snapshot is called that nobody gave a name: 20260131120000."""
    return datetime.fromtimestamp(session.now(), UTC).strftime("%Y%m%d%H%M%S")


@command(snapshot, "list", "pvc snapshot list local/web-root", "pvc snapshot list")
@name_argument("volumes", required=False)
@inner_list_options
def list_snapshots(session: Any, name: str | None, asked: Listing) -> None:
    """List the snapshots of a volume, or all."""
    show_list(
        session, asked, session.cluster.volumes.snapshots, columns.SNAPSHOT,
        path="pools/*/volumes/*/snapshots", parent=name or "",
    )  # fmt: skip


@command(snapshot, "info", "pvc snapshot info local/web-root before-upgrade")
@name_argument("volumes")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@format_option
def info(session: Any, name: str, snapshot_name: str, format: Output) -> None:
    """Show everything about one."""
    found = session.cluster.volumes.snapshots.get(f"{name}/{snapshot_name}")
    session.show_one(found, columns.SNAPSHOT, format)


@command(snapshot, "create", "pvc snapshot create local/web-root before-upgrade",
         "pvc snapshot create local/web-root")  # fmt: skip
@name_argument("volumes")
@argument("CreateSnapshotRequest.snapshot_id", "snapshot_name", metavar="[SNAPSHOT]",
          required=False)  # fmt: skip
@field("snapshot.description", "--description", default="", help="A text for people.")
@click.option("--quiesce", is_flag=True, help="Freeze the guest's file systems for the moment.")
@waiting_options
def create(
    session: Any, name: str, snapshot_name: str | None, description: str, quiesce: bool,
    wait: Any, dry_run: bool,
) -> None:  # fmt: skip
    """Take a snapshot of a volume, also while a VM runs on it. Without a name: that of the time."""
    full = f"{name}/{snapshot_name or name_by_time(session)}"
    extra = options(dry_run=dry_run) | {"quiesce": quiesce}
    take = session.cluster.volumes.snapshots.create
    act(session, [full], lambda n: take(n, description, **extra), "snapshot {} is taken",
        wait=wait, dry_run=dry_run)  # fmt: skip


def _destroying(name: str, question: str, done: str, help: str) -> None:
    """Adds a command on a snapshot that loses something."""

    @command(snapshot, name, f"pvc snapshot {name} local/web-root before-upgrade")
    @name_argument("volumes")
    @click.argument("snapshot_name", metavar="SNAPSHOT")
    @waiting_options
    @yes_option
    def destroy(
        session: Any, name: str, snapshot_name: str, wait: Any, dry_run: bool, yes: bool
    ) -> None:
        full = f"{name}/{snapshot_name}"
        there = session.cluster.volumes.snapshots
        if not dry_run and not yes:
            age = columns.when(there.get(full), "snapshot_time")
            session.confirm(question.format(f"{full} ({age})" if age else full), yes=False)
        begin, extra = (
            getattr(there, click.get_current_context().command.name or ""),
            options(dry_run=dry_run),
        )
        act(session, [full], lambda n: begin(n, **extra), done, wait=wait, dry_run=dry_run)

    destroy.help = help


_destroying("delete", "Remove the snapshot {}?", "{} is gone", "Remove a snapshot.")
_destroying(
    "rollback",
    "Put the volume back to {}? What was written since then is lost.",
    "the volume is back at {}",
    "Put a volume that no running VM uses back to what it was.",
)

"""`pvc vm snapshot`: snapshots of whole VMs."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.fields import argument, field
from shell.commands.snapshot import name_by_time
from shell.listing import Listing, show_list
from shell.tree import (
    Group,
    command,
    inner_list_options,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group, aliases={"delete": "remove", "add": "create"})
def snapshot() -> None:
    """Snapshots of whole VMs: all writable volumes at the same moment, and the spec."""


@command(snapshot, "list", "pvc vm snapshot list web")
@name_argument("vms")
@inner_list_options
def list_(session: Any, name: str, asked: Listing) -> None:
    """List the snapshots of a VM."""
    show_list(
        session, asked, session.cluster.vms.snapshots, columns.VM_SNAPSHOT,
        path="vms/*/snapshots", parent=name,
    )  # fmt: skip


@command(snapshot, "create", "pvc vm snapshot create web before-upgrade",
         "pvc vm snapshot create web")  # fmt: skip
@name_argument("vms")
@argument("CreateVmSnapshotRequest.snapshot_id", "snapshot_name", metavar="[SNAPSHOT]",
          required=False)  # fmt: skip
@field("CreateVmSnapshotRequest.description", "--description", default="",
       help="A text for people.")  # fmt: skip
@waiting_options
def create(
    session: Any, name: str, snapshot_name: str | None, description: str, wait: Any, dry_run: bool
) -> None:
    """Take a snapshot; without a name it is called by the time: 20260131120000."""
    snapshot_name = snapshot_name or name_by_time(session)
    extra = options(dry_run=dry_run)
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.vms.snapshots.create(n, description, **extra),
        "snapshot {} is taken",
        wait=wait,
        dry_run=dry_run,
    )


@command(snapshot, "remove", "pvc vm snapshot remove web before-upgrade")
@name_argument("vms")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@waiting_options
@yes_option
def remove(
    session: Any, name: str, snapshot_name: str, wait: bool, dry_run: bool, yes: bool
) -> None:
    """Remove a snapshot."""
    if not dry_run:
        session.confirm(f"Remove the snapshot {snapshot_name} of {name}?", yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.vms.snapshots.delete(n, **extra),
        "snapshot {} is gone",
        wait=wait,
        dry_run=dry_run,
    )


@command(snapshot, "rollback", "pvc vm snapshot rollback web before-upgrade")
@name_argument("vms")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@waiting_options
@yes_option
def rollback(
    session: Any, name: str, snapshot_name: str, wait: bool, dry_run: bool, yes: bool
) -> None:
    """Put a VM that is off back to what it was."""
    if not dry_run:
        question = f"Put {name} back to {snapshot_name}? What it wrote since then is lost."
        session.confirm(question, yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.vms.snapshots.rollback(n, **extra),
        "vm is back at {}",
        wait=wait,
        dry_run=dry_run,
    )

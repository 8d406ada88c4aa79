"""`pvc volume`: virtual disks."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.fields import argument, field, put
from shell.commands.losses import listed, volume_words
from shell.commands.raw import begin
from shell.commands.several import Which, chosen, several
from shell.commands.shared import add_info, add_list
from shell.commands.wait import add_wait
from shell.tree import (
    Group,
    Pair,
    Size,
    command,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act

KEPT = ("qcow2", "raw")


@click.group(
    cls=Group,
    aliases={"add": "create", "remove": "delete", "upload": "import"},
    lazy={
        "import": ("shell.commands.volume_files:import_", "Make one from an image file"),
        "export": ("shell.commands.volume_files:export", "Write one to an image file"),
        "snapshot": ("shell.commands.snapshot:snapshot", "Snapshots of single volumes"),
    },
)
def volume() -> None:
    """Virtual disks. One is named POOL/VOLUME."""


add_list(
    volume,
    "volumes",
    "pools/*/volumes",
    columns.VOLUME,
    "pvc volume list",
    "pvc volume list 'web-*' --sort 'status.size_bytes desc'",
    first="pvc volume create POOL/NAME SIZE",
)
add_info(volume, "volumes", columns.VOLUME, "pvc volume info local/web-root")
add_wait(volume, "pools/volumes", "volumes", "local/web-root")


@command(
    volume,
    "create",
    "pvc volume create local/data 20G",
    "pvc volume create local/copy --from local/web-root",
)
@click.argument("name")
@argument("volume.spec.size_bytes", "size", type=Size("G"), required=False)
@click.option("--from", "source", help="Begin as a copy of POOL/VOLUME or POOL/VOLUME/SNAPSHOT.")
@field("volume.spec.format", "--image-format", type=click.Choice(KEPT), help="How it is kept.")
@field("volume.spec.description", "--description", help="A text for people.")
@field("volume.spec.sealed", "--sealed", is_flag=True, help="Nobody writes it any more.")
@field("volume.meta.labels", "--label", multiple=True, type=Pair(),
       help="A label of your own: KEY=VALUE.")  # fmt: skip
@waiting_options
def create(session: Any, name: str, source: str | None, wait: Any, dry_run: bool,
           **given: Any) -> None:  # fmt: skip
    """Make a volume: empty with a SIZE, or as a copy."""
    from pvc.storage.v1 import storage_service_pb2 as pb
    from pvc_client.names import full_name, last_id, parent_of

    if not given["size"] and not source:
        raise click.UsageError("give a SIZE, or --from something")
    full = full_name("pools/volumes", name, "NAME")
    request = pb.CreateVolumeRequest(
        parent=parent_of(full), volume_id=last_id(full), validate_only=dry_run
    )
    put(request.volume, "volume", given)
    if source and source.count("/") == 2:
        path = "pools/volumes/snapshots"
        request.volume.spec.source_snapshot = full_name(path, source, "--from")
    elif source:
        request.volume.spec.source_volume = full_name("pools/volumes", source, "--from")

    def make(_name: str) -> Any:
        return begin(session, "StorageService/CreateVolume", request)

    act(session, [name], make, "volume {} is made", wait=wait, dry_run=dry_run)


@command(volume, "resize", "pvc volume resize local/web-root 40G")
@name_argument("volumes")
@argument("ResizeVolumeRequest.size_bytes", "size", type=Size("G"))
@waiting_options
def resize(session: Any, name: str, size: int, wait: Any, dry_run: bool) -> None:
    """Make a volume larger, also while a VM runs on it."""
    extra, enlarge = options(dry_run=dry_run), session.cluster.volumes.resize
    act(session, [name], lambda n: enlarge(n, size, **extra), "volume {} is larger", wait=wait,
        dry_run=dry_run)  # fmt: skip


@command(volume, "rename", "pvc volume rename local/data archive")
@name_argument("volumes")
@argument("RenameVolumeRequest.new_volume_id", "new")
@waiting_options
def rename(session: Any, name: str, new: str, wait: Any, dry_run: bool) -> None:
    """Give a volume that no VM uses another id."""
    extra, give = options(dry_run=dry_run), session.cluster.volumes.rename
    act(session, [name], lambda n: give(n, new, **extra), f"volume {{}} is {new} now", wait=wait,
        dry_run=dry_run)  # fmt: skip


@command(volume, "clone", "pvc volume clone local/web-root local/copy")
@name_argument("volumes")
@click.argument("new")
@waiting_options
def clone(session: Any, name: str, new: str, wait: Any, dry_run: bool) -> None:
    """Copy a volume, or a snapshot (POOL/VOLUME/SNAPSHOT), to a new one. It is made in the same
    pool unless NEW names another."""
    new = new if "/" in new else f"{name.removeprefix('pools/').partition('/')[0]}/{new}"
    extra, copy = options(dry_run=dry_run), session.cluster.volumes.clone
    act(session, [new], lambda n: copy(name, n, **extra), "volume {} is made", wait=wait,
        dry_run=dry_run)  # fmt: skip


@command(volume, "delete", "pvc volume delete local/data", "pvc volume delete 'local/test-*'")
@several("volumes")
@click.option("--force", is_flag=True, help="With their snapshots.")
@waiting_options
@yes_option
def delete(session: Any, which: Which, force: bool, wait: Any, dry_run: bool, yes: bool) -> None:
    """Remove volumes."""
    names = chosen(session, which, "volumes", columns.VOLUME)
    if not dry_run and not yes:
        full = [session.cluster.volumes.get(name).name for name in names]
        also = " and their snapshots" if force else ""
        words = listed(volume_words(session, full))
        session.confirm(f"Remove {words}{also}? All that is stored is lost.", yes=False)
    extra = options(dry_run=dry_run) | {"force": force}
    remove = session.cluster.volumes.delete
    act(session, names, lambda n: remove(n, **extra), "volume {} is gone", wait=wait,
        dry_run=dry_run)  # fmt: skip

"""`pvc volume` and `pvc snapshot`: virtual disks and their snapshots."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info, add_list
from shell.listing import Listing, show_list
from shell.tree import (
    Group,
    Size,
    command,
    inner_list_options,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import Progress, act, finish

FORMATS = ("qcow2", "raw", "vmdk")


@click.group(cls=Group, aliases={"add": "create", "remove": "delete", "upload": "import"})
def volume() -> None:
    """Virtual disks. One is named POOL/VOLUME."""


@click.group(cls=Group, aliases={"add": "create", "remove": "delete"})
def snapshot() -> None:
    """Snapshots of single volumes (pvc vm snapshot takes them of whole VMs)."""


volume.add_command(snapshot)
add_list(
    volume,
    "volumes",
    "pools/*/volumes",
    columns.VOLUME,
    "pvc volume list",
    "pvc volume list 'web-*' --sort 'status.size_bytes desc'",
)
add_info(volume, "volumes", columns.VOLUME, "pvc volume info local/web-root")


def _image_format(word: str | None) -> Any:
    from pvc.storage.v1 import storage_pb2

    return storage_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{(word or 'unspecified').upper()}")


@command(
    volume,
    "create",
    "pvc volume create local/data 20G",
    "pvc volume create local/copy --from local/web-root",
)
@click.argument("name")
@click.argument("size", type=Size("G"), required=False)
@click.option("--from", "source", help="Begin as a copy of POOL/VOLUME or POOL/VOLUME/SNAPSHOT.")
@click.option("--format", "kept", type=click.Choice(["qcow2", "raw"]), help="How it is kept.")
@click.option("--description", default="", help="A text for people.")
@waiting_options
def create(
    session: Any,
    name: str,
    size: int | None,
    source: str | None,
    kept: str | None,
    description: str,
    wait: bool,
    dry_run: bool,
) -> None:
    """Make a volume: empty with a SIZE, or as a copy."""
    from pvc.storage.v1 import storage_pb2
    from pvc_client.names import full_name

    if not size and not source:
        raise click.UsageError("give a SIZE, or --from something")
    spec = storage_pb2.VolumeSpec(
        size_bytes=size or 0, description=description, format=_image_format(kept)
    )
    if source and source.count("/") == 2:
        spec.source_snapshot = full_name("pools/volumes/snapshots", source, "from")
    elif source:
        spec.source_volume = full_name("pools/volumes", source, "from")
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.volumes.create(n, spec, **extra),
        "volume {} is made",
        wait=wait,
        dry_run=dry_run,
    )


@command(volume, "resize", "pvc volume resize local/web-root 40G")
@name_argument("volumes")
@click.argument("size", type=Size("G"))
@waiting_options
def resize(session: Any, name: str, size: int, wait: bool, dry_run: bool) -> None:
    """Make a volume larger, also while a VM runs on it."""
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.volumes.resize(n, size, **extra),
        "volume {} is larger",
        wait=wait,
        dry_run=dry_run,
    )


@command(volume, "rename", "pvc volume rename local/data archive")
@name_argument("volumes")
@click.argument("new")
@waiting_options
def rename(session: Any, name: str, new: str, wait: bool, dry_run: bool) -> None:
    """Give a volume that no VM uses another id."""
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.volumes.rename(n, new, **extra),
        f"volume {{}} is {new} now",
        wait=wait,
        dry_run=dry_run,
    )


@command(volume, "clone", "pvc volume clone local/web-root local/copy")
@name_argument("volumes")
@click.argument("new")
@waiting_options
def clone(session: Any, name: str, new: str, wait: bool, dry_run: bool) -> None:
    """Copy a volume, or a snapshot (POOL/VOLUME/SNAPSHOT), to a new volume."""
    extra = options(dry_run=dry_run)
    act(
        session,
        [new],
        lambda n: session.cluster.volumes.clone(name, n, **extra),
        "volume {} is made",
        wait=wait,
        dry_run=dry_run,
    )


@command(volume, "delete", "pvc volume delete local/data", "pvc volume delete local/data --force")
@name_argument("volumes", "names", nargs=-1)
@click.option("--force", is_flag=True, help="With their snapshots.")
@waiting_options
@yes_option
def delete(
    session: Any, names: tuple[str, ...], force: bool, wait: bool, dry_run: bool, yes: bool
) -> None:
    """Remove volumes."""
    if not dry_run:
        also = " and their snapshots" if force else ""
        session.confirm(f"Remove {', '.join(names)}{also}? All that is stored is lost.", yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        names,
        lambda n: session.cluster.volumes.delete(n, force=force, **extra),
        "volume {} is gone",
        wait=wait,
        dry_run=dry_run,
    )


@command(volume, "import", "pvc volume import disk.vmdk local/web-root")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("name")
@click.option("--source-format", type=click.Choice(FORMATS), help="Found out unless given.")
@click.option("--size", type=Size("G"), help="Make it this large.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end.")
def import_(
    session: Any, file: str, name: str, source_format: str | None, size: int | None, wait: bool
) -> None:
    """Make a volume from an image file of this machine."""
    from pvc_client.names import full_name, parent_of

    check_pool(session, parent_of(full_name("pools/volumes", name)))
    make = partial(
        session.cluster.volumes.import_file,
        name, source_format=_image_format(source_format), size_bytes=size or 0,
    )  # fmt: skip
    bring(session, file, lambda sent: make(file=sent), f"volume {name} is made", wait=wait)


def check_pool(session: Any, name: str) -> None:
    """Before gigabytes are sent for it. Raises NotFound."""
    session.cluster.pools.get(name, read_mask=["name"])


def bring(session: Any, file: str, begin: Callable[[str], Any], done: str, *, wait: bool) -> None:
    """Sends a file, begins what is to be made of it, and waits. Then the cluster need not keep the
    file for its day: it takes as much room as what was made of it."""
    from pvc_client import PvcError, errors

    sent = upload(session, file)
    try:
        finish(session, begin(sent.name), done, wait=wait)
    except errors.Unavailable:
        raise  # what was begun may go on
    except PvcError:
        _drop(session, sent.name)
        raise
    if wait:
        _drop(session, sent.name)


def _drop(session: Any, file: str) -> None:
    from pvc_client import PvcError

    with suppress(PvcError):  # then it goes when its day is over
        session.cluster.files.delete(file)


def upload(session: Any, file: str) -> Any:
    """Sends a file to the cluster, with progress."""
    progress = Progress(f"upload {Path(file).name}", sys.stderr, session.coloured(sys.stderr))
    try:
        return session.cluster.files.upload(file, progress.transferred)
    finally:
        progress.end()


@command(volume, "export", "pvc volume export local/web-root web.qcow2",
         "pvc volume export local/web-root web.vmdk --format vmdk")  # fmt: skip
@name_argument("volumes")
@click.argument("file", type=click.Path(dir_okay=False, writable=True))
@click.option("--format", "kind", type=click.Choice(FORMATS), help="By FILE's name unless given.")
@click.option("--compress", is_flag=True, help="Smaller and slower.")
@click.option("--snapshot", "snapshot_id", default="", help="As it was in this snapshot.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def export(
    session: Any,
    name: str,
    file: str,
    kind: str | None,
    compress: bool,
    snapshot_id: str,
    overwrite: bool,
) -> None:
    """Write a volume to an image file of this machine."""
    if Path(file).exists() and not overwrite:
        raise click.UsageError(f"{file} exists; --overwrite replaces it")
    if not os.access(Path(file).parent, os.W_OK):
        raise click.UsageError(f"{Path(file).parent} is no folder that can be written")
    suffix = Path(file).suffix[1:]
    wanted = _image_format(kind or (suffix if suffix in FORMATS else None))
    pending = session.cluster.volumes.export(
        name, format=wanted, compress=compress, snapshot_id=snapshot_id
    )
    made = finish(session, pending, "", wait=True)
    progress = Progress(f"download {Path(file).name}", sys.stderr, session.coloured(sys.stderr))
    try:
        session.cluster.files.download(made, file, progress.transferred)
    finally:
        progress.end()
        session.cluster.files.delete(made.name)
    click.echo(f"{file} is written")


@command(snapshot, "list", "pvc snapshot list local/web-root", "pvc snapshot list")
@name_argument("volumes", required=False)
@inner_list_options
def list_snapshots(session: Any, name: str | None, asked: Listing) -> None:
    """List the snapshots of a volume, or all."""
    show_list(
        session, asked, session.cluster.volumes.snapshots, columns.SNAPSHOT,
        path="pools/*/volumes/*/snapshots", parent=name or "",
    )  # fmt: skip


@command(snapshot, "create", "pvc snapshot create local/web-root before-upgrade")
@name_argument("volumes")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@click.option("--description", default="", help="A text for people.")
@click.option("--quiesce", is_flag=True, help="Freeze the guest's file systems for the moment.")
@waiting_options
def create_snapshot(
    session: Any,
    name: str,
    snapshot_name: str,
    description: str,
    quiesce: bool,
    wait: bool,
    dry_run: bool,
) -> None:
    """Take a snapshot of a volume, also while a VM runs on it."""
    extra = options(dry_run=dry_run) | {"quiesce": quiesce}
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.volumes.snapshots.create(n, description, **extra),
        "snapshot {} is taken",
        wait=wait,
        dry_run=dry_run,
    )


def _destroying(name: str, verb: str, question: str, done: str, help: str) -> None:
    """Adds a command on a snapshot that loses something."""

    @command(snapshot, name, f"pvc snapshot {name} local/web-root before-upgrade")
    @name_argument("volumes")
    @click.argument("snapshot_name", metavar="SNAPSHOT")
    @waiting_options
    @yes_option
    def destroy(
        session: Any, name: str, snapshot_name: str, wait: bool, dry_run: bool, yes: bool
    ) -> None:
        full = f"{name}/{snapshot_name}"
        if not dry_run:
            session.confirm(question.format(full), yes=yes)
        begin = getattr(session.cluster.volumes.snapshots, verb)
        extra = options(dry_run=dry_run)
        act(session, [full], lambda n: begin(n, **extra), done, wait=wait, dry_run=dry_run)

    destroy.help = help


_destroying("delete", "delete", "Remove the snapshot {}?", "{} is gone", "Remove a snapshot.")
_destroying(
    "rollback",
    "rollback",
    "Put the volume back to {}? What was written since then is lost.",
    "the volume is back at {}",
    "Put a volume that no running VM uses back to what it was.",
)

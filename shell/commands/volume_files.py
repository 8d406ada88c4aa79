"""`pvc volume import` and `export`: volumes from and to image files of this machine; and how a file
gets to the cluster, for images too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from shell.commands.fields import field, put
from shell.commands.raw import begin
from shell.commands.volume import KEPT
from shell.measures import size as size_words
from shell.tree import Command, Size, dry_run_option, name_argument, waiting_options
from shell.waiting import Progress, finish, show_plan

FORMATS = ("qcow2", "raw", "vmdk")


@click.command(
    "import",
    cls=Command,
    examples=(
        "pvc volume import disk.vmdk local/web-root",
        "pvc volume import disk.qcow2 local/base --sealed --image-format qcow2",
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("name")
@field(
    "ImportVolumeRequest.source_format",
    "--source-format",
    type=click.Choice(FORMATS),
    help="What FILE is; found out unless given.",
)
@field(
    "ImportVolumeRequest.format", "--image-format", type=click.Choice(KEPT), help="How it is kept."
)
@field("ImportVolumeRequest.size_bytes", "--size", type=Size("G"), help="Make it this large.")
@field("ImportVolumeRequest.description", "--description", help="A text for people.")
@field(
    "ImportVolumeRequest.sealed",
    "--sealed",
    is_flag=True,
    help="Nobody writes it any more: copies of it are made on write.",
)
@waiting_options
@click.pass_obj
def import_(session: Any, /, file: str, name: str, wait: Any, dry_run: bool, **given: Any) -> None:
    """Make a volume from an image file of this machine."""
    from pvc.storage.v1 import storage_service_pb2 as pb
    from pvc_client.names import full_name, last_id, parent_of

    full = full_name("pools/volumes", name, "NAME")
    request = pb.ImportVolumeRequest(parent=parent_of(full), volume_id=last_id(full))
    put(request, "ImportVolumeRequest", given)
    check_room(session, request.parent, file)
    check_free(session.cluster.volumes, full)
    if dry_run:
        would_send(file, full)
        return

    def make(sent: str) -> Any:
        request.file = sent
        return begin(session, "StorageService/ImportVolume", request)

    bring(session, file, make, f"volume {name} is made", wait=wait)


def check_room(session: Any, pool: str, file: str) -> None:
    """Before gigabytes are sent: there is such a pool, and the file is one. Raises NotFound,
    UsageError."""
    session.cluster.pools.get(pool, read_mask=["name"])
    if not Path(file).is_file() or not Path(file).stat().st_size:
        raise click.UsageError(f"{file} is empty, or not a plain file: it cannot be an image")


def check_free(collection: Any, name: str) -> None:
    """Nothing has the name yet. Raises AlreadyExists."""
    from pvc_client import errors

    try:
        found = collection.get(name)
    except errors.NotFound:
        return
    if getattr(found, "DESCRIPTOR", None) is not None and found.DESCRIPTOR.name == "Image":
        return  # one that failed may be made again; the service knows
    raise errors.AlreadyExists(f"{name} exists; nothing was sent")


def would_send(file: str, name: str) -> None:
    """What a dry run of something that needs a file found out."""
    shown = size_words(Path(file).stat().st_size)
    click.echo(f"{name}: {file} ({shown}) would be sent and made into it; nothing was changed")


def bring(session: Any, file: str, begin: Callable[[str], Any], done: str, *, wait: Any) -> None:
    """Sends a file, begins what is to be made of it, and waits. Then the cluster need not keep the
    file for its day: it takes as much room as what was made of it."""
    from pvc_client import PvcError, errors

    sent = upload(session, file)
    try:
        finish(session, begin(sent.name), done, wait=wait)
    except errors.Unavailable:
        raise  # what was begun may go on
    except errors.Deadline:
        raise  # it goes on
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


@click.command(
    "export",
    cls=Command,
    examples=(
        "pvc volume export local/web-root web.qcow2",
        "pvc volume export local/web-root web.vmdk --image-format vmdk",
    ),
)
@name_argument("volumes")
@click.argument("file", type=click.Path(dir_okay=False, writable=True))
@field(
    "ExportVolumeRequest.format",
    "--image-format",
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="By FILE's name unless given.",
)
@click.option("--compress", is_flag=True, help="Smaller and slower.")
@field(
    "ExportVolumeRequest.snapshot_id",
    "--snapshot",
    "snapshot_id",
    default="",
    help="As it was in this snapshot.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@dry_run_option
@click.pass_obj
def export(
    session: Any,
    /,
    name: str,
    file: str,
    kind: str | None,
    compress: bool,
    snapshot_id: str,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Write a volume to an image file of this machine."""
    from pvc.storage.v1 import storage_pb2

    check_target(file, overwrite)
    suffix = Path(file).suffix[1:]
    word = kind or (suffix if suffix in FORMATS else "unspecified")
    wanted = storage_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{word.upper()}")
    extra = {"validate_only": True} if dry_run else {}
    pending = session.cluster.volumes.export(
        name, format=wanted, compress=compress, snapshot_id=snapshot_id, **extra
    )
    if dry_run:
        show_plan(pending)
    else:
        _download(session, finish(session, pending, "", wait=True), file)


def check_target(file: str, overwrite: bool) -> None:
    """Whether the file can be written. Raises UsageError."""
    if Path(file).exists() and not overwrite:
        raise click.UsageError(f"{file} exists; --overwrite replaces it")
    if not os.access(Path(file).parent, os.W_OK):
        raise click.UsageError(f"{Path(file).parent} is no folder that can be written")


def _download(session: Any, made: Any, file: str) -> None:
    progress = Progress(f"download {Path(file).name}", sys.stderr, session.coloured(sys.stderr))
    try:
        session.cluster.files.download(made, file, progress.transferred)
    finally:
        progress.end()
        session.cluster.files.delete(made.name)
    session.say(f"{file} is written")

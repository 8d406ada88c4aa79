"""`pvc image`: images that VMs are made from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.commands.fields import argument, field
from shell.commands.losses import image_loss, listed
from shell.commands.several import Which, chosen, several
from shell.commands.shared import add_info, add_list
from shell.commands.volume_files import bring, check_free, check_room, would_send
from shell.commands.wait import add_wait
from shell.listing import Listing, show_rows
from shell.tree import (
    Group,
    command,
    live_names,
    options,
    rows_options,
    waiting_options,
    yes_option,
)
from shell.waiting import act

pool_option = field(
    "BuildImageRequest.pool",
    "--pool",
    default="local",
    show_default=True,
    help="The pool that keeps it.",
    shell_complete=live_names("pools"),
)


@click.group(cls=Group, aliases={"delete": "remove"})
def image() -> None:
    """Images that VMs are made from: build them, bring them along, remove them."""


add_list(image, "images", "images", columns.IMAGE, "pvc image list",
         first="pvc image build debian-12")  # fmt: skip
add_info(image, "images", columns.IMAGE, "pvc image info debian-12")
add_wait(image, "images", "images", "debian-12")


@command(image, "recipes", "pvc image recipes")
@rows_options
def recipes(session: Any, asked: Listing) -> None:
    """List the recipes that PVC brings along."""
    show_rows(session, asked, session.cluster.images.recipes(), columns.RECIPE)


@command(image, "build", "pvc image build debian-12",
         "pvc image build mine --recipe-file mine.toml --pool local")  # fmt: skip
@argument("BuildImageRequest.image_id", "name")
@field(
    "BuildImageRequest.recipe_id",
    "--recipe",
    default="",
    help="A recipe of PVC's; the image's name without it.",
)
@click.option("--recipe-file", type=click.File(encoding="utf-8"), help="A recipe of your own.")
@pool_option
@waiting_options
def build(
    session: Any, name: str, recipe: str, recipe_file: Any, pool: str, wait: bool, dry_run: bool
) -> None:
    """Build an image from a recipe."""
    if recipe and recipe_file:
        raise click.UsageError("give --recipe or --recipe-file, not both")
    text = recipe_file.read() if recipe_file else ""
    extra = options(dry_run=dry_run) | {"recipe_id": recipe, "recipe_text": text, "pool": pool}
    act(
        session,
        [name],
        lambda n: session.cluster.images.build(n, **extra),
        "image {} is built",
        wait=wait,
        dry_run=dry_run,
    )


@command(image, "import", "pvc image import disk.qcow2 mine")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@argument("ImportImageRequest.image_id", "name", required=False)
@field("ImportImageRequest.description", "--description", default="", help="A text for people.")
@pool_option
@waiting_options
def import_(
    session: Any,
    file: str,
    name: str | None,
    description: str,
    pool: str,
    wait: Any,
    dry_run: bool,
) -> None:
    """Make an image from a disk image of this machine."""
    image_id = name or Path(file).stem.lower()
    check_room(session, pool, file)
    check_free(session.cluster.images, image_id)
    if dry_run:
        would_send(file, f"images/{image_id}")
        return
    make = partial(session.cluster.images.import_file, pool=pool, description=description)
    bring(session, file, partial(make, image_id), f"image {image_id} is made", wait=wait)


@command(image, "remove", "pvc image remove debian-12")
@several("images")
@waiting_options
@yes_option
def remove(session: Any, which: Which, wait: Any, dry_run: bool, yes: bool) -> None:
    """Remove images that nothing is a copy of."""
    names = chosen(session, which, "images", columns.IMAGE)
    if not dry_run and not yes:
        loss = image_loss(session, names)
        session.confirm(f"Remove the image {listed(names)}?{loss}", yes=False)
    extra, delete = options(dry_run=dry_run), session.cluster.images.delete
    act(session, names, lambda n: delete(n, **extra), "image {} is gone", wait=wait,
        dry_run=dry_run)  # fmt: skip

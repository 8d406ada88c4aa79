"""`pvc image`: images that VMs are made from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info, add_list
from shell.commands.volume import bring, check_pool
from shell.listing import Listing, show_rows
from shell.tree import (
    Group,
    command,
    live_names,
    name_argument,
    options,
    rows_options,
    waiting_options,
    yes_option,
)
from shell.waiting import act

pool_option = click.option(
    "--pool",
    default="local",
    show_default=True,
    help="The pool that keeps it.",
    shell_complete=live_names("pools"),
)


@click.group(cls=Group, aliases={"delete": "remove"})
def image() -> None:
    """Images that VMs are made from: build them, bring them along, remove them."""


add_list(image, "images", "images", columns.IMAGE, "pvc image list")
add_info(image, "images", columns.IMAGE, "pvc image info debian-12")


@command(image, "recipes", "pvc image recipes")
@rows_options
def recipes(session: Any, asked: Listing) -> None:
    """List the recipes that PVC brings along."""
    show_rows(session, asked, session.cluster.images.recipes(), columns.RECIPE)


@command(image, "build", "pvc image build debian-12",
         "pvc image build mine --recipe-file mine.toml --pool local")  # fmt: skip
@click.argument("name")
@click.option("--recipe", default="", help="A recipe of PVC's; the image's name without it.")
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
@click.argument("name", required=False)
@click.option("--description", default="", help="A text for people.")
@pool_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end.")
def import_(
    session: Any, file: str, name: str | None, description: str, pool: str, wait: bool
) -> None:
    """Make an image from a disk image of this machine."""
    image_id = name or Path(file).stem.lower()
    check_pool(session, pool)
    make = partial(session.cluster.images.import_file, pool=pool, description=description)
    bring(session, file, partial(make, image_id), f"image {image_id} is made", wait=wait)


@command(image, "remove", "pvc image remove debian-12")
@name_argument("images", "names", nargs=-1)
@waiting_options
@yes_option
def remove(session: Any, names: tuple[str, ...], wait: bool, dry_run: bool, yes: bool) -> None:
    """Remove images that nothing is a copy of."""
    if not dry_run:
        session.confirm(f"Remove the image {', '.join(names)}?", yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        names,
        lambda n: session.cluster.images.delete(n, **extra),
        "image {} is gone",
        wait=wait,
        dry_run=dry_run,
    )

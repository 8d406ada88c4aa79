"""`pvc provisioner create`: a VM from an image, in the order of words that PVC has always had."""

from __future__ import annotations

import click

from shell.commands.vm import vm

made = vm.commands["create"]


@click.command(
    "create",
    cls=type(made),
    params=[
        click.Argument(["name"]),
        click.Argument(["image"], help="The image that it is made from."),
        *(one for one in made.params if one.name not in ("name", "image", "disk", "label")),
    ],
    examples=("pvc provisioner create web debian-12 --memory 2G --start",),
)
@click.pass_context
def create(ctx: click.Context, /, name: str, image: str, **given: object) -> None:
    """Make a VM from an image."""
    ctx.invoke(made, name=name, image=image, disk=(), label=(), **given)

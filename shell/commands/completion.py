"""`pvc completion`: what a shell must be told for Tab to complete names, live ones too."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from shell.tree import Command


@click.command(
    cls=Command,
    examples=(
        'eval "$(pvc completion bash)"          # in ~/.bashrc',
        "pvc completion fish > ~/.config/fish/completions/pvc.fish",
    ),
)
@click.argument("kind", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, kind: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    made = get_completion_class(kind)
    assert made is not None, f"click completes for {kind}"
    root = ctx.find_root()
    click.echo(made(root.command, {}, "pvc", "_PVC_COMPLETE").source())

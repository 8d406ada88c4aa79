"""`pvc token` and `pvc whoami`: who may come in, and as what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info, add_list
from shell.render import Output
from shell.tree import Command, Group, Span, command, format_option, name_argument, yes_option


@click.group(cls=Group, aliases={"remove": "delete", "add": "create", "revoke": "delete"})
def token() -> None:
    """Tokens that let callers in."""


add_list(token, "tokens", "tokens", columns.TOKEN, "pvc token list")
add_info(token, "tokens", columns.TOKEN, "pvc token info ann")


@command(token, "create", "pvc token create ann --role operator --ttl 30d",
         "pvc token create ci --role viewer --output ci.token")  # fmt: skip
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    required=True,
    help="What its bearer may do.",
)
@click.option("--ttl", type=Span(), help="How long it is good for: 30d. For ever without it.")
@click.option("--description", default="", help="A text for people.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the secret to a new file.")
def create(
    session: Any, name: str, role: str, ttl: int | None, description: str, output: str | None
) -> None:
    """Make a token. Its secret is shown this once and kept nowhere."""
    from pvc.core.v1 import options_pb2

    if output and Path(output).exists():
        raise click.UsageError(f"{output} exists")
    answer = session.cluster.tokens.create(
        name, options_pb2.Role.Value(f"ROLE_{role.upper()}"), ttl_s=ttl or 0,
        description=description,
    )  # fmt: skip
    if output:
        _write_secret(output, answer.secret)
        click.echo(f"the secret of {name} is in {output}")
    else:
        click.echo(answer.secret)
        click.echo("keep it: it is not shown again", err=True)


def _write_secret(path: str, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")


@command(token, "delete", "pvc token delete ann")
@name_argument("tokens")
@yes_option
def delete(session: Any, name: str, yes: bool) -> None:
    """Revoke a token, at once."""
    session.confirm(f"Revoke the token {name}? Whoever uses it is out at once.", yes=yes)
    session.cluster.tokens.delete(name)
    click.echo(f"token {name} is revoked")


@click.command(cls=Command, examples=("pvc whoami",))
@format_option
@click.pass_obj
def whoami(session: Any, format: Output) -> None:
    """Show who the cluster takes you for, and what you may do."""
    session.show_one(session.cluster.whoami(), columns.WHOAMI, format)

"""`pvc token` and `pvc whoami`: who may come in, and as what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.answers import tell
from shell.commands.shared import add_info
from shell.listing import Listing, show_list
from shell.query import before
from shell.render import Output
from shell.tree import (
    Command,
    Group,
    Span,
    answer_option,
    command,
    dry_run_option,
    format_option,
    list_options,
    name_argument,
    options,
    yes_option,
)

NEVER = -1
ROLE = click.Choice(["viewer", "operator", "admin"])


class Ttl(Span):
    """A length of time, or "never"."""

    name = "TIME|never"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Seconds; NEVER."""
        return NEVER if value == "never" else super().convert(value, param, ctx)


@click.group(cls=Group, aliases={"remove": "revoke", "delete": "revoke", "add": "create"})
def token() -> None:
    """Tokens that let callers in."""


@command(token, "list", "pvc token list", "pvc token list -f wide", "pvc token list --unused 90d")
@click.option("--unused", type=Span(), help="Not used for so long, or never: 90d.")
@list_options
def list_tokens(session: Any, asked: Listing, unused: int | None) -> None:
    """List tokens; PATTERN for the name may have stars. With -f wide, when each was last used."""
    terms = [] if unused is None else [f'NOT last_used.time >= "{before(session, unused)}"']
    show_list(session, asked, session.cluster.tokens, columns.TOKEN, path="tokens", terms=terms)


add_info(token, "tokens", columns.TOKEN, "pvc token info ann")


@command(token, "create", "pvc token create ann --role operator --ttl 30d",
         "pvc token create ci --role viewer --output ci.token")  # fmt: skip
@click.argument("name")
@click.option("--role", type=ROLE, required=True, help="What its bearer may do.")
@click.option("--ttl", type=Span(), help="How long it is good for: 30d. For ever without it.")
@click.option("--description", default="", help="A text for people.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the secret to a new file.")
@dry_run_option
def create(
    session: Any, name: str, role: str, ttl: int | None, description: str, output: str | None,
    dry_run: bool,
) -> None:  # fmt: skip
    """Make a token. Its secret is shown this once and kept nowhere."""
    from pvc.core.v1 import options_pb2

    if output and Path(output).exists():
        raise click.UsageError(f"{output} exists")
    answer = session.cluster.tokens.create(
        name, options_pb2.Role.Value(f"ROLE_{role.upper()}"), ttl_s=ttl or 0,
        description=description, **options(dry_run=dry_run),
    )  # fmt: skip
    if dry_run:
        click.echo(f"tokens/{name}: this would be accepted; nothing was changed")
    elif output:
        _write_secret(output, answer.secret)
        click.echo(f"the secret of {name} is in {output}")
    else:
        click.echo(answer.secret)
        click.echo("keep it: it is not shown again", err=True)


def _write_secret(path: str, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")


@command(token, "update", "pvc token update ann --role viewer", "pvc token update ci --ttl 90d",
         "pvc token update ann --ttl never --description 'Ann, operations'")  # fmt: skip
@name_argument("tokens")
@click.option("--role", type=ROLE, help="What its bearer may do from now on.")
@click.option("--ttl", type=Ttl(), help="How long it is good for from now on: 30d, or never.")
@click.option("--description", help="A text for people.")
@answer_option
@dry_run_option
@yes_option
def update(
    session: Any, name: str, role: str | None, ttl: int | None, description: str | None,
    shown: str, dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """Change what a token is good for, at once; its secret stays."""
    if role is None and ttl is None and description is None:
        raise click.UsageError("nothing to change: give --role, --ttl or --description")
    found = session.cluster.tokens.get(name)
    if role not in (None, "admin") and not dry_run:
        _warn_of_last(session, found.name, yes=yes)
    found.meta.etag = ""
    paths = _taken(session, found, role, ttl, description)
    after = session.cluster.tokens.update(found, paths, **options(dry_run=dry_run))
    tell(session, shown, after, f"token {name} {'would be' if dry_run else 'is'} changed")


def _taken(
    session: Any, token: Any, role: str | None, ttl: int | None, description: str | None
) -> list[str]:
    """Fills in what was given; the paths of it."""
    from pvc.core.v1 import options_pb2

    paths = []
    if role is not None:
        token.role = options_pb2.Role.Value(f"ROLE_{role.upper()}")
        paths.append("role")
    if ttl is not None:
        token.ClearField("expire_time")
        if ttl != NEVER:
            token.expire_time.FromSeconds(int(session.now()) + ttl)
        paths.append("expire_time")
    if description is not None:
        token.description = description
        paths.append("description")
    return paths


@command(token, "revoke", "pvc token revoke ann", "pvc token revoke ci --yes")
@name_argument("tokens")
@dry_run_option
@yes_option
def revoke(session: Any, name: str, dry_run: bool, yes: bool) -> None:
    """Revoke a token, at once, and end what it has open."""
    found = session.cluster.tokens.get(name)
    if not dry_run and not _warn_of_last(session, found.name, yes=yes):
        session.confirm(f"Revoke the token {name}? Whoever uses it is out at once.", yes=yes)
    session.cluster.tokens.delete(name, **options(dry_run=dry_run))
    session.say(f"token {name} {'would be' if dry_run else 'is'} revoked")


def _warn_of_last(session: Any, name: str, *, yes: bool) -> bool:
    """Asks before the last token of an admin is taken away; whether it is that."""
    admins = [
        row for row in session.cluster.tokens.list(filter="role = ADMIN") if _is_good(session, row)
    ]
    if [row.name for row in admins] != [name]:
        return False
    session.confirm(
        f"{columns.last(name)} is the last token of an admin. Afterwards only root of a node comes "
        "in as one, by its socket. Go on?",
        yes=yes,
    )
    return True


def _is_good(session: Any, token: Any) -> bool:
    return not token.HasField("expire_time") or token.expire_time.seconds > session.now()


@click.command(cls=Command, examples=("pvc whoami",))
@format_option
@click.pass_obj
def whoami(session: Any, format: Output) -> None:
    """Show who the cluster takes you for, and what you may do."""
    session.show_one(session.cluster.whoami(), columns.WHOAMI, format)

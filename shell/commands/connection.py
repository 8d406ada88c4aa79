"""`pvc connection`: the clusters that the user knows by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from shell import connections
from shell.connections import HERE, LOCAL, Connection, Connections
from shell.greetings import UNASKED, State, ask, states
from shell.listing import Listing, show_rows
from shell.render import WIDE, Column, Output
from shell.tree import F, Group, command, format_option, rows_options, stacked, yes_option


@click.group(
    cls=Group, aliases={"detail": "info", "show": "info", "delete": "remove", "set": "modify"}
)
def connection() -> None:
    """Clusters that you know by name: addresses, a token, the CA."""


@dataclass(frozen=True, slots=True)
class Row:
    """A connection as it is shown."""

    connection: Connection
    is_current: bool
    state: State = UNASKED

    @property
    def name(self) -> str:
        """Its name."""
        return self.connection.name

    def as_dict(self) -> dict[str, Any]:
        """For programs; its token is not in it."""
        one, state = self.connection, self.state
        found = {
            "name": one.name,
            "current": self.is_current,
            "addresses": list(one.addresses),
            "description": one.description,
            "hasToken": bool(one.token),
            "hasCa": bool(one.ca),
        }
        asked = {key: getattr(state, key) for key in State.__slots__} if state.answer else {}
        return found | asked


def _style(text: str) -> str:
    return {"ok": "good", "warning": "busy", "": ""}.get(text, "bad")


STORED = (
    Column("CURRENT", lambda r, v: "*" if r.is_current else ""),
    Column("NAME", lambda r, v: r.name),
    Column("ADDRESS", lambda r, v: r.connection.address, elastic=True, also=("addresses",)),
    Column("DESCRIPTION", lambda r, v: r.connection.description, elastic=True),
    Column("TOKEN", lambda r, v: "yes" if r.connection.token else "", WIDE),
    Column("CA", lambda r, v: "yes" if r.connection.ca else "", WIDE),
)
ASKED = (
    Column("HEALTH", lambda r, v: r.state.health, style=_style),
    Column("VERSION", lambda r, v: r.state.version),
    Column("CLUSTER", lambda r, v: r.state.cluster),
    Column("ROLE", lambda r, v: r.state.role),
    Column("ANSWER", lambda r, v: r.state.answer, style=_style, elastic=True),
)


def _names(_ctx: click.Context, _param: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(n) for n in connections.names() if n.startswith(incomplete)]


_names.offers = connections.names  # type: ignore[attr-defined]
name_of_one = click.argument("name", shell_complete=_names)


def _ca(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
        return connections.certificates_in(text)
    except (OSError, click.UsageError) as error:
        problem = error.strerror if isinstance(error, OSError) else error.format_message()
        raise click.BadParameter(f"{path}: {problem}", param_hint="--ca") from None


def _token(path: str, from_stdin: bool) -> str:
    """The secret from a file or standard input; "" for none."""
    if path and from_stdin:
        raise click.UsageError("--token-file and --token-stdin exclude each other")
    if from_stdin:
        return connections.checked_token(sys.stdin.read(), "standard input")
    if not path:
        return ""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise click.BadParameter(problem, param_hint="--token-file") from None
    return connections.checked_token(text, path)


def _typed(session: Any) -> str:
    """The secret from somebody who can be asked."""
    if not session.can_ask:
        return ""
    typed = click.prompt("Token", hide_input=True, default="", show_default=False, err=True)
    return connections.checked_token(typed, "what was typed")


secret_options = stacked(
    click.option("--token-file", default="", metavar="FILE", help="It has the secret of a token."),
    click.option("--token-stdin", is_flag=True, help="The secret comes on standard input."),
    click.option("--ca", default="", metavar="FILE", help="The cluster's CA: a node's tls/ca.crt."),
)
check_option = click.option(
    "--check/--no-check", default=True, show_default=True, help="See if it answers, first."
)


def _address_option(*, required: bool) -> Callable[[F], F]:
    help = "Where its gateways listen; when one is silent the next is asked."
    return click.option("--address", required=required, metavar="HOST:PORT[,…]", help=help)


@command(connection, "add",
         "pvc connection add prod --address n1:7371,n2:7371 --token-file ann.token --ca ca.crt",
         "ssh n1 cat ann.token | pvc connection add prod --address n1 --token-stdin --ca ca.crt",
         "pvc connection add lab --address 10.0.0.1 --no-check --use")  # fmt: skip
@click.argument("name")
@_address_option(required=True)
@secret_options
@click.option("--description", default="", help="A text for people.")
@check_option
@click.option("--use", "is_used", is_flag=True, help="Use it from now on.")
@click.option("--replace", "overwrite", is_flag=True, help="In the place of the one of that name.")
def add(
    session: Any, name: str, address: str, token_file: str, token_stdin: bool, ca: str,
    description: str, check: bool, is_used: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Give a cluster a name, with all that is needed to reach it. Secrets stay in a file of yours
    that nobody else can read, and are never shown."""
    store = Connections()
    connections.checked_name(name)
    if name in store.all() and not overwrite:
        raise click.UsageError(f"there is a connection {name!r} already; --replace takes its place")
    addresses = connections.addresses_in(address)
    certificate = _ca(ca) if ca else ""
    secret = _token(token_file, token_stdin)
    if not (token_file or token_stdin) and not addresses[0].startswith("unix:"):
        secret = _typed(session)
    made = Connection(name, addresses, description, secret, certificate)
    told = _greeting(session, made) if check else ""
    store.add(made, overwrite=overwrite, use=is_used)
    session.say(f"connection {name} is kept{told}")
    if is_used:
        _used(session, name)
    elif store.current() != name:
        session.note(f"next: pvc -c {name} vm list; or for good: pvc connection use {name}")


@command(connection, "modify", "pvc connection modify prod --address n1,n2,n3",
         "pvc connection modify prod --token-file new.token")  # fmt: skip
@name_of_one
@_address_option(required=False)
@secret_options
@click.option("--description", help="A text for people.")
@check_option
def modify(
    session: Any, name: str, address: str | None, token_file: str, token_stdin: bool, ca: str,
    description: str | None, check: bool,
) -> None:  # fmt: skip
    """Change one: other addresses, a new token. What is not given stays."""
    store = Connections()
    before = store.get(connections.checked_name(name))
    after = replace(
        before,
        addresses=connections.addresses_in(address) if address else before.addresses,
        description=before.description if description is None else description,
        token=_token(token_file, token_stdin) or before.token,
        ca=_ca(ca) if ca else before.ca,
    )
    if after == before:
        raise click.UsageError("nothing would change: give an option with something new")
    told = _greeting(session, after) if check else ""
    store.add(after, overwrite=True)
    session.say(f"connection {name} is changed{told}")


def _greeting(session: Any, made: Connection) -> str:
    """How the cluster greets it, for people. Raises PvcError."""
    state = _checked(session, made)
    return f": cluster {state.cluster} {state.version}, {state.caller}, role {state.role}"


def _checked(session: Any, made: Connection) -> State:
    """How the cluster greets it. Raises PvcError when it does not."""
    from pvc_client import PvcError

    try:
        return ask(made)
    except PvcError:
        session.note(
            "nothing was kept: look at --address, --ca and --token-file; with --no-check it is "
            "kept all the same"
        )
        raise


def _rows(session: Any, found: Sequence[Connection], asks: bool) -> list[Row]:
    said = states(found) if asks else {}
    here = session.connection.name
    return [Row(one, one.name == here, said.get(one.name, UNASKED)) for one in found]


status_option = click.option("--status", is_flag=True, help="Ask each how it is, all at once.")


@command(connection, "list", "pvc connection list", "pvc connection list --status")
@status_option
@rows_options
def list_(session: Any, status: bool, asked: Listing) -> None:
    """List the clusters you know; a star marks the one in use."""
    known = [HERE, *Connections().all().values()]
    shown = (*STORED, *ASKED) if status else STORED
    show_rows(session, asked, _rows(session, known, status), shown)


@command(connection, "info", "pvc connection info prod", "pvc connection info prod --status")
@click.argument("name", required=False, shell_complete=_names)
@status_option
@format_option
def info(session: Any, name: str | None, status: bool, format: Output) -> None:
    """Show one, the one in use without a name."""
    one = Connections().get(name) if name else session.connection
    (row,) = _rows(session, [one], status)
    session.show_one(row, (*STORED, *ASKED) if status else STORED, format)


@command(connection, "use", "pvc connection use prod", "pvc connection use local")
@name_of_one
def use(session: Any, name: str) -> None:
    """Use one from now on, when no other is asked for."""
    store = Connections()
    store.use(name)
    _used(session, name)


def _used(session: Any, name: str) -> None:
    import os

    session.switch(name)
    session.say(f"connection {name} ({session.address}) is used from now on")
    if os.environ.get("PVC_CONNECTION", name) != name:
        session.note("PVC_CONNECTION is set, and goes before it in programs that see it")


@command(connection, "rename", "pvc connection rename lab test")
@name_of_one
@click.argument("new")
def rename(session: Any, name: str, new: str) -> None:
    """Give one another name."""
    Connections().rename(name, new)
    session.renamed(name, new)
    session.say(f"connection {name} is {new} now")


@command(connection, "remove", "pvc connection remove lab")
@name_of_one
@yes_option
def remove(session: Any, name: str, yes: bool) -> None:
    """Forget one, and its token with it. The cluster is left alone."""
    store = Connections()
    if name == LOCAL:
        raise click.UsageError("local is always there: it is this node's own cluster")
    one = store.get(name)
    fate = " Its token is kept nowhere else by pvc." if one.token else ""
    session.confirm(f"Forget the connection {name} ({one.address})?{fate}", yes=yes)
    store.remove(name)
    session.say(f"connection {name} is forgotten")

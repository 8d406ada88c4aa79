"""`pvc wait` and `pvc vm wait` and its kin: until something is so, fed by a watch."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem

from shell.failures import FAILED
from shell.fields import Field, UnknownField, find
from shell.tree import Command, Span, command

SHORT = {"state": ("status.state", "decision.state", "state"), "node": ("decision.node",)}
"""Words for fields that stand elsewhere in each kind."""
CONDITIONS = ("state=", "node=", "agent", "ip", "port=", "exists", "gone")
PORT_TRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Until:
    """What is waited for."""

    text: str
    """As it was typed."""
    is_so: Callable[[Any], bool]
    """Whether it is, of a thing as it is now; None for one that is not there."""
    port: int = 0
    """Then also a port of the guest's that must take connections."""


def add_wait(group: click.Group, path: str, collection: str, example: str) -> None:
    """Adds `wait` to the commands of a kind."""
    word = group.name
    examples = [f"pvc {word} wait {example} state=ready", f"pvc {word} wait {example} gone"]
    if path == "vms":
        examples = ["pvc vm wait web ip", "pvc vm wait web state=running --timeout 2m",
                    "pvc vm wait web port=22"]  # fmt: skip

    @command(group, "wait", *examples)
    @click.argument("name", shell_complete=_names(collection))
    @click.argument("conditions", nargs=-1, required=True, shell_complete=_conditions)
    @click.option("--timeout", type=Span(), help="Not longer than this: 30s, 5m.")
    def wait(session: Any, name: str, conditions: tuple[str, ...], timeout: int | None) -> None:
        _wait(session, collection, name, conditions, timeout)

    wait.help = WAIT_HELP


WAIT_HELP = """Wait until all conditions are so.

    state=WORD, node=NAME, exists, gone, any FIELD=VALUE of the contract; of a VM also agent (the
    guest's agent answers), ip (the guest has an address) and port=NUMBER (it takes connections from
    here). Ends with 1 when the time is over."""


def _names(collection: str) -> Any:
    from shell.tree import live_names

    return live_names(collection)


def _conditions(ctx: click.Context, param: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(one) for one in CONDITIONS if one.startswith(incomplete)]


def _kinds(ctx: click.Context, param: Any, incomplete: str) -> list[CompletionItem]:
    from shell.contract.kinds import kinds

    return [CompletionItem(k.word) for k in kinds().values() if k.word.startswith(incomplete)]


@click.command(
    cls=Command,
    help=WAIT_HELP,
    examples=(
        "pvc wait vm web state=running",
        "pvc wait vm web agent ip --timeout 3m",
        "pvc wait node n3 state=drained",
    ),
)
@click.argument("kind", shell_complete=_kinds)
@click.argument("name")
@click.argument("conditions", nargs=-1, required=True, shell_complete=_conditions)
@click.option("--timeout", type=Span(), help="Not longer than this: 30s, 5m.")
@click.pass_obj
def wait(
    session: Any, /, kind: str, name: str, conditions: tuple[str, ...], timeout: int | None
) -> None:
    """See WAIT_HELP."""
    from shell.contract.fields import nearest
    from shell.contract.kinds import kind_called, kinds

    found = kind_called(kind)
    collection = f"{found.word}s" if found else ""
    if found is None or not hasattr(session.cluster, collection):
        known = [one.word for one in kinds().values() if hasattr(session.cluster, f"{one.word}s")]
        raise click.UsageError(f"nothing is called {kind!r}{nearest(kind, known)}")
    _wait(session, collection, name, conditions, timeout)


def _wait(
    session: Any, collection: str, name: str, conditions: Sequence[str], timeout: int | None
) -> None:
    there = getattr(session.cluster, collection)
    wanted = [_until(there.kind.DESCRIPTOR, one) for one in conditions]
    deadline = time.monotonic() + timeout if timeout else None
    full = there.name(name)
    if not any(one.text in ("exists", "gone") for one in wanted):
        there.get(full)  # nobody waits for a mistyped name
    row = _watched(there, full, wanted, deadline)
    for one in wanted:
        if one.port:
            _connect(row, one.port, deadline)
    click.echo(f"{full}: {', '.join(conditions)}")


def _until(kind: Any, text: str) -> Until:
    """Raises BadParameter for what cannot be understood."""
    word, equals, value = text.partition("=")
    match text:
        case "exists":
            return Until(text, lambda row: row is not None)
        case "gone":
            return Until(text, lambda row: row is None)
        case "agent" if kind.name == "Vm":
            return Until(text, lambda row: row is not None and row.status.HasField("guest"))
        case "ip" if kind.name == "Vm":
            return Until(text, _has_address)
    if not equals:
        raise click.BadParameter(f"{text!r}: write FIELD=VALUE, or one of {_bare(kind)}")
    if word == "port" and kind.name == "Vm" and value.isdigit() and 0 < int(value) < 65536:
        return Until(text, _has_address, int(value))
    field = _field(kind, word)
    _check_value(field, value)
    wanted = value.lower().replace("_", " ").replace("-", " ")
    return Until(text, lambda row: row is not None and wanted in _told(field, row))


def _has_address(vm: Any) -> bool:
    return vm is not None and bool(vm.status.guest.addresses)


def _bare(kind: Any) -> str:
    return "agent, ip, port=NUMBER, exists, gone" if kind.name == "Vm" else "exists, gone"


def _field(kind: Any, word: str) -> Field:
    for path in (*SHORT.get(word, ()), word):
        with suppress(UnknownField):
            return find(kind, path)
    raise click.BadParameter(f"{kind.name} has no field {word!r}; pvc explain {kind.name.lower()}")


def _check_value(field: Field, value: str) -> None:
    """Raises BadParameter for a word that an enum cannot be: it would be waited for in vain."""
    from shell.contract.fields import enum_words

    if field.leaf.enum_type is not None:
        known = list(enum_words(field.leaf.enum_type).values())
        if value.lower().replace("_", "-") not in known:
            raise click.BadParameter(f"{value!r} is none of {', '.join(known)}")


def _told(field: Field, row: Any) -> list[str]:
    """How the values at a field may be written."""
    words = [field.word(value).lower() for value in field.values(row)] or [""]
    return [*words, *(word.rpartition("/")[2] for word in words), *(
        word.replace("_", " ").replace("-", " ") for word in words
    )]  # fmt: skip


def _watched(there: Any, name: str, wanted: Sequence[Until], deadline: float | None) -> Any:
    """The thing once all is so. Raises Exit when the time is over, PvcError."""
    from pvc.core.v1 import meta_pb2
    from pvc_client.errors import Deadline

    row, opened = None, False
    changes = there.watch(filter=f'name = "{name}"', timeout_s=_left(deadline))
    try:
        for change in changes:
            opened |= change.kind == meta_pb2.CHANGE_KIND_BOOKMARK
            if change.resource is not None and change.resource.name == name:
                row = None if change.kind == meta_pb2.CHANGE_KIND_DELETED else change.resource
            if opened and all(one.is_so(row) for one in wanted):
                return row
    except Deadline:
        pass
    finally:
        changes.close()
    missing = ", ".join(one.text for one in wanted if not one.is_so(row))
    raise _over(f"{name} is not {missing}{_as_it_is(row)}")


def _as_it_is(row: Any) -> str:
    if row is None:
        return "; it is not there"
    for path in SHORT["state"]:
        with suppress(UnknownField):
            return f"; it is {find(row.DESCRIPTOR, path).text(row) or 'new'}"
    return ""


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.01)


def _over(text: str) -> click.exceptions.Exit:
    click.echo(f"the time is over: {text}", err=True)
    return click.exceptions.Exit(FAILED)


def _connect(vm: Any, port: int, deadline: float | None) -> None:
    """Returns when the guest takes a connection at one of its addresses. Raises Exit."""
    hosts = [one.partition("/")[0] for one in vm.status.guest.addresses]
    while True:
        for host in hosts:
            left = _left(deadline) or PORT_TRY_S
            with (
                suppress(OSError),
                socket.create_connection((host, port), min(left, PORT_TRY_S)),
            ):
                return
        if deadline is not None and time.monotonic() > deadline:
            raise _over(f"{', '.join(hosts)} takes no connection at port {port}")
        time.sleep(min(PORT_TRY_S / 2, _left(deadline) or PORT_TRY_S))

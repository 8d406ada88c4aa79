"""The command `pvc`: the tree of all commands, and what becomes of errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from shell import failures
from shell.failures import DONE, INTERRUPTED
from shell.session import Session
from shell.tree import Group

COMMANDS = {
    "vm": ("shell.commands.vm:vm", "Virtual machines"),
    "volume": ("shell.commands.volume:volume", "Virtual disks and their snapshots"),
    "pool": ("shell.commands.pool:pool", "Places to keep volumes in"),
    "snapshot": ("shell.commands.snapshot:snapshot", "Snapshots of volumes"),
    "network": ("shell.commands.network:network", "Virtual networks"),
    "image": ("shell.commands.image:image", "Images that VMs are made from"),
    "node": ("shell.commands.node:node", "The machines of the cluster"),
    "cluster": ("shell.commands.cluster:cluster", "The cluster as a whole"),
    "storage": ("shell.commands.storage:storage", "Volumes, pools and snapshots together"),
    "provisioner": ("shell.commands.storage:provisioner", "Images, and VMs made from them"),
    "operation": ("shell.commands.operation:operation", "Long work that was asked for"),
    "event": ("shell.commands.event:event", "What happened"),
    "audit": ("shell.commands.audit:audit", "Who did what, from where"),
    "token": ("shell.commands.token:token", "Tokens that let callers in"),
    "connection": ("shell.commands.connection:connection", "Clusters that you know by name"),
    "whoami": ("shell.commands.token:whoami", "Who the cluster takes you for"),
    "status": ("shell.commands.status:status", "How the cluster is, what is wrong, what to do"),
    "wait": ("shell.commands.wait:wait", "Wait until something is so"),
    "top": ("shell.commands.top:top", "How busy the nodes are"),
    "version": ("shell.commands.version:version", "Versions of client, cluster and nodes"),
    "apply": ("shell.commands.apply:apply", "Have things be as files say"),
    "diff": ("shell.commands.apply:diff", "What apply would make or change"),
    "explain": ("shell.commands.explain:explain", "What a thing, a field or a method is"),
    "call": ("shell.commands.call:call", "Any method of the API, with its request as JSON"),
    "completion": ("shell.commands.completion:completion", "Tab completion for your shell"),
}
COUNTED = ("vm", "volume", "pool", "snapshot", "network", "image", "node", "cluster", "operation",
           "event", "token", "connection")  # fmt: skip
ALIASES = {"task": "operation", "tasks": "operation"} | {f"{name}s": name for name in COUNTED}
"""Other names of commands."""


ERRORS_AS_JSON = "pvc.errors_as_json"
"""Key of what a context knows of whoever reads its errors."""


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"pvc, version {version('pvc')}")
        ctx.exit()


def _connections(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from shell.connections import names

    return [name for name in names() if name.startswith(incomplete)]


@click.group(
    cls=Group,
    lazy=COMMANDS,
    aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-c",
    "--connection",
    metavar="NAME",
    shell_complete=_connections,
    help="A cluster: a name (pvc connection list), HOST:PORT or unix:/path. Env: PVC_CONNECTION.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    help="File with the secret of a token. Env: PVC_TOKEN has the secret itself.",
)
@click.option("--ca", type=click.Path(dir_okay=False), help="The cluster's CA. Env: PVC_CA.")
@click.option("--colour/--no-colour", "--color/--no-color", default=None, help="Colours or none.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what was asked for, and errors.")
@click.option("-v", "--debug", is_flag=True, help="Show every call: request id, time, outcome.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version.",
)  # fmt: skip
@click.pass_context
def pvc(
    ctx: click.Context,
    connection: str | None,
    token_file: str | None,
    ca: str | None,
    colour: bool | None,
    quiet: bool,
    debug: bool,
) -> None:
    """PVC: virtual machines on one machine or many.

    Every command has --help with examples. Exit codes: 0 done, 1 failed, 2 usage, 3 declined,
    4 not found, 5 unreachable, 130 Ctrl-C.
    """
    if ctx.obj is None:
        ctx.obj = Session(connection or "", token_file or "", ca or "", colour)
        ctx.call_on_close(ctx.obj.close)
    as_json = bool(ctx.meta.get(ERRORS_AS_JSON))
    ctx.obj.set_manner(quiet=quiet, debug=debug, errors_as_json=as_json)


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Runs one command; says on stderr what went wrong; gives the exit code.

    session: one that is kept for several commands.
    """
    return ended(lambda: call(arguments, session), arguments, session)


def call(
    arguments: Sequence[str], session: Session | None, defaults: dict[str, Any] | None = None
) -> Any:
    """Runs one command as it is: raises what goes wrong. defaults: of options, by the way to the
    command: {"vm": {"list": {"format": "wide"}}}."""
    with pvc.make_context(
        "pvc", list(arguments), obj=session, default_map=defaults, color=True
    ) as context:
        context.meta[ERRORS_AS_JSON] = failures.wants_json(arguments)
        return pvc.invoke(context)


def ended(
    work: Callable[[], Any], arguments: Sequence[str] = (), session: Session | None = None
) -> int:
    """Does something; says on stderr what went wrong, as whoever gave the arguments reads it; gives
    the exit code."""
    try:
        outcome = work()
        return outcome if isinstance(outcome, int) else DONE
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except (click.Abort, KeyboardInterrupt, EOFError) as stop:
        click.echo("\n".join(["", *getattr(stop, "__notes__", ())]), err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return DONE  # whoever read our output has left: no reason to complain
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told and has an exit code
        return _told(error, arguments, session)


def _told(error: Exception, arguments: Sequence[str], session: Session | None) -> int:
    """Says what went wrong."""
    if failures.is_a_mistake(error) and ("--debug" in arguments or "-v" in arguments):
        import traceback

        traceback.print_exception(error)
    as_json = failures.wants_json(arguments)
    coloured = (session or Session()).coloured(sys.stderr)
    told = failures.report(error, coloured, as_json=as_json)
    click.echo(told, nl=False, err=True, color=True)
    return failures.exit_code(error)


def _flushed(code: int) -> int:
    """The exit code when all that was printed has gone out, or cannot: then it goes nowhere."""
    try:
        sys.stdout.flush()
        return code
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code if isinstance(error, BrokenPipeError) else code or failures.FAILED


def _leave_at_once(_number: int, _frame: Any) -> None:
    os._exit(INTERRUPTED)


def _interrupted(_number: int, _frame: Any) -> None:
    """The first Ctrl-C ends what is done in order; the second does not wait for that."""
    signal.signal(signal.SIGINT, _leave_at_once)
    raise KeyboardInterrupt


def _terminated(number: int, _frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def main() -> None:
    """The entry point."""
    if "_PVC_COMPLETE" in os.environ:
        from shell.completing import answer

        sys.exit(answer(pvc, os.environ, sys.stdout))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _terminated)
    sys.exit(_flushed(run(sys.argv[1:])))

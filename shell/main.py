"""The command `pvc`: the tree of all commands, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from shell import failures
from shell.failures import DECLINED, DONE, FAILED, INTERRUPTED, USAGE, Declined
from shell.session import LOCAL, Session
from shell.tree import Group

if TYPE_CHECKING:
    from pvc_client import PvcError

COMMANDS = {
    "vm": ("shell.commands.vm:vm", "Virtual machines"),
    "volume": ("shell.commands.volume:volume", "Virtual disks and their snapshots"),
    "pool": ("shell.commands.pool:pool", "Places to keep volumes in"),
    "snapshot": ("shell.commands.volume:snapshot", "Snapshots of volumes"),
    "network": ("shell.commands.network:network", "Virtual networks"),
    "image": ("shell.commands.image:image", "Images that VMs are made from"),
    "node": ("shell.commands.node:node", "The machines of the cluster"),
    "cluster": ("shell.commands.cluster:cluster", "The cluster as a whole"),
    "operation": ("shell.commands.operation:operation", "Long work that was asked for"),
    "event": ("shell.commands.event:event", "What happened"),
    "token": ("shell.commands.token:token", "Tokens that let callers in"),
    "whoami": ("shell.commands.token:whoami", "Who the cluster takes you for"),
    "apply": ("shell.commands.apply:apply", "Have things be as files say"),
    "diff": ("shell.commands.apply:diff", "What apply would make or change"),
    "explain": ("shell.commands.explain:explain", "What a thing, a field or a method is"),
    "call": ("shell.commands.call:call", "Any method of the API, with its request as JSON"),
    "completion": ("shell.commands.completion:completion", "Tab completion for your shell"),
}
ALIASES = {"task": "operation"} | {f"{name}s": name for name in COMMANDS if name != "whoami"}
"""Other names of commands."""


@click.group(
    cls=Group,
    lazy=COMMANDS,
    aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-c",
    "--connection",
    metavar="ADDRESS",
    help=f"HOST:PORT or unix:/path of a cluster. Env: PVC_CONNECTION. Default: {LOCAL}",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    help="File with the secret of a token. Env: PVC_TOKEN has the secret itself.",
)
@click.option("--ca", type=click.Path(dir_okay=False), help="The cluster's CA. Env: PVC_CA.")
@click.option("--colour/--no-colour", "--color/--no-color", default=None, help="Colours or none.")
@click.version_option(package_name="pvc", prog_name="pvc")
@click.pass_context
def pvc(
    ctx: click.Context,
    connection: str | None,
    token_file: str | None,
    ca: str | None,
    colour: bool | None,
) -> None:
    """PVC: virtual machines on one machine or many.

    Every command has --help with examples. Exit codes: 0 done, 1 failed, 2 usage, 3 declined,
    4 not found, 5 unreachable.
    """
    if ctx.obj is None:
        ctx.obj = Session(connection or "", token_file or "", ca or "", colour)
        ctx.call_on_close(ctx.obj.close)


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Runs one command; says on stderr what went wrong; gives the exit code.

    session: one that is kept for several commands.
    """
    try:
        outcome = pvc.main(list(arguments), prog_name="pvc", standalone_mode=False, obj=session)
        return outcome if isinstance(outcome, int) else DONE
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except Declined as error:
        click.echo(f"declined: {error}", err=True)
        return DECLINED
    except (click.Abort, KeyboardInterrupt):
        click.echo("", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:  # a file of the user's, named in its text
        click.echo(f"error: {error}", err=True)
        return FAILED
    except Exception as error:
        if not is_refusal(error):
            raise
        coloured = Session().coloured(sys.stderr)
        click.echo(failures.told(error, coloured), nl=False, err=True)
        return failures.exit_code(error)


def is_refusal(error: Any) -> TypeGuard[PvcError]:
    """Whether it is one of the client's own errors; those are only known once it is loaded."""
    client = sys.modules.get("pvc_client")
    return client is not None and isinstance(error, client.PvcError)


def _broken_pipe() -> int:
    """Whoever read our output has left: no reason to complain."""
    sys.stdout = None  # nothing is left to flush at the end
    return DONE


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))

"""What the shell says when something is refused or goes wrong, and the exit code that goes with
it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shell.render import clean_lines, painted

if TYPE_CHECKING:
    from pvc_client import PvcError

DONE, FAILED, USAGE, DECLINED, NOT_FOUND, UNREACHABLE = range(6)
INTERRUPTED = 130
"""As every shell has it for Ctrl-C."""


class Declined(Exception):
    """The user, or the lack of a terminal to ask at, said no. Nothing was changed."""


def exit_code(error: PvcError) -> int:
    """The exit code of an error."""
    from pvc_client import errors

    if isinstance(error, errors.NotFound):
        return NOT_FOUND
    if isinstance(error, errors.Unavailable):
        return UNREACHABLE
    return FAILED


def told(error: PvcError, colour: bool) -> str:
    """The error and what to do next, for stderr."""
    named = error.field in ("", "name", "parent") or error.field in error.message
    where = "" if named else f" [{error.field}]"
    text = f"{painted('error:', 'bad', colour)} {clean_lines(error.message)}{where}\n"
    hint = hint_for(error)
    return text + (f"{painted('hint:', 'busy', colour)} {hint}\n" if hint else "")


def hint_for(error: PvcError) -> str:
    """The next thing to try, a command where there is one."""
    from pvc_client import errors

    if error.operation:
        return f"see what it did: pvc operation info {error.operation.partition('/')[2]}"
    local = error.message.startswith("unix:")
    match error:
        case errors.Unreachable() if local and "ermission" in error.message:
            return "the local socket is root's; use sudo, or PVC_CONNECTION and PVC_TOKEN"
        case errors.Unreachable() if local:
            return "is pvcd running here? For another machine: --connection HOST:PORT"
        case errors.Unreachable() if "does not answer" in error.message:
            return "is that where its gateway listens for gRPC? --connection HOST:PORT"
        case errors.Unavailable():
            return "it is safe to try again"
        case errors.Unauthenticated():
            return "put a token's secret into PVC_TOKEN; an admin makes one: pvc token create NAME"
        case errors.PermissionDenied():
            return "see what your token may do: pvc whoami"
        case errors.NotFound() | errors.DanglingReference():
            return _lists(error.message)
        case errors.EtagMismatch() | errors.Busy():
            return "try again; see what else is going on: pvc operation list"
        case errors.NoNodeFits():
            return "see what the nodes have: pvc node list -f wide"
        case errors.OutOfSpace():
            return "see what is free: pvc pool list"
        case errors.InvalidQuery():
            return """filters read like: --filter 'status.state = RUNNING AND spec.tags:web'"""
    return ""


def _lists(message: str) -> str:
    """The command that lists what was looked for: "vms/web does not exist" → pvc vm list."""
    name = message.split(" ")[0].strip('"')
    path = "/".join(name.split("/")[::2])
    kinds = {
        "vms": "vm",
        "pools": "pool",
        "pools/volumes": "volume",
        "networks": "network",
        "images": "image",
        "nodes": "node",
        "operations": "operation",
        "tokens": "token",
    }
    inside = {"pools/volumes/snapshots": "snapshot", "vms/snapshots": "vm snapshot"}
    if path in inside:
        of = "/".join(name.split("/")[1:-2:2])
        return f"see what there is: pvc {inside[path]} list {clean_lines(of)}"
    return f"see what there is: pvc {kinds[path]} list" if path in kinds else ""

"""What the shell says when something is refused or goes wrong, to people or to programs, and the
exit code that goes with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import click
from click.exceptions import NoArgsIsHelpError

from shell.render import clean_lines, json_text, painted

if TYPE_CHECKING:
    from pvc_client import PvcError

DONE, FAILED, USAGE, DECLINED, NOT_FOUND, UNREACHABLE = range(6)
INTERRUPTED = 130
"""As every shell has it for Ctrl-C."""


AS_JSON = ("json", "-fjson", "--format=json")


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether whoever gave these arguments is a program that reads JSON."""
    pairs = zip(arguments, [*arguments, ""][1:], strict=True)
    asked = any(
        one in AS_JSON[1:] or (one in ("-f", "--format") and after == AS_JSON[0])
        for one, after in pairs
    )
    return asked or os.environ.get("PVC_ERRORS", "") == "json"


class Declined(Exception):
    """The user, or the lack of a terminal to ask at, said no. Nothing was changed."""


def is_refusal(error: Any) -> TypeGuard[PvcError]:
    """Whether it is one of the client's own errors; those are only known once it is loaded."""
    client = sys.modules.get("pvc_client.errors")
    return client is not None and isinstance(error, client.PvcError)


def is_a_mistake(error: BaseException) -> bool:
    """Whether nobody expected it: a mistake of PVC's own."""
    return not (is_refusal(error) or isinstance(error, click.ClickException | Declined | OSError))


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    if isinstance(error, click.UsageError):
        return USAGE
    if isinstance(error, Declined):
        return DECLINED
    if not is_refusal(error):
        return FAILED
    from pvc_client import errors

    if isinstance(error, errors.NotFound):
        return NOT_FOUND
    if isinstance(error, errors.Unavailable):
        return UNREACHABLE
    return FAILED


def report(error: BaseException, colour: bool, *, as_json: bool = False) -> str:
    """What to print of an error on stderr, a line or more."""
    if as_json:
        return _json_line(error)
    if is_refusal(error):
        return told(error, colour)
    if isinstance(error, Declined):
        return f"{painted('declined:', 'busy', colour)} {error}\n"
    if isinstance(error, click.ClickException):
        return _usage(error, colour)
    if isinstance(error, OSError):  # a file of the user's, named in its text
        return f"{painted('error:', 'bad', colour)} {clean_lines(str(error))}\n"
    told_of = clean_lines(f"{type(error).__name__}: {error}")
    head = painted("error:", "bad", colour)
    return f"{head} pvc has a mistake: {told_of}\n{_hint('pvc --debug … shows where', colour)}"


def told(error: PvcError, colour: bool) -> str:
    """The error and what to do next, for stderr."""
    named = error.field in ("", "name", "parent") or error.field in error.message
    where = "" if named else f" [{error.field}]"
    text = f"{painted('error:', 'bad', colour)} {clean_lines(error.message)}{where}\n"
    return text + _hint(hint_for(error), colour)


def _hint(text: str, colour: bool) -> str:
    return f"{painted('hint:', 'busy', colour)} {text}\n" if text else ""


def _usage(error: click.ClickException, colour: bool) -> str:
    """What was wrong with the command line, and where the help is."""
    text = f"{painted('error:', 'bad', colour)} {clean_lines(words_of(error))}\n"
    context = getattr(error, "ctx", None)
    if isinstance(error, NoArgsIsHelpError):  # nothing is wrong with what was typed so far
        return f"{error.format_message()}\n"
    if context is None:
        return text
    usage = context.get_usage().removeprefix("Usage: ")
    return f"{text}{painted('usage:', 'dim', colour)} {usage}\n{_hint(_help(context), colour)}"


def _help(context: click.Context) -> str:
    return f"{context.command_path} --help"


def words_of(error: click.ClickException) -> str:
    """What click says, and what was near where a choice was missed."""
    text = error.format_message()
    kind = getattr(getattr(error, "param", None), "type", None)
    if not isinstance(kind, click.Choice):
        return text
    from difflib import get_close_matches

    given = error.message.partition("'")[2].partition("'")[0]
    near = get_close_matches(given, [str(one) for one in kind.choices], 1)
    return f"{text} Did you mean {near[0]!r}?" if near else text


def _json_line(error: BaseException) -> str:
    """An error for programs: one line."""
    found: dict[str, Any] = {"reason": "FAILED", "message": str(error), "field": "",
                             "operation": ""}  # fmt: skip
    if is_refusal(error):
        found |= {"reason": error.reason, "message": error.message, "field": error.field,
                  "operation": error.operation, "hint": hint_for(error)}  # fmt: skip
    elif isinstance(error, click.ClickException):
        param = getattr(error, "param", None)
        unfinished = isinstance(error, NoArgsIsHelpError)
        found |= {
            "reason": "USAGE",
            "message": "a command must follow" if unfinished else words_of(error),
            "field": getattr(param, "name", ""),
        }
    elif isinstance(error, Declined):
        found["reason"] = "DECLINED"
    found["exit_code"] = exit_code(error)
    return json_text({"error": found}) + "\n"


def hint_for(error: PvcError) -> str:
    """The next thing to try, a command where there is one."""
    from pvc_client import errors

    if isinstance(error, errors.Deadline) and error.operation:
        found = error.operation.partition("/")[2]
        return f"wait again: pvc operation wait {found}; stop it: pvc operation cancel {found}"
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
            return "filters read like: --filter 'state=running memory>2G tag:web'"
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

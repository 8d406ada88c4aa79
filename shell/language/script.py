"""Lines that nobody types: scripts from a file, standard input or an option. They stop at the first
error and say where.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from shell.failures import DONE, INTERRUPTED, USAGE
from shell.language.line import Statement, is_unfinished, line_number, parse
from shell.language.words import SyntaxProblem

if TYPE_CHECKING:
    from shell.language.runner import Runner
    from shell.session import Session

SHOWN = 60
"""Of a statement in a message."""


def run_text(runner: Runner, text: str, origin: str) -> int:
    """Runs a whole script; gives its exit code. Nothing runs if any line of it says nothing.

    origin: what it is called in messages: the name of its file.
    """
    try:
        statements = parse(text)
    except SyntaxProblem as problem:
        return _refused(problem, text, origin, 1)
    return _run(runner, statements, text, origin, 1)


def run_stream(runner: Runner, lines: Iterable[str], origin: str) -> int:
    """Runs lines as they come; gives the exit code."""
    pending, first, code = "", 1, DONE
    for number, line in enumerate(lines, 1):
        pending += line
        if is_unfinished(pending.rstrip("\n")):
            continue
        code = _piece(runner, pending, origin, first) or code
        if runner.is_leaving or code == INTERRUPTED or (code and runner.stops_at_errors):
            return code
        pending, first = "", number + 1
    return (_piece(runner, pending, origin, first) or code) if pending else code


def _piece(runner: Runner, text: str, origin: str, first: int) -> int:
    try:
        statements = parse(text.rstrip("\n"))
    except SyntaxProblem as problem:
        return _refused(problem, text, origin, first)
    return _run(runner, statements, text, origin, first)


def _refused(problem: SyntaxProblem, text: str, origin: str, first: int) -> int:
    line = line_number(text, problem.begin)
    column = problem.begin - (text.rfind("\n", 0, problem.begin) + 1) + 1
    click.echo(f"{origin}:{first + line - 1}:{column}: {problem.pointed(text)}", err=True)
    return USAGE


def _run(
    runner: Runner, statements: Iterable[Statement], text: str, origin: str, first: int
) -> int:
    """first: the number of the text's first line."""
    worst = DONE
    for statement in statements:
        code = _one(runner, statement)
        if runner.is_leaving:
            return code
        if code == DONE:
            continue
        where = f"{origin}:{first + line_number(text, statement.begin) - 1}"
        said = " ".join(text[statement.begin : statement.end].split())
        said = said if len(said) <= SHOWN else said[: SHOWN - 1] + "…"
        if code == INTERRUPTED:
            click.echo(f"{where}: interrupted at: {said}", err=True)
            return code
        stops = runner.stops_at_errors
        how = "stopped" if stops else "went on"
        click.echo(f"{where}: {how} after exit code {code} of: {said}", err=True)
        worst = worst or code
        if stops:
            break
    return worst


def _one(runner: Runner, statement: Statement) -> int:
    try:
        return runner.run(statement)
    except KeyboardInterrupt:
        return INTERRUPTED


def batch(session: Session, path: str, lines: Iterable[str], *, keep_going: bool) -> int:
    """What `pvc-shell` does where nobody types: runs lines of its command line, of a file, or of
    standard input; gives the exit code."""
    from shell.language.runner import Runner

    runner = Runner(session)
    if keep_going:
        runner.settings.set("on-error", "continue")
    text, origin = "\n".join(lines) or None, "-e"
    if text is None and path not in ("", "-"):
        text, origin = _read(path), path
    if text is not None and not (sys.stdin and sys.stdin.isatty()):
        return run_text(runner, text, origin)
    with _nothing_to_read() as stdin:  # from a terminal neither: nobody is asked anything
        if text is not None:
            return run_text(runner, text, origin)
        return run_stream(runner, stdin or (), "standard input")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not a text in UTF-8") from None


@contextlib.contextmanager
def _nothing_to_read() -> Iterator[TextIO | None]:
    """The lines of a script on standard input are its own: commands that read there find it at its
    end."""
    script = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123 - devnull is no place
        sys.stdin = nothing
        try:
            yield script
        finally:
            sys.stdin = script

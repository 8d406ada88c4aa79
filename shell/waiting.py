"""Waiting for operations: a progress line on stderr, and what Ctrl-C means meanwhile."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import click

from shell.failures import INTERRUPTED, exit_code, told
from shell.measures import size
from shell.render import clean, cut, painted

if TYPE_CHECKING:
    from pvc_client import Pending

BAR = 20
LINE = 79
"""What a line of progress takes at least; a wider terminal is used."""


class Progress:
    """One line that shows how far something is; plain lines where no terminal is."""

    def __init__(self, title: str, stream: TextIO, colour: bool) -> None:
        self._title = title
        self._stream = stream
        self._colour = colour
        self._live = stream.isatty()
        self._began = time.monotonic()
        self._stage = ""

    def tell(self, stage: str, percent: int) -> None:
        """Shows the stage and how much of it all is done."""
        if self._live:
            elapsed = f"{time.monotonic() - self._began:.1f}s"
            width = max(shutil.get_terminal_size().columns - 1, LINE)
            text = progress_line(self._title, stage, percent, elapsed, width)
            self._stream.write(f"\r\x1b[K{painted(text, 'dim', self._colour)}")
        elif stage and stage != self._stage:
            self._stream.write(f"{self._title}: {clean(stage)}\n")
        self._stage = stage
        self._stream.flush()

    def transferred(self, done: int, total: int) -> None:
        """Shows how many bytes of how many have gone."""
        percent = done * 100 // max(total, 1)
        shown = f"{size(done)} of {size(total)}" if self._live else "transferring"
        self.tell(shown, percent)

    def end(self) -> None:
        """Leaves the line empty."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def progress_line(title: str, stage: str, percent: int, elapsed: str, width: int) -> str:
    """ "web  [#####...............]  25%  starting the emulator  3.1s"."""
    filled = "#" * (BAR * percent // 100)
    return cut(
        f"{title}  [{filled.ljust(BAR, '.')}] {percent:3}%  {elapsed}  {clean(stage)}", width
    )


def finish(
    session: Any, pending: Pending[Any], done: str | Callable[[Any], str], *, wait: bool
) -> Any:
    """Waits for an operation and says what it came to; with wait off, how to look at it.

    Gives what came out, None when it was not waited for. Raises what the operation failed with.
    """
    if not wait:
        click.echo(pending.name)
        click.echo(f"it goes on; look at it: pvc operation info {_id(pending)}", err=True)
        return None
    title = "/".join(pending.operation.target.split("/")[1::2])
    progress = Progress(title, sys.stderr, session.coloured(sys.stderr))
    try:
        result = pending.result(on_progress=lambda o: progress.tell(o.stage, o.percent))
    except KeyboardInterrupt:
        progress.end()
        click.echo(
            f"\nstopped waiting; the operation goes on.\n"
            f"  look at it:  pvc operation info {_id(pending)}\n"
            f"  wait again:  pvc operation wait {_id(pending)}\n"
            f"  stop it:     pvc operation cancel {_id(pending)}",
            err=True,
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        progress.end()
    sentence = done if isinstance(done, str) else done(result)
    if sentence:
        click.echo(sentence)
    return result


def act(
    session: Any,
    names: Sequence[str],
    begin: Callable[[str], Pending[Any]],
    done: str | Callable[[Any], str],
    *,
    wait: bool,
    dry_run: bool,
) -> None:
    """Begins something for each name, then waits for all. done: "vm {} is running", or what makes a
    sentence of what came out.

    What is refused for one of several is told, and the others go on; the first refusal is the
    exit code.
    """
    from pvc_client import PvcError

    several = list(dict.fromkeys(names))
    refused: list[int] = []

    def tried(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except PvcError as error:
            if len(several) == 1:
                raise
            click.echo(told(error, session.coloured(sys.stderr)), nl=False, err=True)
            refused.append(exit_code(error))

    begun = [(name, tried(partial(begin, name))) for name in several]
    for name, pending in begun:
        if pending is not None and dry_run:
            show_plan(pending)
        elif pending is not None:
            told_of = done.format(name) if isinstance(done, str) else done
            tried(partial(finish, session, pending, told_of, wait=wait))
    if refused:
        raise click.exceptions.Exit(refused[0])


def show_plan(pending: Pending[Any]) -> None:
    """What a dry run found out."""
    operation = pending.operation
    click.echo(f"{operation.target}: this would be accepted; nothing was changed")
    for line in operation.log:
        click.echo(f"  {clean(line.text)}")


def _id(pending: Pending[Any]) -> str:
    return pending.name.partition("/")[2]

"""Waiting for operations, one or many at once, and what Ctrl-C means meanwhile: they go on, and
whoever stops waiting is told how to look at them and how to stop them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from shell.answers import TEXT, outcome, show
from shell.failures import INTERRUPTED, exit_code
from shell.progress import Board, Progress
from shell.render import clean

if TYPE_CHECKING:
    from pvc_client import Pending

__all__ = ["Progress", "Waiting", "act", "finish", "show_plan"]

TICK_S = 0.2
"""How often bars are painted anew while nothing is heard."""
AT_ONCE = 16
"""Operations that are followed at the same time; the others go on just the same."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether to wait for the end of what is begun, and how long at most."""

    on: bool = True
    timeout_s: int = 0
    """0: as long as it takes."""
    format: str = TEXT
    """How to show what comes out: a sentence for TEXT, else one of shell.answers.FORMATS."""

    def __bool__(self) -> bool:
        return self.on


@dataclass(slots=True, eq=False)
class Job:
    """An operation that somebody waits for."""

    place: int
    title: str
    pending: Pending[Any]
    result: Any = None
    error: BaseException | None = None
    ended: bool = False


def finish(
    session: Any,
    pending: Pending[Any],
    done: str | Callable[[Any], str],
    *,
    wait: Waiting | bool,
) -> Any:
    """Waits for an operation and says what it came to; with wait off, how to look at it.

    Gives what came out, None when it was not waited for. Raises what the operation failed with.
    """
    if not wait:
        return _left(session, [pending], format_of(wait), several=False)
    job = Job(0, _title(pending), pending)
    _wait_for_all(session, [job], wait)
    result = _told(session, job, done, format_of(wait))
    if done:
        show(format_of(wait), [outcome(pending, result)], several=False)
    return result


def format_of(wait: Waiting | bool) -> str:
    """How to show what comes out."""
    return wait.format if isinstance(wait, Waiting) else TEXT


def _told(session: Any, job: Job, done: str | Callable[[Any], str], format: str) -> Any:
    """Says what a job came to; gives what came out. Raises what it failed with."""
    if job.error is not None:
        raise job.error
    session.on_end(job.pending.operation, job.result)
    if format != TEXT:
        return job.result
    sentence = done if isinstance(done, str) else done(job.result)
    if sentence:
        session.say(sentence)
    return job.result


def _left(session: Any, begun: Sequence[Pending[Any]], format: str, *, several: bool) -> None:
    """Says what goes on without anybody waiting for it."""
    session.going.update(pending.name for pending in begun)
    show(format, [pending.operation for pending in begun], several=several)
    for pending in begun if format == TEXT else ():
        click.echo(pending.name)
        session.note(f"it goes on; look at it: pvc operation info {_id(pending)}")


def act(
    session: Any,
    names: Sequence[str],
    begin: Callable[[str], Pending[Any]],
    done: str | Callable[[Any], str],
    *,
    wait: Waiting | bool,
    dry_run: bool,
) -> None:
    """Begins something for each name, then waits for all at once. done: "vm {} is running", or
    what makes a sentence of what came out.

    What is refused for one of several is told, and the others go on; the gravest refusal is the
    exit code.
    """
    several = list(dict.fromkeys(names))
    refusals = _Refusals(session, many=len(several))
    begun = _begun(session, several, begin, refusals)
    format, many = format_of(wait), len(several) > 1
    if dry_run:
        show(format, [pending.operation for _, pending in begun], several=many)
        for _, pending in begun if format == TEXT else ():
            show_plan(pending)
    elif not wait:
        _left(session, [pending for _, pending in begun], format, several=many)
    else:
        jobs = [Job(i, name, pending) for i, (name, pending) in enumerate(begun)]
        _wait_for_all(session, jobs, wait)
        for job in jobs:
            told_of = done.format(job.title) if isinstance(done, str) else done
            refusals.tried(partial(_told, session, job, told_of, format))
        rows = [outcome(job.pending, job.result) for job in jobs if job.error is None]
        show(format, rows, several=many)
    refusals.end()


class _Refusals:
    """What was refused so far. Of a single thing it is simply raised."""

    def __init__(self, session: Any, *, many: int) -> None:
        self._session = session
        self._many = many
        self._codes: list[int] = []

    def tried(self, step: Callable[[], Any]) -> Any:
        """What comes out of it; None when it was refused, which is told."""
        from pvc_client import PvcError

        try:
            return step()
        except PvcError as error:
            if self._many == 1:
                raise
            self._session.complain(error)
            self._codes.append(exit_code(error))

    def end(self) -> None:
        """Says how many were refused, and ends the command with the code of the gravest."""
        if self._codes:
            done = f"{self._many - len(self._codes)} of {self._many} are done"
            self._session.note(f"{done}; {len(self._codes)} were refused or failed")
            raise click.exceptions.Exit(max(self._codes))


def _begun(
    session: Any,
    names: Sequence[str],
    begin: Callable[[str], Pending[Any]],
    refusals: _Refusals,
) -> list[tuple[str, Pending[Any]]]:
    """What was accepted. Ctrl-C in between tells what was begun, what may be and what is not."""
    begun: list[tuple[str, Pending[Any]]] = []
    left = list(names)
    try:
        while left:
            pending = refusals.tried(partial(begin, left[0]))
            name = left.pop(0)
            if pending is not None:
                begun.append((name, pending))
    except (KeyboardInterrupt, SystemExit) as stop:
        _tell_what_was_asked(left)
        _tell_what_goes_on(session, [Job(i, n, one) for i, (n, one) in enumerate(begun)])
        _stop(stop)
    return begun


def _tell_what_was_asked(left: Sequence[str]) -> None:
    """Where somebody stopped who asked for several: at the first of these."""
    if left:
        click.echo(f"\n{left[0]} may be begun, see: pvc operation list", err=True)
    if left[1:]:
        click.echo(f"not begun: {', '.join(left[1:])}", err=True)


def _wait_for_all(session: Any, jobs: Sequence[Job], wait: Waiting | bool) -> None:
    """Until all have ended, each with its result or its error. Ctrl-C tells what goes on."""
    heard: SimpleQueue[tuple[Job, Any]] = SimpleQueue()
    board = session.board([job.title for job in jobs])
    timeout_s = wait.timeout_s if isinstance(wait, Waiting) else 0
    deadline = time.monotonic() + timeout_s if timeout_s else None
    waiting = SimpleQueue[Job]()
    for job in jobs:
        waiting.put(job)
    for _ in range(min(len(jobs), AT_ONCE)):
        threading.Thread(target=_follow, args=(waiting, heard, deadline), daemon=True).start()
    try:
        _hear(jobs, heard, board)
    except (KeyboardInterrupt, SystemExit) as stop:
        board.end()
        _tell_what_goes_on(session, [job for job in jobs if not job.ended])
        _stop(stop)
    finally:
        board.end()


def _follow(
    waiting: SimpleQueue[Job], heard: SimpleQueue[tuple[Job, Any]], deadline: float | None
) -> None:
    """In a thread of its own: waits for one job after the other, passing on what is heard."""
    while True:
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        left_s = None if deadline is None else max(deadline - time.monotonic(), 0.01)
        try:
            job.result = job.pending.result(left_s, partial(_pass_on, heard, job))
        except BaseException as error:  # noqa: BLE001 - told in the thread that waits
            job.error = error
        heard.put((job, None))


def _pass_on(heard: SimpleQueue[tuple[Job, Any]], job: Job, operation: Any) -> None:
    heard.put((job, operation))


def _hear(jobs: Sequence[Job], heard: SimpleQueue[tuple[Job, Any]], board: Board) -> None:
    """Shows how far all are until they have ended."""
    left = len(jobs)
    while left:
        with suppress(Empty):
            job, operation = heard.get(timeout=TICK_S)
            if operation is not None:
                board.tell(job.place, operation.stage, operation.percent)
            elif isinstance(job.error, KeyboardInterrupt):
                raise job.error
            else:
                left -= 1
                job.ended = True
                board.ended(job.place, "failed" if job.error else "done")
        if heard.empty():
            board.draw()


def _tell_what_goes_on(session: Any, jobs: Sequence[Job]) -> None:
    """What somebody who stops waiting should know."""
    session.going |= {job.pending.name for job in jobs}
    if not jobs:
        return
    one = len(jobs) == 1
    what = "the operation goes on" if one else "these operations go on"
    click.echo(f"\nstopped waiting; {what}.", err=True)
    ids = [_id(job.pending) for job in jobs]
    if not one:
        for job, found in zip(jobs, ids, strict=True):
            click.echo(f"  {clean(job.title)}: {found}", err=True)
    named = ids[0] if one else "ID"
    click.echo(
        f"  look at it:  pvc operation {'info ' + named if one else 'list'}\n"
        f"  wait again:  pvc operation wait {named}\n"
        f"  stop it:     pvc operation cancel {named}",
        err=True,
    )


def _stop(stop: BaseException) -> None:
    """Leaves as it was asked for."""
    if isinstance(stop, KeyboardInterrupt):
        raise click.exceptions.Exit(INTERRUPTED) from None
    raise stop


def show_plan(pending: Pending[Any], format: str = TEXT) -> None:
    """What a dry run found out."""
    operation = pending.operation
    show(format, [operation], several=False)
    if format != TEXT:
        return
    click.echo(f"{operation.target}: this would be accepted; nothing was changed")
    for line in operation.log:
        click.echo(f"  {clean(line.text)}")


def _title(pending: Pending[Any]) -> str:
    return "/".join(pending.operation.target.split("/")[1::2])


def _id(pending: Pending[Any]) -> str:
    return pending.name.partition("/")[2]

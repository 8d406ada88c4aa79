"""The way of an answer: from a command through stages to a terminal, a file or a command of this
machine.

What streams goes on streaming; what comes as rows stays rows as long as nobody needs lines.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from shell.language.stages import Stage, shown_text
from shell.render import Answer

ENDLESS = ("follow", "watch")
"""Options of commands that go on until somebody ends them."""


class Enough(Exception):
    """Nobody reads any more what an endless command would go on to print."""


class EndedByHand(KeyboardInterrupt):
    """Ctrl-C to an endless command: its end, and no failure of what came before."""


class Flow:
    """Stands where a session shows rows, and where standard output is, while a command runs."""

    def __init__(self, session: Any, stages: Sequence[Stage]) -> None:
        self._session, self._stages = session, stages
        self._held: Answer | None = None
        """Rows that nothing has followed yet."""
        self._is_text = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self.is_endless = False

    def take(self, answer: Answer) -> None:
        """Rows to show."""
        self.is_endless = self.is_endless or is_endless()
        if self._is_text or self._held is not None:
            self._release()
            self.text(shown_text(answer, self._session))
        else:
            self._held = answer

    def write(self, piece: bytes) -> None:
        """What a command prints."""
        self.text(self._decoder.decode(piece))

    def text(self, text: str) -> None:
        """Text to show; whole lines go on at once."""
        if not text:
            return
        self.is_endless = self.is_endless or is_endless()
        self._release()
        self._is_text = True
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._pass(0, line)
        if any(stage.has_enough for stage in self._stages) and self.is_endless:
            raise Enough

    def finish(self) -> None:
        """All has come: shows what is left. Standard output must be the real one again."""
        self.text(self._decoder.decode(b"", final=True))
        if self._held is not None and not self._is_text:
            self._finish_rows(self._held)
            return
        if self._line:
            self._pass(0, self._line)
            self._line = ""
        self._end(0)

    def _release(self) -> None:
        """What was rows becomes lines: something else has followed them."""
        if (held := self._held) is not None:
            self._held, self._is_text = None, True
            for line in shown_text(held, self._session).splitlines():
                self._pass(0, line)

    def _finish_rows(self, answer: Answer) -> None:
        found: Answer | str = answer
        for place, stage in enumerate(self._stages):
            if isinstance(found, str):
                self._finish_lines(found, place)
                return
            found = stage.rows(found, self._session)
        if isinstance(found, str):
            self._session.put(found)
        else:
            self._session.show(found)

    def _finish_lines(self, text: str, place: int) -> None:
        """A whole text through the stages from a place on; what comes out may be long."""
        before, self.out = self.out, io.StringIO()
        try:
            for line in text.splitlines():
                self._pass(place, line)
            self._end(place)
        finally:
            told, self.out = self.out.getvalue(), before
            self._session.put(told)

    def _pass(self, place: int, line: str) -> None:
        """A line through the stages from a place on."""
        lines = [line]
        for stage in self._stages[place:]:
            lines = [after for before in lines for after in stage.line(before)]
        self._print(lines)

    def _end(self, place: int) -> None:
        """The end of the lines through the stages from a place on."""
        for at in range(place, len(self._stages)):
            for line in self._stages[at].end():
                self._pass(at + 1, line)

    def _print(self, lines: Sequence[str]) -> None:
        for line in lines:
            click.echo(line, file=self.out)

    out: Any = None
    """Where lines go; the real standard output."""


class _Tap(io.BufferedIOBase):
    """Standard output of a command whose answer goes on through a flow."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        raise click.UsageError("this has the terminal to itself: nothing can follow it")

    def write(self, piece: Any) -> int:
        self._flow.write(bytes(piece))
        return len(piece)


def is_endless() -> bool:
    """Whether the command that runs goes on until somebody ends it."""
    context = click.get_current_context(silent=True)
    if context is None:
        return False
    asked = any(context.params.get(option) for option in ENDLESS)
    listing = context.params.get("asked")
    return asked or bool(getattr(listing, "watch", False)) or context.info_name == "watch"


def through(session: Any, stages: Sequence[Stage], call: Callable[[], Any]) -> Any:
    """Calls a command and leads what it answers through stages; gives what it gives.

    What it had answered comes out also when it fails.
    """
    flow = Flow(session, stages)
    flow.out, before = sys.stdout, session.sink
    tap: Any = io.TextIOWrapper(_Tap(flow), encoding="utf-8", write_through=True)
    try:
        with contextlib.redirect_stdout(tap):
            session.sink = flow
            return call()
    except Enough:
        return None
    except KeyboardInterrupt:
        if flow.is_endless:
            raise EndedByHand from None
        raise
    finally:
        session.sink = before
        flow.finish()

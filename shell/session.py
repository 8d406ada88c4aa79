"""One run of the shell: which cluster it talks to, how it shows things, what it asks before it
acts. Connects when a command first needs the cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from shell import failures
from shell.choices import picked
from shell.connections import Connection, Connections, checked_token, choose
from shell.failures import Declined
from shell.progress import Board
from shell.render import Answer, Column, Output, View, clean_lines, many, one, painted

if TYPE_CHECKING:
    from pvc_client import Cluster
    from pvc_client.contract import Call

PIPE_WIDTH = 200
"""Width of a table that no terminal shows: nothing is cut."""


class Sink(Protocol):
    """Where rows go instead of being shown."""

    def take(self, answer: Answer) -> None:
        """Rows, and how they were to be shown."""
        ...


class Session:
    """What all commands have in common. The REPL keeps one for all its commands."""

    def __init__(
        self,
        connection: str = "",
        token_file: str = "",
        ca: str = "",
        colour: bool | None = None,
        timeout_s: float = 0,
    ) -> None:
        self._wanted = connection
        self._token_file = token_file
        self._ca = ca
        self._reads_env = True
        self.colour = colour
        """Colours or none; None: on terminals."""
        self._timeout_s = timeout_s
        self.quiet = False
        """Say nothing but what was asked for, and errors."""
        self.debug = False
        """Show every call to the cluster."""
        self.errors_as_json = False
        self.switches = 0
        """How often another cluster was switched to."""
        self.going: set[str] = set()
        """Names of operations that were begun here and go on without anybody waiting for them."""
        self.on_end: Callable[[Any, Any], None] = lambda operation, result: None
        """Is told of operations that were waited for and ended well, with what came out."""
        self.sink: Sink | None = None
        """Gets what would be shown, while its answer goes on through pipes."""
        self.page: Callable[[str], None] | None = None
        """Shows a text that may be longer than the terminal; None: it is printed."""
        self.confirms = True
        """Off: whatever is asked, the answer is yes."""
        self.asks: bool | None = None
        """Whether there is somebody to ask; None: if standard input is a terminal."""

    def set_manner(self, *, quiet: bool, debug: bool, errors_as_json: bool) -> None:
        """How the next command is to speak."""
        self.quiet, self.debug, self.errors_as_json = quiet, debug, errors_as_json

    @cached_property
    def connection(self) -> Connection:
        """Which cluster it talks to. Raises UsageError, BadFile."""
        return choose(self._wanted)

    @property
    def address(self) -> str:
        """Where that is."""
        return self.connection.address

    @cached_property
    def cluster(self) -> Cluster:
        """The connection, once it is made."""
        cluster = self.connected()
        if self.connection.token and not Connections().is_private():
            self.note(f"others can read your tokens: chmod 600 {Connections().path}")
        cluster.transport.on_call = self._called
        return cluster

    def connected(self) -> Cluster:
        """A connection of its own to the same cluster, for whoever closes it; says nothing."""
        from pvc_client import Cluster

        token, chosen = self._token(), self.connection
        ca = self._ca or chosen.ca or self._env("PVC_CA") or None
        try:
            return Cluster(chosen.address, token=token, ca=ca, timeout_s=self._timeout_s)
        except OSError as error:
            raise click.UsageError(f"the CA's file cannot be read: {error}") from None

    def _called(self, call: Call) -> None:
        """Shows a call for --debug."""
        if self.debug:
            request = f"  request_id={call.request_id}" if call.request_id else ""
            took = f"{call.seconds * 1000:.1f} ms"
            told = f"{call.outcome:<10} {took:>9}  {call.method[1:]}  {call.address}{request}"
            click.echo(painted(told, "dim", self.coloured(sys.stderr)), err=True, color=True)

    def switch(self, wanted: str) -> None:
        """Talks to another cluster from now on, by its name or address, with nothing that was given
        for the former one. Raises UsageError, BadFile, and then nothing has changed."""
        chosen = choose(wanted)
        self.close()
        self.connection = chosen
        self.switches += 1
        self._token_file = self._ca = ""
        self._reads_env = False

    def renamed(self, name: str, new: str) -> None:
        """A connection goes by another name now: of the one that is talked to, too."""
        chosen = self.__dict__.get("connection")
        if chosen is not None and chosen.name == name:
            self.connection = replace(chosen, name=new)

    def _env(self, name: str) -> str:
        """What the environment says, for the connection that was chosen first."""
        return os.environ.get(name, "") if self._reads_env else ""

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if "cluster" in self.__dict__:
            self.__dict__.pop("cluster").close()

    def _token(self) -> str:
        """The secret to show: of the file that was named, of the connection, of the environment."""
        if self._token_file:
            try:
                secret = Path(self._token_file).read_text(errors="replace")
            except OSError as error:
                raise click.UsageError(f"the token file cannot be read: {error}") from None
            return checked_token(secret, self._token_file)
        if self.connection.token:
            return checked_token(self.connection.token, f"the connection {self.connection.name}")
        return checked_token(self._env("PVC_TOKEN"), "PVC_TOKEN")

    def coloured(self, stream: Any) -> bool:
        """Whether to use colours on a stream."""
        return self.colour if self.colour is not None else coloured(stream)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def view(self, output: Output) -> View:
        """How to show things on stdout."""
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
        coloured = self.coloured(sys.stdout)
        chosen = bool(output.columns)
        return View(output.format, width, coloured, self.now(), output.header, chosen)

    def columns(self, output: Output, columns: Sequence[Column], kind: Any) -> Sequence[Column]:
        """Those that were asked for, the usual ones otherwise. kind: the descriptor of the rows.

        Raises UsageError for one that is not there.
        """
        return picked(columns, kind, output.columns) if output.columns else columns

    def show_many(
        self, rows: Sequence[Any], columns: Sequence[Column], output: Output,
        nothing: str = "nothing found", kind: Any = None,
    ) -> None:  # fmt: skip
        """Prints rows; says on stderr when there are none, where people read. kind: their
        descriptor, which counts when there are none."""
        self._show(Answer(rows, columns, output, nothing, of=kind))

    def show_one(self, row: Any, columns: Sequence[Column], output: Output) -> None:
        """Prints one row."""
        self._show(Answer([row], columns, output, is_one=True))

    def _show(self, answer: Answer) -> None:
        if self.sink is not None:
            self.sink.take(answer)
        else:
            self.show(answer)

    def show(self, answer: Answer) -> None:
        """Prints an answer, wherever it has come through."""
        output, rows = answer.output, answer.rows
        if not rows and output.for_people:
            click.echo(answer.nothing, err=True)
            return
        told = answer.columns
        if rows or answer.of is not None:
            told = self.columns(output, told, answer.kind)
        view = self.view(output)
        text = one(rows[0], told, view) if answer.is_one and rows else many(rows, told, view)
        self.put(text)

    def put(self, text: str) -> None:
        """Prints a text that is all there is to say; through the pager where one is wanted."""
        if self.page is not None:
            self.page(text)
        else:
            click.echo(text, nl=False)

    @property
    def can_ask(self) -> bool:
        """Whether somebody would answer a question."""
        if self.asks is not None:
            return self.asks
        return sys.stdin is not None and sys.stdin.isatty()  # None: it was closed from the start

    def say(self, sentence: str) -> None:
        """Says what was done."""
        if not self.quiet:
            click.echo(clean_lines(sentence))

    def note(self, sentence: str) -> None:
        """Says on stderr what is good to know."""
        if not self.quiet:
            click.echo(clean_lines(sentence), err=True)

    def complain(self, error: Exception) -> None:
        """Says on stderr what went wrong, of the options that were typed."""
        context = click.get_current_context(silent=True)
        if context is not None and hasattr(error, "field"):
            from shell.commands.fields import told_of_options

            told_of_options(error, context.command)
        told = failures.report(error, self.coloured(sys.stderr), as_json=self.errors_as_json)
        click.echo(told, nl=False, err=True, color=True)

    def board(self, titles: Sequence[str]) -> Board:
        """Shows on stderr how far things are."""
        return Board(titles, sys.stderr, self.coloured(sys.stderr), quiet=self.quiet)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks; returns when the answer is yes. Raises Declined, also when nobody can be asked."""
        if yes or not self.confirms:
            return
        if not self.can_ask:
            raise Declined(f"{question} Nobody can answer here: add --yes if you mean it.")
        if self.ask(f"{question} [y/N] ").lower() not in ("y", "yes"):
            raise Declined("nothing was changed")

    def ask(self, question: str) -> str:
        """What somebody answers. Ctrl-C says that nothing was changed and ends the command."""
        try:
            click.echo(question, nl=False, err=True)
            return sys.stdin.readline().strip()
        except KeyboardInterrupt:
            click.echo("\nnothing was changed", err=True)
            raise click.exceptions.Exit(failures.INTERRUPTED) from None


def coloured(stream: Any) -> bool:
    """Whether a stream wants colours, as the environment and the terminal have it."""
    if "NO_COLOR" in os.environ:
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"

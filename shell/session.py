"""One run of the shell: which cluster it talks to, how it shows things, what it asks before it
acts. Connects when a command first needs the cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shell.choices import picked
from shell.failures import Declined
from shell.render import Column, Output, View, many, one

if TYPE_CHECKING:
    from pvc_client import Cluster

LOCAL = "unix:/run/pvc/pvc.sock"
PIPE_WIDTH = 200
"""Width of a table that no terminal shows: nothing is cut."""


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
        self.address = connection or os.environ.get("PVC_CONNECTION", "") or LOCAL
        self._token_file = token_file
        self._ca = ca or os.environ.get("PVC_CA", "")
        self._colour = colour
        self._timeout_s = timeout_s

    @cached_property
    def cluster(self) -> Cluster:
        """The connection."""
        from pvc_client import Cluster

        token, ca = self._token(), self._ca or None
        try:
            return Cluster(self.address, token=token, ca=ca, timeout_s=self._timeout_s)
        except OSError as error:
            raise click.UsageError(f"the CA's file cannot be read: {error}") from None

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if "cluster" in self.__dict__:
            self.__dict__.pop("cluster").close()

    def _token(self) -> str:
        where, secret = "PVC_TOKEN", os.environ.get("PVC_TOKEN", "").strip()
        if self._token_file:
            where = self._token_file
            try:
                secret = Path(where).read_text(errors="replace").strip()
            except OSError as error:
                raise click.UsageError(f"the token file cannot be read: {error}") from None
        if not (secret.isascii() and (secret.isprintable() or not secret)):
            raise click.UsageError(f"{where} holds no token: a token is one line of ASCII")
        return secret

    def coloured(self, stream: Any) -> bool:
        """Whether to use colours on a stream."""
        if self._colour is not None:
            return self._colour
        return "NO_COLOR" not in os.environ and bool(stream.isatty())

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
        nothing: str = "nothing found",
    ) -> None:  # fmt: skip
        """Prints rows; says on stderr when there are none, where people read."""
        if not rows and output.for_people:
            click.echo(nothing, err=True)
            return
        told = self.columns(output, columns, rows[0].DESCRIPTOR) if rows else columns
        click.echo(many(rows, told, self.view(output)), nl=False)

    def show_one(self, row: Any, columns: Sequence[Column], output: Output) -> None:
        """Prints one row."""
        told = self.columns(output, columns, row.DESCRIPTOR)
        click.echo(one(row, told, self.view(output)), nl=False)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks; returns when the answer is yes. Raises Declined, also when nobody can be asked."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise Declined(f"{question} Nobody can answer here: add --yes if you mean it.")
        click.echo(f"{question} [y/N] ", nl=False, err=True)
        answer = sys.stdin.readline().strip().lower()
        if answer not in ("y", "yes"):
            raise Declined("nothing was changed")

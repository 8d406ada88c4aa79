"""`pvc-shell`: the commands of `pvc` at a prompt of their own, with history and completion.

The tree of commands is the only grammar; whatever `pvc` can do, a line here can do.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from shell.failures import DONE, FAILED, USAGE
from shell.language.script import batch
from shell.live import LiveNames
from shell.main import pvc, run
from shell.session import Session
from shell.suggest import place_of, suggestions
from shell.tree import names_in

LEAVING = ("exit", "quit")
HELP_WIDTH = 60


class TreeCompleter(Completer):
    """Completes from the tree of commands and the names that are known."""

    def __init__(self, names: LiveNames) -> None:
        self._names = names

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """See Completer."""
        text = document.text_before_cursor
        word = place_of(pvc, text).word
        for one in suggestions(pvc, text, self._names.find):
            help = one.help.partition("\n")[0][:HELP_WIDTH]
            yield Completion(one.text, -len(word), display_meta=help)


class Shell:
    """A prompt. Runs lines one after the other over one connection."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.code = DONE
        """Of the last command."""

    def run_line(self, line: str) -> bool:
        """Runs a line; False when it asks to leave. What goes wrong is said and ends nothing."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            click.echo(f"error: {error}", err=True)
            self.code = USAGE
            return True
        if words[:1] == ["pvc"]:
            words = words[1:]
        if words and words[0] in LEAVING:
            return False
        if words:
            self._run(["--help"] if words == ["help"] else words)
        return True

    def _run(self, words: list[str]) -> None:
        try:
            self.code = run(words, self.session)
        except Exception:  # noqa: BLE001 - a mistake of ours must not take the shell away
            traceback.print_exc()
            self.code = FAILED

    def read_all(self, lines: Iterable[str]) -> int:
        """Runs lines of a script, up to the first that fails."""
        for line in lines:
            if not self.run_line(line) or self.code != DONE:
                break
        return self.code

    def prompt_forever(self) -> int:
        """Asks for lines until somebody leaves."""
        names = LiveNames(lambda collection: names_in(self.session, collection))
        prompt: PromptSession[str] = PromptSession(
            history=history(),
            completer=TreeCompleter(names),
            auto_suggest=AutoSuggestFromHistory(),
            complete_while_typing=True,
            enable_history_search=False,
        )
        click.echo("pvc-shell: Tab completes, exit leaves, COMMAND --help explains", err=True)
        while True:
            try:
                line = prompt.prompt(self._message())
            except KeyboardInterrupt:
                continue
            except EOFError:
                return DONE
            if not self.run_line(line):
                return DONE

    def _message(self) -> FormattedText:
        style = "ansigreen" if self.code == DONE else "ansired"
        return FormattedText([(style, "pvc"), ("", "> ")])


def history() -> History:
    """The lines of earlier days, for this user's eyes alone; only this session's if that fails."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    path = Path(base) / "pvc" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError as error:
        click.echo(f"no history is kept: {error}", err=True)
        return InMemoryHistory()
    return FileHistory(str(path))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--connection", metavar="ADDRESS", help="As for pvc. Env: PVC_CONNECTION.")
@click.option("--token-file", type=click.Path(dir_okay=False), help="As for pvc.")
@click.option("--ca", type=click.Path(dir_okay=False), help="As for pvc. Env: PVC_CA.")
@click.option("-e", "--execute", "lines", multiple=True, metavar="LINE", help="Run this line.")
@click.option("--keep-going", is_flag=True, help="Go on after errors; the first gives the code.")
@click.argument("script", required=False, type=click.Path(exists=True, dir_okay=False,
                                                          allow_dash=True))  # fmt: skip
def shell(
    connection: str | None, token_file: str | None, ca: str | None, lines: tuple[str, ...],
    keep_going: bool, script: str | None,
) -> int:  # fmt: skip
    """Run the commands of pvc at a prompt, from SCRIPT, or from standard input.

    A script stops at the first error, says where, and ends with that one's exit code.
    """
    session = Session(connection or "", token_file or "", ca or "")
    try:
        if script or lines or not sys.stdin.isatty():
            return batch(session, script or "", lines, keep_going=keep_going)
        return Shell(session).prompt_forever()
    finally:
        session.close()


def main() -> None:
    """The entry point."""
    try:
        sys.exit(shell.main(prog_name="pvc-shell", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)

"""`pvc-shell`: the commands of `pvc` at a prompt of their own, from a script, or from stdin.

The tree of commands is the only grammar; whatever `pvc` can do, a line here can do.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import nullcontext

import click

from shell.failures import DONE, FAILED, USAGE
from shell.language.runner import Runner
from shell.language.script import batch
from shell.language.words import Word, tokens
from shell.main import pvc
from shell.prompt.pager import paged, show
from shell.session import Session


class Shell:
    """A prompt, and what runs the lines that are typed at it."""

    def __init__(self, session: Session) -> None:
        from shell.prompt.screen import Screen

        self.runner = Runner(session, interactive=True)
        self.screen = Screen(pvc, session, self.runner, self.runner.settings)
        self.runner.history = self.screen.lines

    def prompt_forever(self) -> int:
        """Asks for lines until somebody leaves; gives the exit code."""
        try:
            while not self.runner.is_leaving:
                self._once()
        except EOFError:
            return DONE
        finally:
            self.screen.close()
        return self.runner.code

    def _once(self) -> None:
        """Asks for a line and runs it. Raises EOFError when there is none."""
        runner, screen = self.runner, self.screen
        screen.code = runner.code
        try:
            line = screen.ask()
        except KeyboardInterrupt:
            return
        screen.title(line)
        pages = runner.settings.is_on("pager")
        runner.session.page = show if pages else None
        try:
            with paged() if pages and asks_for_help(line) else nullcontext():
                runner.run_line(line)
        except KeyboardInterrupt:
            click.echo("", err=True)
        except Exception:  # noqa: BLE001 - a mistake of ours must not take the shell away
            traceback.print_exc()
            runner.code = FAILED


def asks_for_help(line: str) -> bool:
    """Whether a line is a question for help and nothing else: the answer may be long."""
    words = [one for one in tokens(line) if isinstance(one, Word)]
    if not words or len(words) < len(list(tokens(line))):
        return False
    return words[0].text == "help" or any(one.text in ("--help", "-h") for one in words)


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
        if script or lines or not (sys.stdin and sys.stdin.isatty()):
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

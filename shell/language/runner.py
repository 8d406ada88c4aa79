"""Runs what lines say: over one session, in one context, with the user's aliases and settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import click

from shell import main
from shell.choices import did_you_mean
from shell.failures import DONE, USAGE
from shell.language.builtins import FOLLOWED, builtins
from shell.language.context import Context, after, located, placed
from shell.language.expand import expanded, stands_for
from shell.language.flow import through
from shell.language.line import Stage as Written
from shell.language.line import Statement, has_arrow, parse, without_mark
from shell.language.settings import SETTINGS, Settings
from shell.language.stages import Stage, made
from shell.language.stages import stages as stage_commands
from shell.language.target import written_to
from shell.language.words import WHERE, SyntaxProblem, Word
from shell.session import Session

FILTERS = ("filter", "pattern")
"""Parameters in which > compares."""
COMPARING = ("grep", WHERE)
"""Stages in which > is no sign of a file."""


def tell(text: str) -> None:
    """Says something on stderr."""
    click.echo(text, err=True)


class Runner:
    """What a prompt or a script needs: run a line, and know how it ended."""

    def __init__(
        self, session: Session, *, interactive: bool = False, settings: Settings | None = None
    ) -> None:
        """interactive: somebody types, and can be asked. Scripts see no settings but their own."""
        self.session, self.interactive = session, interactive
        self.settings = settings or Settings(tell=tell, only_given=not interactive)
        self.used = Context()
        self.code = DONE
        """Of the last command."""
        self.is_leaving = False
        """Somebody said exit."""
        self.history: Callable[[], Sequence[str]] = tuple
        """The lines of this prompt, the oldest first."""
        self.statement: Statement | None = None
        """What runs now."""
        self.sources: tuple[str, ...] = ()
        """The files that are being read, each from within the one before."""
        session.on_end = self._follow
        self.settle()

    def _follow(self, operation: Any, result: Any) -> None:
        """Goes on with what is used under its new name; without it when it is gone."""
        self.used = after(self.used, operation, result)

    def settle(self) -> None:
        """Does as the settings say."""
        self.session.confirms = self.settings.is_on("confirm")
        self.session.asks = None if self.interactive else False
        wanted = {"on": True, "off": False}.get(self.settings["colour"])
        if wanted is not None or self.settings.was_given("colour"):
            self.session.colour = wanted

    def run_line(self, text: str) -> int:
        """Runs what was typed, up to the first that fails; gives the exit code of the last."""
        try:
            statements = parse(text)
        except SyntaxProblem as problem:
            tell(f"error: {problem.pointed(text)}")
            self.code = USAGE
            return self.code
        for statement in statements:
            code = self.run(statement)
            if self.is_leaving or (code != DONE and self.stops_at_errors):
                break
        return self.code

    @property
    def stops_at_errors(self) -> bool:
        """Whether what follows an error is left alone."""
        return self.settings["on-error"] == "stop"

    def run(self, statement: Statement) -> int:
        """Runs a statement; says on stderr what goes wrong; gives the exit code."""
        began, words = time.monotonic(), statement.command.texts
        switches = self.session.switches
        self.code = main.ended(partial(self._run, statement), words, self.session)
        if self.session.switches != switches:
            self.used = Context()  # what was used is of another cluster
        if self.settings.is_on("timing"):
            tell(f"{time.monotonic() - began:.2f} s")
        return self.code

    def _run(self, statement: Statement) -> Any:
        for one in self._meant(statement):
            outcome = self._one(one)
            if isinstance(outcome, int) and outcome != DONE:
                return outcome
        return DONE

    def _meant(self, statement: Statement) -> list[Statement]:
        if statement.is_query:
            first, *given = statement.command.words
            return self.query(first.text, given, statement)
        return expanded(statement, self._aliases())

    def _aliases(self) -> Mapping[str, str]:
        """Those that no command of the context's group goes before."""
        found = self.settings.aliases
        if not self.used:
            return found
        return {n: body for n, body in found.items() if len(self._path([self.used.kind, n])) < 2}

    def _path(self, words: Sequence[str]) -> list[str]:
        return located(main.pvc, words)[1]

    def query(self, name: str, given: Sequence[Word], statement: Statement) -> list[Statement]:
        """What a saved query stands for. Raises UsageError."""
        if name not in self.settings.queries:
            known = ", ".join(self.settings.queries) or "none"
            raise click.UsageError(f"there is no saved query {name!r}; there are: {known}")
        body = self.settings.queries[name]
        meant = stands_for(statement, name, body, given)
        return [inner for one in meant for inner in expanded(one, self._aliases())]

    def _one(self, statement: Statement) -> Any:
        """A statement that stands for nothing else."""
        if statement.body:
            return self._define(statement)
        words = self.words_of(statement)
        _check_arrows(statement, words)
        if statement.command.is_foreign:
            from shell.language.foreign import run

            self._need_prompt()
            call: Callable[[], Any] = partial(
                run, words, captured=bool(statement.stages or statement.target)
            )
            return self._led(statement, call, gives_rows=False)
        if is_builtin(words[0]):
            self.statement = statement
            call = partial(call_builtin, words, self)
            if words[0] in FOLLOWED:
                return call()
            return self._led(statement, call, gives_rows=False)
        self._check_known(words)
        call = partial(main.call, words, self.session, self.defaults(words))
        return self._led(statement, call, gives_rows=gives_rows(words))

    def _check_known(self, words: Sequence[str]) -> None:
        """Raises UsageError for what is no command anywhere, with what was probably meant."""
        name = words[0]
        if name.startswith("-") or self._path([name]):
            return
        known = [*main.pvc.list_commands(click.Context(main.pvc)), *main.ALIASES,
                 *builtins.commands, *builtins.aliases, *self.settings.aliases]  # fmt: skip
        if self.used:
            group = located(main.pvc, [self.used.kind])[0]
            assert isinstance(group, click.Group)
            known += group.list_commands(click.Context(group))
        near = get_close_matches(name, known, 2)
        meant = main.pvc.meant(click.Context(main.pvc), words)
        if " " in meant or not near:
            near = [meant] if meant else []
        raise click.UsageError(f"there is no command {name!r}{did_you_mean(near)}")

    def words_of(self, statement: Statement) -> list[str]:
        """The words of the command as the tree takes them."""
        words = statement.command.texts
        if statement.command.is_foreign or is_builtin(words[0]):
            return words
        return placed(main.pvc, self.used, words)

    def _led(self, statement: Statement, call: Callable[[], Any], *, gives_rows: bool) -> Any:
        """Runs it with its answer led to where the statement says."""
        if not statement.stages and statement.target is None:
            return call()
        stages = self._stages(statement, gives_rows)
        led = partial(through, self.session, stages, call)
        if statement.target is None:
            return led()
        return written_to(statement.target, self.session, led)

    def _stages(self, statement: Statement, gives_rows: bool) -> list[Stage]:
        """What the answer goes through. Raises UsageError before anything has run."""
        found: list[Stage] = []
        for place, one in enumerate(statement.stages):
            is_last = place == len(statement.stages) - 1 and statement.target is None
            stage = self._foreign(one, is_last) if one.is_foreign else made(one)
            if stage.needs_rows and not gives_rows:
                raise click.UsageError(
                    f"{one.texts[0]} needs rows, and what comes before it gives lines of text; "
                    "those go through grep, sort, head, tail and count"
                )
            gives_rows = gives_rows and not stage.gives_text
            found.append(stage)
        return found

    def _foreign(self, written: Written, is_last: bool) -> Stage:
        from shell.language.foreign import Foreign

        self._need_prompt()
        return Foreign(written.texts, is_last=is_last)

    def _need_prompt(self) -> None:
        if not self.interactive or self.sources:
            raise click.UsageError("! runs commands of this machine at the prompt, not in scripts")

    def _define(self, statement: Statement) -> None:
        """Keeps an alias or a saved query."""
        kind, name = statement.command.texts
        if kind == "alias":
            taken = is_builtin(name) or name in stage_commands.commands
            if taken or self._path([name]):
                raise click.UsageError(f"{name} is a command already; choose another name")
            aliases = {**self.settings.aliases, name: statement.body}
            for one in parse(statement.body):
                expanded(one, aliases, (name,))
        self.settings.define("aliases" if kind == "alias" else "queries", name, statement.body)

    def defaults(self, words: Sequence[str]) -> dict[str, Any] | None:
        """Defaults of the options of the command that the words lead to."""
        format = self.settings["format"]
        if format == "table":
            return None
        command, path, _ = located(main.pvc, words)
        if not _has_format(command):
            return None
        found: dict[str, Any] = {"format": format}
        for name in reversed(path):
            found = {name: found}
        return found

    def inner(self, number: int) -> Statement:
        """What runs now, without all but so many of the words at its command's end."""
        assert self.statement is not None and number > 0
        first, *rest = self.statement.command.words[-number:]
        foreign = first.text.startswith("!") and not first.is_quoted and len(first.text) > 1
        words = (without_mark(first) if foreign else first, *rest)
        return replace(self.statement, command=Written(words, foreign))

    # What the screen asks; see shell.prompt.speech.

    builtins = builtins
    stages = stage_commands

    @property
    def context(self) -> str:
        """What is used: "vm/web"; "" for nothing."""
        return str(self.used)

    @property
    def place(self) -> Sequence[str]:
        """The group that commands are looked for in first."""
        return (self.used.kind,) if self.used else ()

    def expanded(self, words: Sequence[str]) -> list[str]:
        """The words of a command, finished or not, as the tree takes them."""
        if not words:
            return []
        statement = Statement(Written(tuple(Word(word) for word in words)))
        try:
            statement = expanded(statement, self._aliases())[-1]
            return self.words_of(statement)
        except click.ClickException:
            return list(words)

    def aliases(self) -> Sequence[tuple[str, str]]:
        """The user's own words, with what they stand for."""
        return list(self.settings.aliases.items())

    def queries(self) -> Sequence[tuple[str, str]]:
        """Saved queries, with what they stand for."""
        return list(self.settings.queries.items())

    def values(self, setting: str) -> Sequence[tuple[str, str]]:
        """What a setting may be."""
        found = SETTINGS.get(setting)
        return [(choice, "") for choice in found.choices] if found is not None else []


def _check_arrows(statement: Statement, words: Sequence[str]) -> None:
    """Raises UsageError for a > within a word where none is expected: probably a file was meant."""
    command = statement.command
    takes = command.is_foreign or words[0] in FOLLOWED or takes_filter(words)
    others = [one for one in statement.stages if not (one.is_foreign or one.texts[0] in COMPARING)]
    for stage in [*([] if takes else [command]), *others]:
        for text in (word.text for word in stage.words if has_arrow(word)):
            before, _, file = text.partition(">")
            raise click.UsageError(
                f"{text}: to write to a file leave a blank before >: {before} > {file}; "
                "to say > put it in quotes"
            )


def takes_filter(words: Sequence[str]) -> bool:
    """Whether the command that the words lead to takes filters."""
    return any(one.name in FILTERS for one in located(main.pvc, words)[0].params)


def is_builtin(name: str) -> bool:
    """Whether it is a command of the shell itself."""
    return name in builtins.commands or name in builtins.aliases


def call_builtin(words: Sequence[str], runner: Runner) -> Any:
    """Runs a command of the shell itself."""
    return builtins.main(list(words), prog_name="pvc-shell", standalone_mode=False, obj=runner)


def gives_rows(words: Sequence[str]) -> bool:
    """Whether the command that the words lead to can show rows."""
    return _has_format(located(main.pvc, words)[0])


def _has_format(command: click.Command) -> bool:
    return any(one.name == "format" for one in command.params)

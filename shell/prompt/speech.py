"""What the screen has to know of the language of the prompt beyond the tree of commands: what a
context and aliases make of the words of a line, what may begin a line, what may follow a `|`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import click


class Speech(Protocol):
    """The language as the screen sees it. Every question is answered at once, from memory."""

    @property
    def builtins(self) -> click.Group | None:
        """Commands of the prompt itself: use, alias, exit … with their arguments and help. An
        argument with live names has `collection` on its shell_complete like any other, or
        `collection_of(words before it)`."""
        ...

    @property
    def stages(self) -> click.Group | None:
        """What may follow a `|`: grep, where, sort … Arguments called columns, field or condition
        are completed with what the command before shows."""
        ...

    @property
    def context(self) -> str:
        """What the prompt shows of the context: "vm/web"; "" for none."""
        ...

    @property
    def place(self) -> Sequence[str]:
        """The group that the context brings one into: ("vm",); () for none."""
        ...

    def expanded(self, words: Sequence[str]) -> list[str]:
        """The words of a command as the tree takes them: aliases replaced, the context's group and
        name put in. Words of an unfinished line are fine; what cannot be told stays as it is."""
        ...

    def aliases(self) -> Sequence[tuple[str, str]]:
        """The user's own words, with what they stand for."""
        ...

    def queries(self) -> Sequence[tuple[str, str]]:
        """Saved queries, with what they stand for."""
        ...

    def values(self, setting: str) -> Sequence[tuple[str, str]]:
        """What a setting may be."""
        ...


class Settings(Protocol):
    """How the user wants the prompt to behave."""

    def __getitem__(self, key: str) -> str:
        """What holds for a setting."""
        ...

    def set(self, key: str, value: str, *, keep: bool = False) -> tuple[str, str]:
        """Sets something for this shell. Raises UsageError."""
        ...


class Plain:
    """A language with nothing in it but the tree."""

    builtins: click.Group | None = None
    stages: click.Group | None = None
    context = ""
    place: Sequence[str] = ()

    def expanded(self, words: Sequence[str]) -> list[str]:
        """The words but for a `pvc` that was typed out of habit."""
        return list(words[1:] if words[:1] == ["pvc"] else words)

    def aliases(self) -> Sequence[tuple[str, str]]:
        """None."""
        return ()

    def queries(self) -> Sequence[tuple[str, str]]:
        """None."""
        return ()

    def values(self, setting: str) -> Sequence[tuple[str, str]]:
        """None."""
        return ()

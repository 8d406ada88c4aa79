"""What a user has told `pvc-shell` once and for all: settings, aliases, saved queries, in
~/.config/pvc/shell.toml. The screen and the language share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from shell.render import FORMATS
from shell.toml_file import BadFile, TomlFile, config_dir

ON_OFF = ("on", "off")
FILE = "shell.toml"
HEADLINES = {"settings": "settings", "aliases": "aliases", "queries": "saved queries"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set."""

    choices: tuple[str, ...]
    default: str
    help: str


SETTINGS: Mapping[str, Setting] = {
    "keys": Setting(("emacs", "vi"), "emacs", "Whose keys edit a line."),
    "format": Setting(FORMATS, "table", "How answers are shown when -f does not say it."),
    "colour": Setting(("auto", *ON_OFF), "auto", "Colours: on terminals, always, never."),
    "pager": Setting(ON_OFF, "on", "Answers longer than the screen go through a pager."),
    "confirm": Setting(ON_OFF, "on", "Ask before something is lost; off means yes."),
    "history": Setting(
        ("shared", "connection", "none"), "shared", "Which earlier lines are remembered."
    ),
    "complete": Setting(ON_OFF, "on", "Offer what could come next while you type."),
    "help": Setting(ON_OFF, "on", "Explain below the line what is typed."),
    "title": Setting(ON_OFF, "on", "Say in the terminal's title where one is."),
    "timing": Setting(ON_OFF, "off", "Say how long each command took."),
    "on-error": Setting(("stop", "continue"), "stop", "What a script does after an error."),
}
_SPELLINGS = {"color": "colour", "yes": "on", "true": "on", "no": "off", "false": "off"}


class Settings:
    """Settings as they hold now, with aliases and saved queries as they are in the file.

    A setting that was set holds for this shell; `keep` writes it down for later ones too.
    """

    def __init__(
        self,
        path: Path | None = None,
        tell: Callable[[str], None] | None = None,
        only_given: bool = False,
    ) -> None:
        """tell: says what is wrong with the file, once; nothing kept holds then.

        only_given: what was kept does not hold, but for aliases and queries.
        """
        self._only_given = only_given
        self._file = TomlFile(path or config_dir() / FILE)
        self._given: dict[str, str] = {}
        self._kept: dict[str, dict[str, str]] = {kind: {} for kind in HEADLINES}
        try:
            self._load()
        except BadFile as error:
            if tell is None:
                raise
            tell(error.format_message())

    def __getitem__(self, key: str) -> str:
        """What holds for a setting."""
        kept = {} if self._only_given else self._kept["settings"]
        return self._given.get(key, kept.get(key, SETTINGS[key].default))

    def was_given(self, key: str) -> bool:
        """Whether it was set in this shell."""
        return key in self._given

    def is_on(self, key: str) -> bool:
        """Whether a setting is on."""
        return self[key] == "on"

    def set(self, key: str, value: str, *, keep: bool = False) -> tuple[str, str]:
        """Sets something; gives its name and value as they are spelled. Raises UsageError."""
        key, value = valid(key, value)
        if keep:
            with self._file.changed() as document:
                _table(document, "settings")[key] = value
            self._kept["settings"][key] = value
        self._given[key] = value
        return key, value

    @property
    def aliases(self) -> Mapping[str, str]:
        """Name → what it stands for."""
        return self._kept["aliases"]

    @property
    def queries(self) -> Mapping[str, str]:
        """The saved ones: name → command."""
        return self._kept["queries"]

    def define(self, kind: str, name: str, body: str) -> None:
        """Keeps an alias ("aliases") or a query ("queries")."""
        with self._file.changed() as document:
            _table(document, kind)[name] = body
        self._load()

    def forget(self, kind: str, name: str) -> None:
        """Removes one. Raises UsageError when there is none."""
        with self._file.changed() as document:
            if name not in document.get(kind, {}):
                known = ", ".join(document.get(kind, {})) or "none"
                raise click.UsageError(f"there is no {name!r} among the {HEADLINES[kind]}: {known}")
            del document[kind][name]
        self._load()

    def _load(self) -> None:
        """Reads the file. Other shells may have changed it. Raises BadFile."""
        found = self._file.read()
        for kind in HEADLINES:
            table = found.get(kind, {})
            if not isinstance(table, dict):
                raise self._wrong(f"{kind} must be a table: [{kind}]")
            for key, value in table.items():
                if not isinstance(value, str):
                    raise self._wrong(f"{kind}.{key} must be a text in quotes")
            self._kept[kind] = dict(table)
        for key, value in found.get("settings", {}).items():
            try:
                valid(key, value)
            except click.UsageError as error:
                raise self._wrong(error.format_message()) from None

    def _wrong(self, what: str) -> BadFile:
        return BadFile(f"{self._file.path}: {what}")


def valid(key: str, value: str) -> tuple[str, str]:
    """A setting and its value as they are spelled. Raises UsageError naming what there is."""
    key = _SPELLINGS.get(key, key).replace("_", "-")
    if key not in SETTINGS:
        raise click.UsageError(f"there is no setting {key!r}; there are: {', '.join(SETTINGS)}")
    choices = SETTINGS[key].choices
    word = value.lower()
    for one in (word, _SPELLINGS.get(word, word)):
        if one in choices:
            return key, one
    raise click.UsageError(f"{key} is one of {', '.join(choices)}, not {value!r}")


def _table(document: Any, name: str) -> Any:
    """A table of the document, made if it is not there."""
    import tomlkit

    if name not in document:
        document[name] = tomlkit.table()
    return document[name]

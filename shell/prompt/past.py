"""The lines of earlier days: kept in a file for this user's eyes alone, each once, without
secrets."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History

from shell.language.words import Mark, tokens
from shell.prompt.completer import displayed
from shell.prompt.fuzzy import Fit, Match, matched
from shell.prompt.offers import Offer

KEPT_MAX = 5000
"""Lines that are kept; the file may grow to twice that before it is made small again."""
FOUND_MAX = 50
_SECRET_OPTION = re.compile(r"--?(?:[a-z]+-)*(?:password|passwd|secret|token|key)$")
_SECRET = re.compile(r"[A-Za-z0-9._-]+~[0-9a-z]{20,}$|(?=.*\d)(?=.*[a-z])[A-Za-z0-9_+/=-]{64,}$")
"""What looks like the secret of a token."""


def without_secrets(line: str) -> str:
    """The line without values of options that take secrets, and without what looks like one."""
    cuts: list[tuple[int, int]] = []
    hidden = False
    for token in tokens(line):
        if isinstance(token, Mark):
            hidden = False
            continue
        option, equals, _ = token.text.partition("=")
        if hidden or _SECRET.match(token.text):
            cuts.append((token.begin, token.end))
            hidden = False
        elif _SECRET_OPTION.match(option):
            if equals:
                cuts.append((token.begin + len(option) + 1, token.end))
            hidden = not equals
    for begin, end in reversed(cuts):
        line = line[:begin] + line[end:]
    return line.rstrip() if cuts else line


class Past(History):
    """Lines, the newest last. Several shells may share the file."""

    def __init__(self, path: Path | None) -> None:
        """path: None keeps nothing beyond the session."""
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """The newest first, each once."""
        lines = read(self._path) if self._path is not None else []
        newest = list(dict.fromkeys(reversed(lines)))
        if self._path is not None and len(lines) > 2 * KEPT_MAX:
            rewrite(self._path, newest[KEPT_MAX - 1 :: -1])
        return newest[:KEPT_MAX]

    def append_string(self, string: str) -> None:
        """Keeps a line, unless it begins with a blank; an older one like it goes."""
        if string[:1].isspace():
            return
        kept = without_secrets(string)
        if not kept.strip():
            return
        if kept in self._loaded_strings:
            self._loaded_strings.remove(kept)
        super().append_string(kept)

    def store_string(self, string: str) -> None:
        """See History."""
        if self._path is None:
            return
        entry = "\n# \n" + "".join(f"+{line}\n" for line in string.split("\n"))
        with (
            contextlib.suppress(OSError),
            self._path.open(  # a full disk must not end the session
                "a", encoding="utf-8", errors="surrogateescape"
            ) as file,
        ):
            file.write(entry)


def read(path: Path) -> list[str]:
    """The lines in a file, the oldest first."""
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except OSError:
        return []
    found: list[str] = []
    entry: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("+"):
            entry.append(line[1:])
        elif entry:
            found.append("\n".join(entry))
            entry = []
    return found


def rewrite(path: Path, lines: Sequence[str]) -> None:
    """Puts these lines in the place of all that is in the file."""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".history")
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            for line in lines:
                file.write("\n# \n" + "".join(f"+{one}\n" for one in line.split("\n")))
        Path(name).replace(path)


def history_path(connection: str = "") -> Path | None:
    """The file of a connection, or the one that all share; None when there can be none."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    named = re.sub(r"[^A-Za-z0-9._-]", "_", connection)
    path = Path(base) / "pvc" / (f"history-{named}" if named else "history")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError:
        return None
    return path


def found_in(lines: Sequence[str], typed: str) -> list[tuple[str, Match]]:
    """The lines that fit, those that hold it as it is first, the newest of each first."""
    near: list[tuple[str, Match]] = []
    far: list[tuple[str, Match]] = []
    for line in dict.fromkeys(reversed(lines)):
        match = matched(line.replace("\n", " "), typed)
        if match is not None:
            (far if match.fit is Fit.SCATTERED else near).append((line, match))
        if len(near) >= FOUND_MAX:
            break
    return (near + far)[:FOUND_MAX]


class PastCompleter(Completer):
    """The menu of Ctrl-R: whole lines that fit what is typed."""

    def __init__(self, past: History) -> None:
        self._past = past

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """See Completer."""
        typed = document.text
        for line, match in found_in(self._past.get_strings(), typed):
            shown = displayed(Offer(line.replace("\n", " "), match=match))
            yield Completion(line, -len(document.text_before_cursor), FormattedText(shown))

"""Logs of what real tests start: their ends stand beside the failure that they explain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

END_BYTES = 6_000
"""So much of each is shown."""
ALL_BYTES = 200_000
"""And so much together; those that were written last come first."""

_followed: list[tuple[Path, tuple[str, ...]]] = []
_kept: list[tuple[str, str]] = []
"""Of what has been removed since, because it failed."""


@contextmanager
def followed(folder: Path, *patterns: str) -> Iterator[None]:
    """While the block lasts, and when it fails, the files below the folder belong to what failed.

    patterns: as Path.glob takes them.
    """
    entry = (folder, patterns)
    _followed.append(entry)
    try:
        yield
    except BaseException:
        _kept.extend(_ends([entry]))
        raise
    finally:
        _followed.remove(entry)


def ends() -> list[tuple[str, str]]:
    """(title, text) of each; once only of those that are gone."""
    found = [*_kept, *_ends(_followed)]
    _kept.clear()
    return found


def _ends(entries: list[tuple[Path, tuple[str, ...]]]) -> list[tuple[str, str]]:
    paths = {path for folder, patterns in entries for one in patterns for path in folder.glob(one)}
    dated = sorted(((_written(path), path) for path in paths), reverse=True)
    found, room = [], ALL_BYTES
    for written, path in dated:
        text = _end_of(path)[-room:] if written and room > 0 else ""
        if text:
            found.append((f"end of {path}", text))
            room -= len(text)
    return found


def _written(path: Path) -> float:
    """0 of what is no file, or none any more."""
    try:
        return path.stat().st_mtime if path.is_file() else 0.0
    except OSError:
        return 0.0


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - END_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:
        return f"(it cannot be read: {error})"

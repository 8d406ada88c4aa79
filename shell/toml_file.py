"""One TOML file of the user's: read, and changed by one writer at a time, whole or not at all.

What people wrote into it stays, comments too. A file that cannot be read is never overwritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

LOCK_S = 5.0
"""How long another writer is waited for."""
PAUSE_S = 0.02


class BadFile(click.ClickException):
    """A file that cannot be read or written: which, where in it, what to do."""


def config_dir() -> Path:
    """Where the user's files are. Env: PVC_CONFIG_DIR, else XDG_CONFIG_HOME/pvc."""
    if own := os.environ.get("PVC_CONFIG_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "pvc"


class TomlFile:
    """A file for this user's eyes alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """All that is in it; nothing when it is not there. Raises BadFile."""
        return self._loaded(self._text())

    def _loaded(self, text: str) -> dict[str, Any]:
        if not text:
            return {}
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            end = f"at line {len(text.splitlines())}, the end"
            raise self._broken(str(error).replace("at end of document", end)) from None

    def is_private(self) -> bool:
        """Whether nobody else can read it."""
        try:
            return not self.path.stat().st_mode & 0o077
        except OSError:
            return True

    @contextlib.contextmanager
    def changed(self) -> Iterator[Any]:
        """The file as a TOML document (a mapping) to be changed; written when the block ends well.

        Raises BadFile, and then nothing has changed.
        """
        import tomlkit
        from tomlkit.exceptions import ParseError

        with self._locked():
            before = self._text()
            self._loaded(before)
            try:
                document = tomlkit.parse(before)
            except ParseError as error:
                raise self._broken(str(error)) from None
            yield document
            after = tomlkit.dumps(document)
            self._loaded(after)  # what is written can be read
            if after != before:
                self._write(after)

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise self._broken(f"line {line} is no text in UTF-8") from None
        except OSError as error:
            raise BadFile(f"{self.path} cannot be read: {error.strerror}") from None

    def _broken(self, why: str) -> BadFile:
        return BadFile(
            f"{self.path} is no TOML: {why}. Mend it, or move it away; it was left as it is."
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the file. The lock goes with the process, so that nobody need clean up."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(folder / f".{self.path.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadFile(f"{self.path} cannot be changed: {error}") from None
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        end = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BadFile(
                        f"another program has been changing {self.path} for {LOCK_S:.0f} s; "
                        "nothing was changed, try again"
                    ) from None
            time.sleep(PAUSE_S)

    def _write(self, text: str) -> None:
        """A new file takes the old one's place at once, also where that is a link to another."""
        place = Path(os.path.realpath(self.path))
        fresh = place.parent / f".{place.name}.new"  # under the lock nobody else writes it
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(place)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise BadFile(f"{self.path} cannot be written: {error}; it is as it was") from None

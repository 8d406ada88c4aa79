"""A program in a terminal that is drawn: keys in, the screen as a person sees it out."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
PATHS = ":".join(str(ROOT / part) for part in ("", "clients/python/src", "clients/python/gen"))
GOLDENS = Path(__file__).parent / "goldens"
WAITED_S = 60.0
QUIET_S = 0.15


START = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from {} import main; main()"
"""The terminal becomes the one that the process is controlled by: Ctrl-C reaches it. Done there,
not between fork and exec, where the threads of this process would be half alive."""


class _Screen(pyte.Screen):
    """A screen that keeps what it would answer, and obeys nothing private that it does not know."""

    answers: Callable[[bytes], None] = staticmethod(lambda answer: None)

    def write_process_input(self, data: str) -> None:
        self.answers(data.encode())

    def set_margins(self, top: int | None = None, bottom: int | None = None, **_: bool) -> None:
        """Without the private mode of the same letter, which the original stumbles over."""
        super().set_margins(top, bottom)


class Emulator:
    """A process on a pseudo-terminal of a size."""

    def __init__(
        self, *words: str, home: Path, columns: int = 80, rows: int = 24,
        environment: Mapping[str, str] | None = None, entry: str = "shell.repl",
    ) -> None:  # fmt: skip
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (rows, columns))
        self.before = termios.tcgetattr(self.slave)
        self.screen = _Screen(columns, rows)
        self.screen.answers = self.type
        self._stream = pyte.ByteStream(self.screen)
        self.began, self.home = time.monotonic(), home
        self.process = subprocess.Popen(
            [sys.executable, "-c", START.format(entry), *words],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PATHS, "TERM": "xterm-256color",
                 "HOME": str(home), "LANG": "C.UTF-8", **(environment or {})}, cwd=home,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """The screen without the blanks at the ends of lines."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The screen as a golden file has it."""
        return "\n".join(self.lines).rstrip() + "\n"

    def type(self, keys: bytes | str) -> None:
        """Types keys."""
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def wait_for(
        self, wanted: str | Callable[[str], bool], timeout_s: float = WAITED_S, gone: str = ""
    ) -> None:
        """Until something is on the screen, and something else is not."""
        met = wanted if callable(wanted) else lambda screen: wanted in screen
        end = time.monotonic() + timeout_s
        while not met(self.text) or (gone and gone in self.text):
            left = end - time.monotonic()
            assert left > 0, f"{wanted!r} did not come; the screen:\n{self.text}"
            assert self.read(min(left, 0.2)) or self.process.poll() is None, (
                f"it ended; the screen:\n{self.text}"
            )

    def read(self, wait_s: float = 0.0) -> bool:
        """Draws what has come; False when nothing did."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return False
        self._stream.feed(os.read(self.master, 65536))
        return True

    def settle(self) -> str:
        """The screen once it stays as it is for a moment."""
        while self.read(QUIET_S):
            pass
        return self.text

    def style_of(self, text: str) -> tuple[str, bool, bool]:
        """Colour, bold and underline of the first letter of a text, the lowest on the screen."""
        for row, line in reversed(list(enumerate(self.screen.display))):
            if (column := line.find(text)) >= 0:
                cell = self.screen.buffer[row][column]
                return cell.fg, cell.bold, cell.underscore
        raise AssertionError(f"{text!r} is not on the screen:\n{self.text}")

    def resize(self, columns: int, rows: int) -> None:
        """As if the window was made larger or smaller."""
        termios.tcsetwinsize(self.slave, (rows, columns))
        self.screen.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """Waits for the end of the process."""
        end = time.monotonic() + WAITED_S
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end; the screen:\n{self.text}"
            self.read(0.05)
        while self.read(0.05):
            pass
        return self.process.returncode

    def spent_s(self) -> float:
        """The processor's time that the process has taken so far."""
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until_raw(self) -> None:
        """Until keys go to the program as they are: what is typed before may be lost."""
        end = time.monotonic() + WAITED_S
        while termios.tcgetattr(self.slave)[3] & termios.ICANON:
            assert time.monotonic() < end, f"it is never raw; the screen:\n{self.text}"
            assert self.read(0.02) or self.process.poll() is None, (
                f"it ended; the screen:\n{self.text}"
            )

    def wait_for_style(self, text: str, wanted: Callable[[str], bool]) -> None:
        """Until the first letter of a text has a colour. What a word means may be known later than
        the word is there."""

        def met(screen: str) -> bool:
            return text in screen and wanted(self.style_of(text)[0])

        try:
            self.wait_for(met)
        except AssertionError as error:
            raise AssertionError(f"{self.style_of(text)[0]} is {text!r}: {error}") from None

    def wait_for_page(self, page: str) -> None:
        """Until the screen is as a golden file has it, to the last letter."""
        with contextlib.suppress(AssertionError):
            self.wait_for(lambda screen: screen == page)
        assert self.text.split("\n") == page.split("\n")

    def restored(self) -> bool:
        """Whether the terminal is as it was before."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        """Ends the process, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAITED_S)
        for end in (self.master, self.slave):
            if end >= 0:
                os.close(end)
        self.master = self.slave = -1

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


BETWEEN = "\f\n"
"""What parts the pages of a golden file."""


def golden(name: str, pages: int) -> Sequence[str | None]:
    """The pages of a golden file; as many times None where PVC_GOLDENS=write makes it anew."""
    if os.environ.get("PVC_GOLDENS") == "write":
        return [None] * pages
    found = (GOLDENS / name).read_text("utf-8").split(BETWEEN)
    assert len(found) == pages
    return found


def keep(name: str, pages: Sequence[str]) -> None:
    """Makes a golden file."""
    (GOLDENS / name).write_text(BETWEEN.join(pages), "utf-8")

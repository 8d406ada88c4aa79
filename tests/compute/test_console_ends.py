"""The end of a console's log, and what is written while it is read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from services.compute.consoles import added, tail


class Growing(type(Path())):  # type: ignore[misc]
    """A log whose guest writes a line whenever it was read."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        with open(self, "rb") as log:  # noqa: PTH123 - not by way of this
            seen = log.read()
        with open(self, "ab") as log:  # noqa: PTH123
            log.write(b"meanwhile\n")
        return io.BytesIO(seen)


def test_what_is_written_while_the_end_is_read_comes_after_it(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"one\ntwo\n")
    text, place = tail(Growing(log), 1)
    assert text == b"two\n"
    assert added(log, place) == (b"meanwhile\n", 18)


def test_a_log_that_is_gone_has_nothing_to_add(tmp_path: Path) -> None:
    assert tail(tmp_path / "web.log", 5) == (b"", 0)
    assert added(tmp_path / "web.log", 7) == (b"", 0)


def test_a_log_that_was_put_aside_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"new\n")
    assert added(log, 100) == (b"new\n", 4)
    assert added(log, 4) == (b"", 4)

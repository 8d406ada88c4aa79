"""Logs that are rotated under the hand of whoever writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.compute.drivers.console_log import remove, rotate, rotate_all


def test_a_small_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    assert not rotate(log, 10)
    log.write_bytes(b"0123456789")
    assert not rotate(log, 10)
    assert log.read_bytes() == b"0123456789"


def test_a_writer_goes_on_at_the_front(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1, 6):
            writer.write(b"%d-0123456789" % number)
            assert rotate(log, 10, keep=3)
        writer.write(b"now")
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {
        "web.log": b"now",
        "web.log.1": b"0123456789",
        "web.log.2": b"0123456789",
        "web.log.3": b"0123456789",
    }


def test_a_flooded_log_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"x" * 1000 + b"the end")
    assert rotate_all([log, tmp_path / "none.log"], 7) == 1
    assert (tmp_path / "web.log.1").read_bytes() == b"the end"


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"x" * 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        rotate(log, 10)
    assert log.read_bytes() == b"x" * 20


def test_one_that_is_removed_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"x" * 20)
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: remove(log))
    assert not rotate(log, 10)
    assert list(tmp_path.iterdir()) == []


def test_removed_with_its_past(tmp_path: Path) -> None:
    for name in ("web.log", "web.log.1", "web.log.3", "web.log.new", "web2.log"):
        (tmp_path / name).write_bytes(b"x")
    remove(tmp_path / "web.log")
    assert [path.name for path in tmp_path.iterdir()] == ["web2.log"]

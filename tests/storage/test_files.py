"""Kept files: whole or not there, for a day, and never more than fits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from services.mesh.errors import PvcError
from services.storage.files import KEPT_S, Files
from tests.storage.worlds import NODE, StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def files(tmp_path: Path, clock: StillClock) -> Files:
    return Files(tmp_path / "files", NODE, clock, reserve_bytes=0)


def put(files: Files, data: bytes = b"abc", source_name: str = "a.img") -> str:
    upload = files.begin(len(data), hashlib.sha256(data).hexdigest(), source_name)
    upload.write(data)
    return upload.finish().name


def names(files: Files) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def test_a_file_is_kept_across_a_restart(files: Files, clock: StillClock) -> None:
    name = put(files)
    again = Files(files.folder, NODE, clock)
    file = again.find(name)
    assert (file.size_bytes, file.file_name, file.node) == (3, "a.img", NODE)
    assert b"".join(again.read(name, 1)) == b"bc"
    assert again.head(name, 2) == b"ab"


def test_what_is_unfinished_goes_when_a_process_begins(files: Files, clock: StillClock) -> None:
    whole = put(files)
    begun = files.begin(10, "", "")
    begun.write(b"12345")
    (files.folder / "x.data.part").write_text("half an export")
    (files.folder / "x.new").write_text("half a card")
    with pytest.raises(PvcError):
        files.find(begun.name)
    Files(files.folder, NODE, clock)
    assert names(files) == sorted(f"{whole.removeprefix('files/')}.{x}" for x in ("data", "json"))


def test_a_damaged_card_goes_when_a_process_begins(files: Files, clock: StillClock) -> None:
    whole, damaged = put(files), put(files)
    (files.folder / f"{damaged.removeprefix('files/')}.json").write_bytes(b"\0" * 40)
    again = Files(files.folder, NODE, clock)
    assert [file.name for file in again.all()] == [whole]
    assert len(names(again)) == 2
    clock.seconds += KEPT_S + 1
    again.expire(lambda name: False)
    assert names(again) == []


def test_a_day_later_it_is_gone_unless_something_reads_it(files: Files, clock: StillClock) -> None:
    kept, read = put(files), put(files)
    files.expire(lambda name: False)
    assert len(files.all()) == 2
    clock.seconds += KEPT_S + 1
    files.expire(lambda name: name == read)
    assert [file.name for file in files.all()] == [read]
    with pytest.raises(PvcError) as error:
        files.delete(kept)
    assert error.value.reason_name == "NOT_FOUND"


def test_an_upload_that_cannot_begin_promises_nothing(
    files: Files, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "new_id", lambda: "0" * 26)
    there = files.begin(10, "", "")
    with pytest.raises(FileExistsError):
        files.begin(10, "", "")
    there.abort()
    assert files._promised == 0


def test_a_file_whose_bytes_are_gone_is_not_found(files: Files) -> None:
    name = put(files)
    Path(files.path(name)).unlink()
    with pytest.raises(PvcError) as error:
        list(files.read(name, 0))
    assert error.value.reason_name == "NOT_FOUND"


def test_uploads_together_cannot_promise_more_than_there_is(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Room:
        f_bavail, f_frsize = 100, 1

    monkeypatch.setattr("services.storage.files.os.statvfs", lambda path: Room)
    first = files.begin(60, "", "")
    with pytest.raises(PvcError) as error:
        files.begin(60, "", "")
    assert error.value.reason_name == "OUT_OF_SPACE"
    first.abort()
    first.abort()
    files.begin(60, "", "").abort()
    assert names(files) == []


@pytest.mark.parametrize(
    ("source", "saved"),
    [
        ("", "image"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a b\\disk.vmdk", "disk.vmdk"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("a\0b\x1b[2J‮.img", "a_b_2J_.img"),
        ("/", "image"),
        ("x" * 300, "x" * 100),
    ],
)
def test_names_are_made_harmless(files: Files, source: str, saved: str) -> None:
    assert files.find(put(files, source_name=source)).file_name == saved


def test_files_of_others_are_not_looked_for_here(files: Files) -> None:
    with pytest.raises(PvcError, match="kept by nodes/n2"):
        files.find(f"files/n2.{'0' * 26}")
    for name in ("files/../../etc/passwd", "files/n1./../x", "files/", "x", "files/n1.x\0"):
        with pytest.raises(PvcError) as error:
            files.path(name)
        assert error.value.reason_name == "NOT_FOUND"

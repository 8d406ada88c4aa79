"""What every storage driver promises, on the fake one and on files with qemu-img."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.storage.drivers.driver import Place
from tests.storage.benches import MIB, Bench, DirectoryBench, FakeBench, disk


@pytest.fixture(params=["fake", pytest.param("directory", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made: Bench = FakeBench(tmp_path) if request.param == "fake" else DirectoryBench(tmp_path)
    made.driver.open_pool(made.place, make=True)
    yield made


def silent(percent: float) -> None:
    assert 0 <= percent <= 100


def files(bench: Bench) -> list[str]:
    return [Path(found.path).name for found in bench.driver.list(bench.place)]


def refused(error: pytest.ExceptionInfo[PvcError]) -> str:
    return error.value.reason_name


def test_a_pool_is_opened_again_and_again(bench: Bench) -> None:
    facts = bench.driver.open_pool(bench.place, make=False)
    assert 0 < facts.available_bytes <= facts.capacity_bytes


def test_a_folder_that_is_another_pools_is_refused(bench: Bench) -> None:
    with pytest.raises(PvcError, match="another pool"):
        bench.driver.open_pool(Place(bench.place.path, "uid-2"), make=True)


def test_a_folder_that_was_not_mounted_is_not_taken_anew(bench: Bench) -> None:
    bench.unmount()
    with pytest.raises(PvcError) as error:
        bench.driver.open_pool(bench.place, make=False)
    assert refused(error) == "STORAGE_FAILED"


def test_a_folder_with_foreign_files_is_not_taken(bench: Bench) -> None:
    bench.driver.close_pool(bench.place)
    bench.foreign(f"{bench.place.path}/volumes/photos.raw")
    with pytest.raises(PvcError) as error:
        bench.driver.open_pool(bench.place, make=True)
    assert refused(error) == "STORAGE_FAILED"


def test_a_closed_pool_leaves_its_folder_to_the_next(bench: Bench) -> None:
    bench.driver.close_pool(bench.place)
    bench.driver.close_pool(bench.place)
    bench.driver.open_pool(Place(bench.place.path, "uid-2"), make=True)


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_create_and_stat(bench: Bench, format: Any) -> None:
    made = disk(bench, "a", format)
    bench.driver.create(made, 8 * MIB)
    bench.driver.create(made, 8 * MIB)
    assert bench.driver.stat(made).size_bytes == 8 * MIB
    assert files(bench) == [f"a.{format}"]


def test_delete_leaves_nothing_and_may_be_repeated(bench: Bench) -> None:
    bench.driver.create(disk(bench, "a"), MIB)
    bench.driver.delete(disk(bench, "a"))
    bench.driver.delete(disk(bench, "a"))
    assert files(bench) == []
    with pytest.raises(PvcError) as error:
        bench.driver.stat(disk(bench, "a"))
    assert refused(error) == "NOT_FOUND"


def test_what_somebody_has_open_is_neither_deleted_nor_moved_nor_changed(bench: Bench) -> None:
    a = disk(bench, "a")
    bench.driver.create(a, MIB)
    held = bench.hold(a)
    for change in (
        lambda: bench.driver.delete(a),
        lambda: bench.driver.rename(a, disk(bench, "b")),
        lambda: bench.driver.resize(a, 2 * MIB),
        lambda: bench.driver.snapshot(a, "s"),
        lambda: bench.driver.copy(disk(bench, "c"), a, "", MIB, silent),
    ):
        with pytest.raises(PvcError) as error:
            change()
        assert refused(error) == "IN_USE"
    bench.release(held)
    assert files(bench) == ["a.qcow2"]
    bench.driver.delete(a)


def test_a_clone_has_the_bases_contents_and_its_own_writes(bench: Bench) -> None:
    base, clone = disk(bench, "base"), disk(bench, "clone")
    bench.driver.create(base, 4 * MIB)
    bench.write(base, "B")
    bench.driver.clone(clone, base, 8 * MIB)
    bench.driver.clone(clone, base, 8 * MIB)
    assert bench.letter(clone.path, "qcow2") == "B"
    bench.write(clone, "C")
    assert bench.letter(base.path, "qcow2") == "B"
    assert bench.letter(clone.path, "qcow2") == "C"
    assert bench.driver.stat(clone).size_bytes == 8 * MIB


@pytest.mark.parametrize("kept", ["qcow2", "raw"])
def test_a_copy_stands_alone(bench: Bench, kept: Any) -> None:
    base, clone = disk(bench, "base"), disk(bench, "clone")
    bench.driver.create(base, 4 * MIB)
    bench.write(base, "B")
    bench.driver.clone(clone, base, 4 * MIB)
    copy = disk(bench, "copy", kept)
    bench.driver.copy(copy, clone, "", 6 * MIB, silent)
    bench.driver.delete(clone)
    bench.driver.delete(base)
    assert bench.letter(copy.path, kept) == "B"
    assert bench.driver.stat(copy).size_bytes == 6 * MIB


def test_a_stopped_copy_leaves_nothing(bench: Bench) -> None:
    class Stop(Exception):
        pass

    def stop(percent: float) -> None:
        raise Stop

    source = disk(bench, "a", "raw")
    bench.driver.create(source, 64 * MIB)
    bench.write(source, "A")
    with pytest.raises(Stop):
        bench.driver.copy(disk(bench, "b"), source, "", 64 * MIB, stop)
    assert files(bench) == ["a.raw"]


def test_resize_grows_and_never_shrinks(bench: Bench) -> None:
    a = disk(bench, "a")
    bench.driver.create(a, 2 * MIB)
    bench.driver.resize(a, 3 * MIB)
    bench.driver.resize(a, 3 * MIB)
    assert bench.driver.stat(a).size_bytes == 3 * MIB
    with pytest.raises(PvcError) as error:
        bench.driver.resize(a, MIB)
    assert refused(error) == "STORAGE_FAILED"


def test_rename_moves_and_never_overwrites(bench: Bench) -> None:
    a, b, c = (disk(bench, name) for name in "abc")
    bench.driver.create(a, MIB)
    bench.driver.create(c, 2 * MIB)
    bench.driver.rename(a, b)
    bench.driver.rename(a, b)
    with pytest.raises(PvcError, match="File exists"):
        bench.driver.rename(b, c)
    assert files(bench) == ["b.qcow2", "c.qcow2"]
    assert bench.driver.stat(c).size_bytes == 2 * MIB


def test_snapshots_are_taken_rolled_back_and_removed(bench: Bench) -> None:
    a = disk(bench, "a")
    bench.driver.create(a, 2 * MIB)
    bench.write(a, "1")
    bench.driver.snapshot(a, "one")
    bench.driver.resize(a, 4 * MIB)
    bench.write(a, "2")
    bench.driver.rollback(a, "one")
    assert bench.letter(a.path, "qcow2") == "1"
    assert bench.driver.stat(a).size_bytes == 2 * MIB
    bench.driver.delete_snapshot(a, "one")
    bench.driver.delete_snapshot(a, "one")
    assert bench.driver.stat(a).snapshots == ()
    with pytest.raises(PvcError, match="no snapshot"):
        bench.driver.rollback(a, "one")


def test_a_snapshot_taken_again_is_the_later_one(bench: Bench) -> None:
    a = disk(bench, "a")
    bench.driver.create(a, MIB)
    bench.driver.snapshot(a, "s")
    bench.write(a, "L")
    bench.driver.snapshot(a, "s")
    assert bench.driver.stat(a).snapshots == ("s",)
    bench.write(a, "X")
    bench.driver.rollback(a, "s")
    assert bench.letter(a.path, "qcow2") == "L"


def test_a_snapshot_named_like_the_number_of_another_is_not_that_one(bench: Bench) -> None:
    a = disk(bench, "a")
    bench.driver.create(a, MIB)
    for letter, name in (("A", "2"), ("B", "1")):
        bench.write(a, letter)
        bench.driver.snapshot(a, name)
    bench.write(a, "X")
    bench.driver.rollback(a, "1")
    assert bench.letter(a.path, "qcow2") == "B"
    bench.driver.delete_snapshot(a, "1")
    bench.driver.rollback(a, "2")
    assert bench.letter(a.path, "qcow2") == "A"


def test_a_snapshot_is_copied_and_exported_while_the_disk_is_open(bench: Bench) -> None:
    a, b = disk(bench, "a"), disk(bench, "b")
    bench.driver.create(a, 2 * MIB)
    bench.write(a, "S")
    bench.driver.snapshot(a, "s")
    bench.write(a, "N")
    held = bench.hold(a)
    bench.driver.copy(b, a, "s", 2 * MIB, silent)
    path = str(bench.outside / "out.qcow2")
    bench.driver.export(a, "s", path, "qcow2", False, silent)
    bench.release(held)
    assert bench.letter(b.path, "qcow2") == "S"
    assert bench.letter(path, "qcow2") == "S"


@pytest.mark.parametrize("format", ["qcow2", "raw", "vmdk"])
@pytest.mark.parametrize("kept", ["qcow2", "raw"])
def test_images_come_in(bench: Bench, format: Any, kept: Any) -> None:
    path = bench.image(f"image.{format}", format, "I", 4 * MIB)
    facts = bench.driver.inspect(path, format)
    assert (facts.format, facts.size_bytes) == (format, 4 * MIB)
    assert not facts.backing and not facts.references
    assert not facts.encrypted and not facts.corrupt
    made = disk(bench, "made", kept)
    bench.driver.import_(made, path, format, 8 * MIB, silent)
    assert bench.letter(made.path, kept) == "I"
    assert bench.driver.stat(made).size_bytes == 8 * MIB


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("format", ["qcow2", "raw", "vmdk"])
def test_images_go_out(bench: Bench, format: Any, compress: bool) -> None:
    a = disk(bench, "a")
    bench.driver.create(a, 4 * MIB)
    bench.write(a, "E")
    path = str(bench.outside / f"out.{format}")
    bench.driver.export(a, "", path, format, compress, silent)
    bench.driver.export(a, "", path, format, compress, silent)
    assert bench.letter(path, format) == "E"


def test_an_image_of_another_format_is_refused(bench: Bench) -> None:
    path = bench.image("image", "qcow2", "I", MIB)
    with pytest.raises(PvcError) as error:
        bench.driver.inspect(path, "vmdk")
    assert error.value.reason == reason_pb2.REASON_INVALID_CONTENT

"""One folder under two nodes' drivers, on real files: the mark is made once, what one is making the
other leaves alone, another folder of the same name is told from it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.mesh.errors import PvcError
from services.storage.drivers.directory import MARK, DirectoryDriver
from services.storage.drivers.driver import Disk, Place
from tests.storage.benches import MIB

pytestmark = pytest.mark.real


def place(folder: Path, node: str, mark: str = "m") -> Place:
    return Place(str(folder / "pool"), "uid-1", mark, node)


def disk(at: Place, name: str) -> Disk:
    return Disk(at, f"{at.path}/volumes/{name}.qcow2", "qcow2")


def test_many_take_a_folder_at_once_and_all_see_one_mark(tmp_path: Path) -> None:
    gate = threading.Barrier(8)

    def take(number: int) -> str:
        driver = DirectoryDriver()
        gate.wait()
        return driver.open_pool(place(tmp_path, f"n{number}", f"m{number}"), make=True).mark

    with ThreadPoolExecutor(8) as threads:
        marks = set(threads.map(take, range(8)))
    said = json.loads((tmp_path / "pool" / MARK).read_text())
    assert marks == {said["mark"]} and said["pool"] == "uid-1"
    assert not list((tmp_path / "pool").glob(f"{MARK}.new*"))


def test_a_driver_that_starts_leaves_what_another_is_making(tmp_path: Path) -> None:
    one, other = DirectoryDriver(), DirectoryDriver()
    here, there = place(tmp_path, "n1"), place(tmp_path, "n2")
    one.open_pool(here, make=True)
    source = disk(here, "source")
    one.create(source, 64 * MIB)
    seen: list[str] = []

    def meanwhile(percent: float) -> None:
        """The other node's service starts while this one copies."""
        if not seen:
            other.open_pool(there, make=False)
            seen.extend(path.name for path in (tmp_path / "pool" / "tmp-n1").iterdir())

    one.copy(disk(here, "copy"), source, "", 64 * MIB, meanwhile)
    assert seen == ["copy.qcow2"]
    assert other.stat(disk(there, "copy")).size_bytes == 64 * MIB


def test_what_a_dead_node_left_goes_when_told_so(tmp_path: Path) -> None:
    driver, here = DirectoryDriver(), place(tmp_path, "n1")
    driver.open_pool(here, make=True)
    for node in ("n2", "n3"):
        left = tmp_path / "pool" / f"tmp-{node}"
        left.mkdir()
        (left / "half.qcow2").write_text("half")
    driver.clear(here, {"n1", "n2"})
    assert sorted(path.name for path in (tmp_path / "pool").glob("tmp-*")) == ["tmp-n1", "tmp-n2"]
    assert (tmp_path / "pool" / "tmp-n2" / "half.qcow2").exists()


def test_a_copy_on_write_of_one_node_is_read_by_the_other(tmp_path: Path) -> None:
    one, other = DirectoryDriver(), DirectoryDriver()
    here, there = place(tmp_path, "n1"), place(tmp_path, "n2")
    one.open_pool(here, make=True)
    other.open_pool(there, make=False)
    one.create(disk(here, "base"), MIB)
    other.clone(disk(there, "clone"), disk(there, "base"), 2 * MIB)
    assert one.stat(disk(here, "clone")).size_bytes == 2 * MIB
    one.rename(disk(here, "clone"), disk(here, "moved"))
    other.rename(disk(there, "clone"), disk(there, "moved"))
    other.resize(disk(there, "moved"), 4 * MIB)
    assert one.stat(disk(here, "moved")).size_bytes == 4 * MIB


def test_another_folder_of_the_same_pool_is_refused(tmp_path: Path) -> None:
    driver = DirectoryDriver()
    driver.open_pool(place(tmp_path, "n1", "first"), make=True)
    with pytest.raises(PvcError, match="not the folder that the pool was made in"):
        driver.open_pool(place(tmp_path, "n1", "second"), make=False)


def test_a_closed_pool_leaves_nothing_of_any_node(tmp_path: Path) -> None:
    drivers = {node: DirectoryDriver() for node in ("n1", "n2")}
    for node, driver in drivers.items():
        driver.open_pool(place(tmp_path, node), make=node == "n1")
    drivers["n2"].close_pool(place(tmp_path, "n2"))
    assert list((tmp_path / "pool").iterdir()) == []

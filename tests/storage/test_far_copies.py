"""Full copies of volumes that another node keeps: whole, resumed after deaths, and nothing left of
those that fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.core.v1 import meta_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh import rows
from services.mesh.errors import PvcError
from services.state.store import Put
from services.storage.core import pools, volumes
from services.storage.core.layout import QCOW2, RAW
from services.storage.drivers.directory import DirectoryDriver
from services.storage.far_files import NoFarFiles
from tests.storage.worlds import MIB, Operation, World, create, name

pytestmark = pytest.mark.real

FAR = "pools/far"


class Way:
    """The way from one node to another: its service and its worker, called at once."""

    def __init__(self, other: World) -> None:
        self.other = other
        self.works = True
        self.before_export: Callable[[], object] = lambda: None
        self.before_read: Callable[[], object] = lambda: None

    def export(self, node: str, volume: str, snapshot_id: str, request_id: str) -> str:
        assert node == self.other.node
        self.before_export()
        request = api.ExportVolumeRequest(name=volume, snapshot_id=snapshot_id, format=QCOW2)
        asked = self.other.plan(volumes.export_volume, request)
        if self.works:
            self.other.jobs.step()
        return asked

    def read(self, file: str) -> Iterator[bytes]:
        self.before_read()
        return self.other.files.read(file, 0)

    def delete(self, file: str) -> None:
        self.other.files.delete(file)


class Two:
    """n1 with a volume in a pool of its own, and n2 with an empty pool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n1 = World(folder / "n1", DirectoryDriver(), str(folder / "pool1"))
        self.n2 = self.n1.beside(folder / "n2", "nodes/n2")
        self.n2.driver = DirectoryDriver()
        self.n2.work(NoFarFiles())
        meta = meta_pb2.Meta(uid="uid-2", generation=1)
        far = pools.new_pool(FAR, str(folder / "pool2"), "nodes/n2", meta, MIB)
        self.n2.store.commit([Put(far)])
        self.n2.look()
        self.way = Way(self.n1)
        self.n2.work(self.way)
        self.n1.create("base")
        self.write("base", 1)

    def path(self, volume: str) -> str:
        row = self.n1.store.snapshot().find(storage_pb2.Volume, volume)
        assert row is not None
        return row.status.path

    def write(self, volume_id: str, letter: int, at: str = "1M") -> None:
        command = ["qemu-io", "-c", f"write -P {letter} {at} 64k", self.path(name(volume_id))]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def ask(self, source: str, **spec: Any) -> str:
        request = create("v", 0, source_volume=name(source), **spec)
        request.parent = FAR
        return self.n1.plan(volumes.create_volume, request)

    def same(self, one: str, other: str) -> bool:
        command = ["qemu-img", "compare", self.path(one), self.path(other)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return "identical" in done.stdout

    def left(self) -> list[str]:
        """Files that lie about where none should."""
        kept = [*self.n1.files.folder.iterdir(), *self.n2.files.folder.iterdir()]
        return sorted(path.name for path in [*kept, *(self.folder / "pool2/volumes").iterdir()])


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def ended(two: Two, operation: str) -> Any:
    two.n2.jobs.step()
    return two.n2.operation(operation)


def test_it_is_made_by_the_node_that_gets_it(two: Two) -> None:
    asked = two.ask("base")
    assert two.n1.operation(asked).node == "nodes/n2"
    done = ended(two, asked)
    assert done.state == done.STATE_SUCCEEDED, done.error
    volume = storage_pb2.Volume()
    assert done.result.Unpack(volume) and volume.status.node == "nodes/n2"
    assert two.same(name("base"), f"{FAR}/volumes/v")
    assert two.left() == ["v.qcow2"], "the images on the way are gone"


def test_a_copy_on_write_becomes_a_full_copy_of_its_size(two: Two) -> None:
    two.n1.create("root", 0, source_volume=name("base"))
    two.write("root", 2, at="2M")
    done = ended(two, two.ask("root", format=RAW))
    assert done.state == done.STATE_SUCCEEDED, done.error
    assert two.same(name("root"), f"{FAR}/volumes/v")
    copy = two.n1.store.snapshot().find(storage_pb2.Volume, f"{FAR}/volumes/v")
    assert copy is not None and (copy.status.parent, copy.spec.format) == ("", RAW)
    assert copy.status.size_bytes == 8 * MIB


def test_what_the_other_node_says_is_what_it_fails_with(two: Two) -> None:
    asked = two.ask("base")
    Path(two.path(name("base"))).unlink()
    done = ended(two, asked)
    assert done.state == done.STATE_FAILED
    assert "base.qcow2" in PvcError.from_status(done.error).message
    assert two.left() == []


def test_a_cancel_ends_the_other_nodes_work_too(two: Two) -> None:
    two.way.works = False
    asked = two.ask("base")

    two.way.before_export = lambda: two.n2.cancel(asked)
    done = ended(two, asked)
    assert done.state == done.STATE_CANCELLED
    every = two.n1.store.snapshot().rows(Operation)
    (other,) = [row for row in every if row.method.endswith("/ExportVolume")]
    assert other.cancel_requested
    two.n1.jobs.step()
    assert two.left() == []


def test_a_worker_that_dies_begins_again(two: Two) -> None:
    asked = two.ask("base")

    def die() -> None:
        two.n2.countdown = 1
        two.n2.tick()

    two.way.before_read = die
    two.n2.dies(two.n2.jobs.step)
    two.n2.work(two.way)
    two.way.before_read = lambda: None
    done = ended(two, asked)
    assert done.state == done.STATE_SUCCEEDED, done.error
    assert done.attempts == 2
    assert two.same(name("base"), f"{FAR}/volumes/v")
    assert [x for x in two.left() if not x.startswith("n1.")] == ["v.qcow2"]


def test_without_room_nothing_is_made(two: Two) -> None:
    asked = two.ask("base")
    there = two.n1.store.snapshot().find(storage_pb2.Pool, FAR)
    assert there is not None
    pool = rows.copied(there)
    pool.spec.reserve_bytes = 1 << 60
    two.n1.store.commit([Put(pool)])
    done = ended(two, asked)
    assert PvcError.from_status(done.error).reason_name == "OUT_OF_SPACE"
    assert two.left() == []


def test_the_other_node_cannot_be_reached(two: Two) -> None:
    two.n2.work(NoFarFiles())
    done = ended(two, two.ask("base"))
    error = PvcError.from_status(done.error)
    assert error.reason_name == "UNREACHABLE" and "nodes/n1" in error.message
    assert two.left() == []

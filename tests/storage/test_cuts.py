"""The process dies at any call of the driver or the store, for every kind of work, and everything
ends well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh.errors import PvcError
from services.mesh.rows import FINAL
from services.state.store import Delete
from services.storage.core import pools, snapshots, volumes
from services.storage.core.layout import QCOW2
from services.storage.drivers.driver import ImageFacts
from services.storage.drivers.fake import Died, FakeFolder, Fault
from tests.storage.worlds import MIB, POOL, READY, World, create, name

Operation = operation_pb2.Operation
Story = tuple[Callable[[World], None], Callable[[World], str], Callable[[World], None]]


def base(world: World) -> None:
    world.create("base", sealed=True)
    world.create("a")
    disk = world.fake.disk_at("/pool/volumes/a.qcow2")
    assert disk is not None
    disk.content = "A"


def with_snapshot(world: World) -> None:
    base(world)
    world.snapshot("a", "s")


def uploaded(world: World) -> None:
    upload = world.files.begin(4, "", "x.raw")
    upload.write(b"blok")
    file = upload.finish()
    facts = ImageFacts("raw", 4 * MIB, MIB, "", (), False, False)
    world.fake.images[world.files.path(file.name)] = (facts, "I")


def import_it(world: World) -> str:
    (file,) = world.files.all()
    request = api.ImportVolumeRequest(parent=POOL, volume_id="new", file=file.name)

    def plan(snapshot, request, call):  # type: ignore[no-untyped-def]
        return volumes.import_volume(snapshot, request, call, file)

    return world.plan(plan, request)


def has(volume_id: str, size: int = 8 * MIB, content: str = "") -> Callable[[World], None]:
    def check(world: World) -> None:
        volume = world.volume(volume_id)
        assert volume is not None and volume.status.state == READY
        assert volume.status.size_bytes == volume.spec.size_bytes == size
        assert volume.status.generation == volume.meta.generation
        disk = world.fake.disk_at(volume.status.path)
        assert disk is not None and disk.size_bytes == size and disk.content == content

    return check


def lacks(volume_id: str) -> Callable[[World], None]:
    def check(world: World) -> None:
        assert world.volume(volume_id) is None
        assert f"{volume_id}.qcow2" not in world.disks()
        assert not list(world.store.snapshot().rows(storage_pb2.Snapshot, name(volume_id)))

    return check


def renamed(world: World) -> None:
    lacks("a")(world)
    has("b", content="A")(world)
    assert world.store.snapshot().find(storage_pb2.Snapshot, f"{name('b')}/snapshots/s")


def snapped(world: World) -> None:
    found = world.store.snapshot().find(storage_pb2.Snapshot, f"{name('a')}/snapshots/s")
    assert found is not None and found.HasField("snapshot_time")
    disk = world.fake.disk_at("/pool/volumes/a.qcow2")
    assert disk is not None and list(disk.snapshots) == ["s"]


def unsnapped(world: World) -> None:
    assert not list(world.store.snapshot().rows(storage_pb2.Snapshot))
    disk = world.fake.disk_at("/pool/volumes/a.qcow2")
    assert disk is not None and not disk.snapshots


def exported(world: World) -> None:
    assert [file.file_name for file in world.files.all()] == ["a.qcow2"]


def pool_made(world: World) -> None:
    made = world.store.snapshot().find(storage_pb2.Pool, "pools/second")
    assert made is not None and made.status.state == storage_pb2.PoolStatus.STATE_READY
    assert world.fake.folders["/second"].owner == made.meta.uid


def pool_gone(world: World) -> None:
    assert world.store.snapshot().find(storage_pb2.Pool, "pools/second") is None
    assert world.fake.folders["/second"].owner is None


def second(world: World) -> api.CreatePoolRequest:
    pool = storage_pb2.Pool()
    pool.spec.directory.path = "/second"
    return api.CreatePoolRequest(pool_id="second", pool=pool)


NOTHING: Callable[[World], None] = lambda world: None  # noqa: E731

STORIES: dict[str, Story] = {
    "create": (NOTHING, lambda w: w.plan(volumes.create_volume, create("new")), has("new")),
    "clone": (
        base,
        lambda w: w.plan(volumes.create_volume, create("new", 0, source_volume=name("base"))),
        has("new"),
    ),
    "copy": (
        base,
        lambda w: w.plan(volumes.create_volume, create("new", 0, source_volume=name("a"))),
        has("new", content="A"),
    ),
    "copy of a snapshot": (
        with_snapshot,
        lambda w: w.plan(
            volumes.create_volume, create("new", 0, source_snapshot=f"{name('a')}/snapshots/s")
        ),
        has("new", content="A"),
    ),
    "import": (uploaded, import_it, has("new", 4 * MIB, "I")),
    "resize": (
        base,
        lambda w: w.plan(
            volumes.resize_volume, api.ResizeVolumeRequest(name=name("a"), size_bytes=16 * MIB)
        ),
        has("a", 16 * MIB, "A"),
    ),
    "rename": (
        with_snapshot,
        lambda w: w.plan(
            volumes.rename_volume, api.RenameVolumeRequest(name=name("a"), new_volume_id="b")
        ),
        renamed,
    ),
    "delete": (
        with_snapshot,
        lambda w: w.plan(
            volumes.delete_volume, api.DeleteVolumeRequest(name=name("a"), force=True)
        ),
        lacks("a"),
    ),
    "export": (
        base,
        lambda w: w.plan(
            volumes.export_volume, api.ExportVolumeRequest(name=name("a"), format=QCOW2)
        ),
        exported,
    ),
    "snapshot": (
        base,
        lambda w: w.plan(
            snapshots.create_snapshot,
            api.CreateSnapshotRequest(parent=name("a"), snapshot_id="s"),
        ),
        snapped,
    ),
    "delete snapshot": (
        with_snapshot,
        lambda w: w.plan(
            snapshots.delete_snapshot, api.DeleteSnapshotRequest(name=f"{name('a')}/snapshots/s")
        ),
        unsnapped,
    ),
    "rollback": (
        with_snapshot,
        lambda w: w.plan(
            snapshots.rollback_snapshot,
            api.RollbackSnapshotRequest(name=f"{name('a')}/snapshots/s"),
        ),
        has("a", content="A"),
    ),
    "create pool": (NOTHING, lambda w: w.plan(pools.create_pool, second(w)), pool_made),
    "delete pool": (
        lambda w: w.do(pools.create_pool, second(w)) and None,
        lambda w: w.plan(pools.delete_pool, api.DeletePoolRequest(name="pools/second")),
        pool_gone,
    ),
}


@pytest.fixture(autouse=True)
def exports_write_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake driver keeps images in memory; kept files must be on disk to be hashed."""
    from services.storage.drivers.fake import FakeDriver

    plain = FakeDriver.export

    def export(self, source, snapshot, path, *others):  # type: ignore[no-untyped-def]
        plain(self, source, snapshot, path, *others)
        Path(path).write_bytes(b"image")

    monkeypatch.setattr(FakeDriver, "export", export)


def consistent(world: World) -> None:
    """No operation under way, no file without a row, no row without a file, nobody half way."""
    world.agent._looked.clear()
    world.agent.step()
    snapshot = world.store.snapshot()
    assert all(operation.state in FINAL for operation in snapshot.rows(Operation))
    rows = list(snapshot.rows(storage_pb2.Volume, POOL))
    assert all(row.status.state == READY for row in rows), rows
    assert sorted(row.status.path for row in rows) == sorted(world.fake.folders["/pool"].disks)
    assert world.pool().status.why == ""
    assert not [path for path in world.files.folder.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("story", STORIES)
def test_cut_anywhere_and_taken_up_again(tmp_path: Path, story: str) -> None:
    prepare, act, check = STORIES[story]
    for cut in range(1, 100):
        world = World(tmp_path / str(cut))
        prepare(world)
        operation = act(world)
        world.countdown = cut
        try:
            world.jobs.step()
            whole = True
        except Died:
            whole = False
        world.die()
        world.jobs.step()
        ended = world.operation(operation)
        assert ended.state == Operation.STATE_SUCCEEDED, (cut, ended.error.message)
        consistent(world)
        check(world)
        if whole:
            assert cut > 3, "the story has steps to be cut at"
            return
    raise AssertionError("the story does not end")


VERBS = {
    "create": "create", "clone": "clone", "copy": "copy", "import": "import_", "resize": "resize",
    "snapshot": "snapshot", "create pool": "list", "delete": "delete", "rename": "rename",
}  # fmt: skip
NOTICED = ("create", "clone", "copy", "import", "resize", "snapshot")
"""Work whose outcome is looked at before it is believed; other lies are found by the next look."""


@pytest.mark.parametrize(
    ("story", "verb", "fault"),
    [
        *(
            (story, verb, fault)
            for story, verb in VERBS.items()
            for fault in (Fault.FAIL, Fault.FULL)
        ),
        *((story, VERBS[story], Fault.LIE) for story in NOTICED),
    ],
)
def test_what_fails_leaves_everything_as_it_was(
    tmp_path: Path, story: str, verb: str, fault: Fault
) -> None:
    prepare, act, _ = STORIES[story]
    world = World(tmp_path)
    prepare(world)
    before = {row.name: row.status.path for row in world.store.snapshot().rows(storage_pb2.Volume)}
    disks = world.disks()
    operation = act(world)
    world.fake.faults[verb] = [fault]
    world.jobs.step()
    ended = world.operation(operation)
    assert ended.state == Operation.STATE_FAILED
    reason = {Fault.FULL: "OUT_OF_SPACE"}.get(fault, "STORAGE_FAILED")
    if not (fault is Fault.LIE and story in ("create", "clone", "copy", "import")):
        assert reason.encode() in ended.error.SerializeToString()
    after = {row.name: row.status.path for row in world.store.snapshot().rows(storage_pb2.Volume)}
    assert (after, world.disks()) == (before, disks)
    if verb == "delete":
        volume = world.volume("a")
        assert volume is not None and "delete it again" in volume.status.why
        assert world.do(
            volumes.delete_volume, api.DeleteVolumeRequest(name=name("a"), force=True)
        ).state == Operation.STATE_SUCCEEDED  # fmt: skip
    consistent(world)


@pytest.mark.parametrize("story", STORIES)
def test_a_worker_that_always_dies_is_given_up_and_says_what_remains(
    tmp_path: Path, story: str
) -> None:
    prepare, act, _ = STORIES[story]
    for cut in (4, 6):
        world = World(tmp_path / str(cut))
        prepare(world)
        operation = act(world)
        for _ in range(3):
            world.countdown = cut
            try:
                world.jobs.step()
            except Died:
                world.die()
        world.countdown = -1
        world.jobs.step()
        assert world.operation(operation).state in FINAL
        world.agent._looked.clear()
        world.agent.step()
        for row in list(world.store.snapshot().rows(storage_pb2.Volume, POOL)):
            assert row.status.state == READY or "delete it" in row.status.why, row
            assert row.spec.size_bytes == row.status.size_bytes
            if row.status.state != READY:
                done = world.do(volumes.delete_volume, api.DeleteVolumeRequest(name=row.name))
                assert done.state == Operation.STATE_SUCCEEDED
        consistent(world)


@pytest.mark.parametrize("story", STORIES)
def test_a_store_that_is_away_for_a_moment_stops_nothing_for_good(
    tmp_path: Path, story: str
) -> None:
    """Its disk may be full: the work fails or succeeds, and nobody waits for ever."""
    prepare, act, check = STORIES[story]
    for away in range(1, 20):
        world = World(tmp_path / str(away))
        prepare(world)
        before = sorted(world.disks())
        operation = act(world)
        world.store.away_in = away
        with contextlib.suppress(PvcError):  # what a loop does with it
            world.jobs.step()
        whole = world.store.away_in > 0
        world.store.away_in = 0
        world.jobs.step()
        ended = world.operation(operation)
        assert ended.state in FINAL
        consistent(world)
        if ended.state == Operation.STATE_SUCCEEDED:
            check(world)
        else:
            assert sorted(world.disks()) == before
        if whole:
            return
    raise AssertionError("the story does not end")


@pytest.mark.parametrize("story", ["copy", "import", "export"])
def test_cancelling_undoes(tmp_path: Path, story: str) -> None:
    prepare, act, _ = STORIES[story]
    world = World(tmp_path)
    prepare(world)
    disks = world.disks()
    operation = act(world)
    verb = {"copy": "copy", "import": "import_", "export": "export"}[story]

    def cancel(called: str) -> None:
        if called == verb:
            world.cancel(operation)

    world.fake.before_call = cancel
    world.jobs.step()
    world.fake.before_call = lambda verb: None
    assert world.operation(operation).state == Operation.STATE_CANCELLED
    assert world.disks() == disks
    consistent(world)


@pytest.mark.parametrize(
    "story", ["create", "resize", "rename", "delete", "create pool", "delete pool"]
)
def test_cancelled_before_it_began(tmp_path: Path, story: str) -> None:
    prepare, act, _ = STORIES[story]
    world = World(tmp_path)
    prepare(world)
    disks = world.disks()
    operation = act(world)
    world.cancel(operation)
    world.jobs.step()
    assert world.operation(operation).state == Operation.STATE_CANCELLED
    consistent(world)
    assert world.disks() == disks
    seen = [(row.name, row.status.state) for row in world.store.snapshot().rows(storage_pb2.Pool)]
    ready = storage_pb2.PoolStatus.STATE_READY
    others = [("pools/second", ready)] if story == "delete pool" else []
    assert seen == [(POOL, ready), *others]
    assert all(
        volume.spec.size_bytes == volume.status.size_bytes
        for volume in world.store.snapshot().rows(storage_pb2.Volume)
    )


def test_a_worker_that_dies_while_it_undoes_ends_as_interrupted(tmp_path: Path) -> None:
    world = World(tmp_path)
    operation = world.plan(volumes.create_volume, create("new"))
    world.fake.faults["create"] = [Fault.FULL]
    world.fake.faults["delete"] = [Fault.DIE_AFTER]
    with pytest.raises(Died):
        world.jobs.step()
    world.die()
    world.store.commit([Delete(name("new"), "*")])  # the last thing that undoing does
    world.jobs.step()
    error = PvcError.from_status(world.operation(operation).error)
    assert error.reason_name == "INTERRUPTED" and "nothing remains" in error.message
    consistent(world)


def test_a_foreign_file_in_the_way_is_never_touched(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fake.folders["/pool"].disks["/pool/volumes/new.qcow2"] = None
    ended = world.create("new")
    assert ended.state == Operation.STATE_FAILED
    assert "exists and is no volume's" in ended.error.message
    assert world.disks() == ["new.qcow2"]
    assert world.volume("new") is None


def test_a_folder_that_is_not_empty_is_no_pool(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fake.folders["/second"] = FakeFolder(foreign=True)
    ended = world.do(pools.create_pool, second(world))
    assert ended.state == Operation.STATE_FAILED
    assert world.store.snapshot().find(storage_pb2.Pool, "pools/second") is None

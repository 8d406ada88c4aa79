"""Pools that several nodes use: each says how it is there, one sums up, work goes on when a node
dies, and nobody takes away what another is making."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh import rows
from services.mesh.errors import PvcError
from services.state.store import Put
from services.storage.core import pools, snapshots, volumes
from services.storage.drivers.driver import ImageFacts
from services.storage.drivers.fake import Fault
from tests.storage.worlds import MIB, World, create

SHARED = "pools/shared"
POOL_READY = storage_pb2.PoolStatus.STATE_READY
POOL_FAILED = storage_pb2.PoolStatus.STATE_FAILED


class Together:
    """Nodes with agents and jobs of their own, one state, and folders that all of them see."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        first = World(folder / nodes[0], driver=None)
        self.worlds = {nodes[0]: first}
        for node in nodes[1:]:
            self.worlds[node] = first.beside(folder / node, f"nodes/{node}")
        for node in nodes:
            self.arrive(node)

    def __getitem__(self, node: str) -> World:
        return self.worlds[node]

    def arrive(self, node: str, state: int = cluster_pb2.NODE_STATE_ONLINE) -> None:
        """The node's row and lease."""
        store, name = self[node].store, f"nodes/{node}"
        there = store.snapshot().find(cluster_pb2.Node, name)
        row = rows.copied(there) if there else cluster_pb2.Node(name=name)
        row.decision.state = state  # type: ignore[assignment]
        store.commit([Put(row)])
        assert store.acquire(name, name) is not None

    def look(self) -> None:
        """Every agent looks until none has anything to say."""
        before = -1
        while before != (before := next(iter(self.worlds.values())).store.snapshot().revision):
            for world in self.worlds.values():
                world.look()

    def make(self, node: str, path: str = "/shared") -> None:
        spec = storage_pb2.PoolSpec(shared=True)
        spec.directory.path = path
        request = api.CreatePoolRequest(pool_id="shared", pool=storage_pb2.Pool(spec=spec))
        operation = self[node].do(pools.create_pool, request)
        assert operation.state == operation.STATE_SUCCEEDED, operation.error
        assert operation.node == f"nodes/{node}"
        self.look()

    def pool(self) -> storage_pb2.Pool:
        found = next(iter(self.worlds.values())).store.snapshot().find(storage_pb2.Pool, SHARED)
        assert found is not None
        return found

    def parts(self) -> dict[str, str]:
        """Node → "" when it can use the pool, or why not."""
        parts = self.pool().status.nodes
        assert all(part.ready == (not part.why) for part in parts.values())
        return {node: part.why for node, part in parts.items()}


@pytest.fixture
def three(tmp_path: Path) -> Together:
    return Together(tmp_path, "n1", "n2", "n3")


def shared(volume_id: str, size: int = 8 * MIB) -> api.CreateVolumeRequest:
    request = create(volume_id, size)
    request.parent = SHARED
    return request


def test_every_node_says_its_part_and_one_sums_up(three: Together) -> None:
    three.make("n2")
    assert three.parts() == {"n1": "", "n2": "", "n3": ""}
    status = three.pool().status
    assert (status.state, status.why, status.generation) == (POOL_READY, "", 1)
    assert status.mark and status.capacity_bytes
    assert three.pool().spec.node == ""
    revision = three["n1"].store.snapshot().revision
    three.look()
    assert three["n1"].store.snapshot().revision == revision, "nothing changed: nothing is written"


def test_a_node_where_the_folder_is_away_is_named_and_the_others_go_on(three: Together) -> None:
    three.make("n1")
    three["n3"].apart("/shared")
    three.look()
    assert list(filter(None, three.parts().values())) == ["/shared does not hold this pool"]
    status = three.pool().status
    assert status.state == POOL_READY
    assert status.why == "n3 cannot use it: /shared does not hold this pool"
    (event,) = three["n1"].events("cannot be used on n3")
    assert event.severity == event.SEVERITY_ERROR and event.cause == "storage n3"
    three["n3"].together("/shared")
    three.look()
    assert (three.pool().status.why, three.parts()["n3"]) == ("", "")


def test_the_first_that_can_use_it_speaks_and_none_means_failed(three: Together) -> None:
    three.make("n1")
    three["n1"].apart("/shared")
    three.look()
    assert three.pool().status.state == POOL_READY
    three["n2"].apart("/shared")
    three["n3"].apart("/shared")
    three.look()
    status = three.pool().status
    assert status.state == POOL_FAILED
    assert "n1 cannot use it" in status.why and "n3 cannot use it" in status.why


def test_another_folder_of_the_same_path_and_pool_is_told_from_it(three: Together) -> None:
    """What a node's death in the middle of making the pool leaves where nothing is shared."""
    three.make("n1")
    mine = three["n3"].apart("/shared")
    mine.owner, mine.mark = three.pool().meta.uid, "another"
    three.look()
    assert three.parts()["n3"] == "/shared is another folder"


def test_a_pool_whose_maker_dies_is_made_by_the_next_with_a_mark_of_its_own(
    three: Together,
) -> None:
    spec = storage_pb2.PoolSpec(shared=True)
    spec.directory.path = "/shared"
    request = api.CreatePoolRequest(pool_id="shared", pool=storage_pb2.Pool(spec=spec))
    three["n1"].apart("/shared")
    name = three["n1"].plan(pools.create_pool, request)
    three["n1"].fake.faults["list"] = [Fault.DIE_BEFORE]
    three["n1"].dies(three["n1"].jobs.step)
    three["n1"].give(name, "nodes/n2")
    three["n2"].jobs.step()
    assert three["n2"].operation(name).state == 3
    three.look()
    assert three.parts() == {"n1": "/shared is another folder", "n2": "", "n3": ""}


def test_work_is_done_where_it_was_asked_for(three: Together) -> None:
    three.make("n1")
    operation = three["n3"].do(volumes.create_volume, shared("v"))
    assert (operation.node, operation.state) == ("nodes/n3", operation.STATE_SUCCEEDED)
    volume = three["n1"].store.snapshot().find(storage_pb2.Volume, f"{SHARED}/volumes/v")
    assert volume is not None and volume.status.node == ""
    for verb in (
        api.ResizeVolumeRequest(name=volume.name, size_bytes=16 * MIB),
        api.RenameVolumeRequest(name=volume.name, new_volume_id="w"),
    ):
        plan = volumes.resize_volume if "size_bytes" in str(verb) else volumes.rename_volume
        assert three["n2"].do(plan, verb).node == "nodes/n2"
    taken = api.CreateSnapshotRequest(parent=f"{SHARED}/volumes/w", snapshot_id="s")
    operation = three["n1"].do(snapshots.create_snapshot, taken)
    assert (operation.node, operation.state) == ("nodes/n1", operation.STATE_SUCCEEDED)


def test_a_node_that_cannot_use_it_has_another_do_the_work(three: Together) -> None:
    three.make("n1")
    three["n1"].apart("/shared")
    three.look()
    name = three["n1"].plan(volumes.create_volume, shared("v"))
    assert three["n1"].operation(name).node == "nodes/n2"


def test_what_a_dead_node_was_making_is_made_by_another(three: Together) -> None:
    three.make("n1")
    name = three["n3"].plan(volumes.create_volume, shared("v"))
    three["n3"].fake.faults["create"] = [Fault.DIE_AFTER]
    three["n3"].dies(three["n3"].jobs.step)
    three["n3"].give(name, "nodes/n1")
    three["n1"].jobs.step()
    operation = three["n1"].operation(name)
    assert (operation.state, operation.attempts) == (operation.STATE_SUCCEEDED, 2)


def test_leftovers_go_only_when_their_node_is_dead(three: Together) -> None:
    three.make("n1")
    folder = three["n1"].fake.folders["/shared"]
    folder.unfinished = {"n2", "n3", "n9"}
    three.look()
    assert folder.unfinished == {"n2", "n3"}, "n9 is no node; the others may be working"
    three["n3"].store.lose_session()
    three.look()
    assert folder.unfinished == {"n2", "n3"}, "a session that is lost proves nothing"
    row = rows.copied(three["n1"].store.snapshot().find(cluster_pb2.Node, "nodes/n3"))
    row.decision.state = cluster_pb2.NODE_STATE_FENCED
    three["n1"].store.commit([Put(row)])
    three["n1"].look()
    assert folder.unfinished == {"n2"}


def test_a_source_on_one_node_has_the_copy_made_there(three: Together) -> None:
    three.make("n1")
    assert three["n1"].create("a").state == 3
    request = shared("copy", 0)
    request.volume.spec.source_volume = "pools/local/volumes/a"
    operation = three["n2"].plan(volumes.create_volume, request)
    assert three["n2"].operation(operation).node == "nodes/n1"


def test_a_volume_of_a_moving_vm_waits(three: Together) -> None:
    three.make("n1")
    three["n1"].do(volumes.create_volume, shared("v"))
    vm = vm_pb2.Vm(name="vms/web")
    vm.spec.disks.add(id="root", volume=f"{SHARED}/volumes/v")
    vm.status.state, vm.status.node = vm_pb2.VM_STATE_RUNNING, "nodes/n2"
    vm.decision.migration.target = "nodes/n3"
    three["n1"].store.commit([Put(vm)])
    taken = api.CreateSnapshotRequest(parent=f"{SHARED}/volumes/v", snapshot_id="s")
    operation = three["n1"].do(snapshots.create_snapshot, taken)
    error = PvcError.from_status(operation.error)
    assert error.reason_name == "BUSY" and "moved to nodes/n3" in error.message


def test_an_open_volume_is_changed_where_its_vm_runs(three: Together) -> None:
    three.make("n1")
    three["n1"].do(volumes.create_volume, shared("v"))
    vm = vm_pb2.Vm(name="vms/web")
    vm.spec.disks.add(id="root", volume=f"{SHARED}/volumes/v")
    vm.status.state, vm.status.node = vm_pb2.VM_STATE_RUNNING, "nodes/n2"
    three["n1"].store.commit([Put(vm)])
    three["n1"].open_volumes.folder = "/shared"
    grow = api.ResizeVolumeRequest(name=f"{SHARED}/volumes/v", size_bytes=16 * MIB)
    operation = three["n1"].do(volumes.resize_volume, grow)
    assert operation.state == operation.STATE_SUCCEEDED, operation.error
    assert three["n1"].open_volumes.calls == [f"resize nodes/n2 {SHARED}/volumes/v"]


def test_a_pool_goes_with_all_its_marks(three: Together) -> None:
    three.make("n1")
    operation = three["n3"].do(pools.delete_pool, api.DeletePoolRequest(name=SHARED))
    assert (operation.state, operation.node) == (operation.STATE_SUCCEEDED, "nodes/n3")
    three.look()
    assert three["n1"].store.snapshot().find(storage_pb2.Pool, SHARED) is None
    assert three["n1"].fake.folders["/shared"].owner is None


def test_parts_of_nodes_that_left_the_cluster_go(three: Together) -> None:
    three.make("n1")
    row = rows.copied(three.pool())
    row.status.nodes["n9"].why = "it is broken"
    three["n1"].store.commit([Put(row)])
    three.look()
    assert set(three.parts()) == {"n1", "n2", "n3"}


@pytest.mark.parametrize("path", ["/pool", "/pool/inner"])
def test_a_shared_folder_overlaps_with_every_nodes_folders(three: Together, path: str) -> None:
    spec = storage_pb2.PoolSpec(shared=True)
    spec.directory.path = path
    request = api.CreatePoolRequest(pool_id="other", pool=storage_pb2.Pool(spec=spec))
    with pytest.raises(PvcError) as error:
        three["n2"].plan(pools.create_pool, request)
    assert (error.value.reason_name, error.value.field) == ("IN_USE", "pool.spec.directory.path")


def test_a_shared_pool_is_no_single_nodes(three: Together) -> None:
    spec = storage_pb2.PoolSpec(shared=True, node="nodes/n1")
    spec.directory.path = "/other"
    request = api.CreatePoolRequest(pool_id="other", pool=storage_pb2.Pool(spec=spec))
    with pytest.raises(PvcError) as error:
        three["n1"].plan(pools.create_pool, request)
    assert (error.value.reason_name, error.value.field) == ("INVALID_FIELD", "pool.spec.node")


def test_work_on_a_local_pool_is_never_done_elsewhere(three: Together) -> None:
    name = three["n1"].plan(volumes.create_volume, create("v"))
    three["n1"].give(name, "nodes/n2")
    three["n2"].jobs.step()
    error = PvcError.from_status(three["n2"].operation(name).error)
    assert error.reason_name == "INTERRUPTED" and "pools/local is on nodes/n1" in error.message


def test_a_file_is_fetched_from_the_node_that_keeps_it(three: Together) -> None:
    upload = three["n3"].files.begin(4096, "", "disk.raw")
    upload.write(b"x" * 4096)
    file = upload.finish()
    three["n1"].far(three["n3"].files)
    request = api.ImportVolumeRequest(
        parent="pools/local", volume_id="v", file=file.name, source_format=2
    )
    plan = volumes.import_volume(three["n3"].store.snapshot(), request, three["n3"].call(), file)
    three["n3"].store.commit(list(plan.changes))
    name = plan.response.name  # type: ignore[attr-defined]
    assert three["n3"].operation(name).node == "nodes/n1"
    path = three["n1"].files.path(f"files/n1.{name.removeprefix('operations/')}")
    facts = ImageFacts("raw", MIB, MIB, "", (), False, False)
    three["n1"].fake.images[path] = (facts, "x")
    three["n1"].jobs.step()
    operation = three["n1"].operation(name)
    assert operation.state == operation.STATE_SUCCEEDED, operation.error
    assert list(three["n1"].files.folder.iterdir()) == [], "what was fetched is gone"
    assert three["n3"].files.find(file.name).size_bytes == 4096

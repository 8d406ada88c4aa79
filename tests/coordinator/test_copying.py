"""VMs that move with their volumes, from end to end: running, shut down for it, and off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as compute_api
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from services.compute.core import edits
from services.coordinator.core import copying, node_tasks
from services.coordinator.picture import world_of
from services.mesh.errors import PvcError
from services.state.store import Put
from services.storage.core import volumes
from tests.coordinator.copying import DISC, OFF, ON, ROOT, SEED, Cut, Operation, Whole, unfinished

MIB = 1 << 20


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    found = Whole(tmp_path)
    found.is_at("n1")
    return found


@pytest.fixture
def off(tmp_path: Path) -> Whole:
    return Whole(tmp_path, power=OFF)


def refused(whole: Whole, **how: Any) -> PvcError:
    before = whole.store.snapshot()
    with pytest.raises(PvcError) as error:
        whole.migrate(**how)
    assert whole.store.snapshot() is before
    return error.value


def test_while_it_runs(whole: Whole) -> None:
    asked = whole.migrate()
    whole.calm()
    whole.is_at("n2")
    done = whole.operation(asked)
    assert done.state == Operation.STATE_SUCCEEDED, done
    assert whole.vm.meta.generation == 2 and whole.vm.decision.home == "nodes/n1"
    assert whole.disks_of_vm() == {
        "root": "pools/two/volumes/root",
        "seed": "pools/two/volumes/web-seed",
        "disc": "pools/two/volumes/disc",
    }
    said = [line.text for line in done.log]
    assert any(
        f"{ROOT} is pools/two/volumes/root now, and the old one is removed" in x for x in said
    )
    assert any(f"{DISC} is pools/two/volumes/disc now, and the old one stays" in x for x in said)
    assert not unfinished(whole)


def test_shut_down_for_it(whole: Whole) -> None:
    asked = whole.migrate("SHUTDOWN")
    whole.calm()
    whole.is_at("n2")
    assert whole.operation(asked).state == Operation.STATE_SUCCEEDED


def test_off_it_stays_off(off: Whole) -> None:
    asked = off.migrate()
    off.calm()
    off.is_of("n2")
    assert off.vm.status.state in (vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_UNSPECIFIED)
    assert off.operation(asked).state == Operation.STATE_SUCCEEDED
    off.power(ON)
    off.calm()
    off.is_at("n2")


def test_there_and_back(whole: Whole) -> None:
    whole.migrate()
    whole.calm()
    whole.unmigrate()
    whole.calm()
    vm = whole.vm
    assert whole.disks_of_vm() == {"root": ROOT, "seed": SEED, "disc": "pools/one/volumes/disc-2"}
    assert whole.disk(ROOT).content == whole.last and vm.decision.node == "nodes/n1"
    assert whole.shelves[1].disks() == ["disc.qcow2"]


def test_without_the_flag_it_stays_and_the_flag_is_named(whole: Whole) -> None:
    error = refused(whole, copy=False)
    assert error.reason_name == "NO_NODE_FITS"
    assert f"n2 cannot open {ROOT}, which is on nodes/n1" in error.message
    assert "--copy-volumes" in error.message


def test_without_room_it_stays(whole: Whole) -> None:
    whole.write("pools/two", lambda row: setattr(row.status, "available_bytes", 2 * MIB))
    error = refused(whole)
    assert f"n2 has 1 MiB free for {ROOT}, which needs" in error.message


def test_without_a_pool_there_it_stays(whole: Whole) -> None:
    whole.write("pools/two", lambda row: setattr(row.status, "state", 2))
    assert f"n2 has no ready pool of its own to copy {ROOT}" in refused(whole).message


def test_snapshots_keep_it(whole: Whole, off: Whole) -> None:
    off.snapshot(ROOT)
    error = refused(off)
    assert f"cannot get the snapshots of {ROOT} (before): delete them first" in error.message


def test_what_another_vm_has_too_keeps_it(whole: Whole) -> None:
    other = vm_pb2.Vm(name="vms/db")
    other.spec.disks.add(id="root", volume=ROOT)
    other.spec.disks.add(id="disc", volume=DISC, read_only=True)
    whole.store.commit([Put(other)])
    error = refused(whole)
    assert f"cannot get {ROOT} while vms/db has it too" in error.message
    assert DISC not in error.message


def test_a_name_that_is_taken_gets_a_number(whole: Whole) -> None:
    request = storage_api.CreateVolumeRequest(parent="pools/two", volume_id="root")
    request.volume.spec.size_bytes = 8 * MIB
    whole.ask(volumes.create_volume, request)
    whole.calm()
    whole.migrate()
    whole.calm()
    assert whole.disks_of_vm()["root"] == "pools/two/volumes/root-2"
    assert whole.disk("pools/two/volumes/root-2").content == whole.last
    assert whole.disk("pools/two/volumes/root").content == ""


# --- What goes wrong.


def stays(whole: Whole, asked: str, reason: str, *words: str) -> None:
    """It did not move, runs where it was, and nothing is left."""
    whole.calm()
    whole.is_at("n1")
    failed = whole.operation(asked)
    error = PvcError.from_status(failed.error)
    assert error.reason_name == reason, error
    assert all(word in error.message for word in words), error.message
    assert not unfinished(whole)


def test_the_copies_fail(whole: Whole) -> None:
    whole.shelves[1].driver.free = 0
    stays(whole, whole.migrate(), "MIGRATION_FAILED", "could not be made", "free")


def test_the_copies_fail_of_one_that_was_shut_down(whole: Whole) -> None:
    whole.shelves[1].driver.free = 0
    stays(whole, whole.migrate("SHUTDOWN"), "MIGRATION_FAILED", "could not be made")


def test_the_hypervisor_fails(whole: Whole) -> None:
    whole.sides[0].hypervisor.script("web").migration_fails = "NBD server is gone"
    stays(whole, whole.migrate(), "MIGRATION_FAILED", "NBD server is gone")


def test_cancelled_while_places_are_made(whole: Whole) -> None:
    whole.shelves[1].stop()
    asked = whole.migrate()
    whole.until(lambda: any("CreateVolume" in x for x in unfinished(whole).values()))
    whole.cancel(asked)
    whole.until(lambda: not whole.vm.decision.HasField("migration"))
    whole.shelves[1].start()
    stays(whole, asked, "CANCELLED")


def test_cancelled_while_it_is_copied(whole: Whole) -> None:
    whole.sides[0].hypervisor.script("web").copying_s = 30
    asked = whole.migrate()
    whole.until(lambda: whole.wire.trips)
    whole.cancel(asked)
    stays(whole, asked, "CANCELLED")


def test_the_target_dies_while_places_are_made(whole: Whole) -> None:
    whole.shelves[1].stop()
    asked = whole.migrate()
    whole.until(lambda: any("CreateVolume" in x for x in unfinished(whole).values()))
    whole.dies(1)
    whole.until(lambda: not whole.vm.decision.HasField("migration"))
    whole.returns(1)
    stays(whole, asked, "MIGRATION_FAILED", "n2 is not online")


def test_the_target_dies_while_it_is_copied(whole: Whole) -> None:
    whole.sides[0].hypervisor.script("web").copying_s = 30
    asked = whole.migrate()
    whole.until(lambda: whole.wire.trips)
    whole.dies(1)
    whole.until(lambda: not whole.vm.decision.HasField("migration"))
    whole.returns(1)
    stays(whole, asked, "MIGRATION_FAILED")


def test_the_source_dies_while_it_is_copied(whole: Whole) -> None:
    """Its data are on its node alone: it waits for it there."""
    whole.sides[0].hypervisor.script("web").copying_s = 30
    asked = whole.migrate()
    whole.until(lambda: whole.wire.trips)
    whole.dies(0)
    whole.until(lambda: not whole.vm.decision.HasField("migration"))
    whole.calm()
    assert not any(side.runs() for side in whole.sides)
    whole.returns(0)
    whole.calm()
    whole.is_at("n1")
    assert whole.operation(asked).state == Operation.STATE_FAILED


def test_the_source_dies_once_it_runs_there(whole: Whole) -> None:
    """What it left is removed when its node is back."""
    whole.migrate()
    whole.until(lambda: whole.sides[1].runs())
    whole.dies(0)
    whole.until(lambda: whole.vm.decision.node == "nodes/n2")
    whole.calm()
    assert [left.volume for left in whole.vm.decision.left_volumes] == [ROOT, SEED]
    whole.returns(0)
    whole.calm()
    whole.is_at("n2")


def test_somebody_starts_it_while_it_is_copied(off: Whole) -> None:
    off.shelves[1].stop()
    off.migrate()
    off.until(lambda: any("CreateVolume" in x for x in unfinished(off).values()))
    off.power(ON)
    off.until(lambda: off.sides[0].runs())
    off.shelves[1].start()
    off.calm()
    off.is_at("n1")


def test_it_is_not_edited_meanwhile(whole: Whole) -> None:
    whole.sides[0].hypervisor.script("web").copying_s = 30
    whole.migrate()
    whole.until(lambda: whole.wire.trips)
    request = compute_api.DetachDiskRequest(name="vms/web", disk_id="disc")
    with pytest.raises(PvcError) as error:
        whole.ask(edits.detach_disk, request)
    assert error.value.reason_name == "BUSY" and "with its volumes" in error.value.message


def test_what_cannot_be_removed_is_named(whole: Whole) -> None:
    """It is tried some times, and then said once."""
    whole.migrate()
    whole.until(lambda: whole.vm.decision.node == "nodes/n2")
    whole.shelves[0].driver.open_paths.add("/one/volumes/root.qcow2")
    for _ in range(8):
        whole.clock.seconds += 61
        whole.until(lambda: not unfinished(whole), 8)
        whole.rounds(8)
    assert not whole.vm.decision.left_volumes
    assert any("left volumes behind" in message for message in whole.events())
    assert whole.shelves[0].disks() == ["disc.qcow2", "root.qcow2"]


# --- Whole nodes.


def drained(whole: Whole, **how: bool) -> Operation:
    request = api.DrainNodeRequest(name="nodes/n1", **how)
    asked = whole.ask(node_tasks.drain, request)
    whole.calm()
    return whole.operation(asked)


def test_a_node_is_emptied_and_gets_its_vm_back(whole: Whole) -> None:
    whole.write("vms/web", lambda row: row.spec.disks.pop())
    assert drained(whole, copy_volumes=True).state == Operation.STATE_SUCCEEDED
    whole.is_at("n2", discs=False)
    assert whole.vm.decision.home == "nodes/n1"
    asked = whole.ask(node_tasks.ready, api.ReadyNodeRequest(name="nodes/n1", copy_volumes=True))
    whole.calm()
    assert whole.operation(asked).state == Operation.STATE_SUCCEEDED
    assert whole.disks_of_vm() == {"root": ROOT, "seed": SEED}
    assert whole.vm.decision.node == "nodes/n1" and whole.vm.decision.home == ""


def test_without_the_flag_a_drain_names_it(whole: Whole) -> None:
    done = drained(whole)
    assert done.state == Operation.STATE_FAILED and "--copy-volumes" in done.error.message
    whole.is_at("n1")


def test_room_is_not_promised_twice(tmp_path: Path) -> None:
    """Two VMs leave at once, and there is room for the volume of one."""
    whole = Whole(tmp_path, disks=1)
    whole.add_vm("db")
    needs = copying.contents_bytes(world_of(whole.store.snapshot()), ROOT)
    whole.shelves[1].driver.free = free = MIB + needs + needs // 2
    pool = storage_pb2.Pool
    whole.until(lambda: whole.row(pool, "pools/two").status.available_bytes == free)
    whole.shelves[1].stop()
    whole.ask(node_tasks.drain, api.DrainNodeRequest(name="nodes/n1", copy_volumes=True))
    whole.rounds(20)
    vms = [whole.row(vm_pb2.Vm, f"vms/{name}") for name in ("web", "db")]
    assert [vm.decision.HasField("migration") for vm in vms].count(True) == 1
    (operation,) = [x for x, y in unfinished(whole).items() if y.endswith("/DrainNode")]
    assert "MiB free for" in whole.operation(operation).stage


# --- Cut anywhere.

STORIES = {"running": (ON, ""), "shut down": (ON, "SHUTDOWN"), "off": (OFF, "")}
STRIDE = 11
"""Every so many of the commits are tried; which ones differs between the stories."""


class Died(Cut):
    """One process of them all."""


class Fate:
    """The process that makes the n-th commit from now ends before it, or right after."""

    def __init__(self, whole: Whole, at: int, when: str) -> None:
        self.left, self.when, self.died = at, when, ""
        whole.cut = self.strike

    def strike(self, name: str, when: str) -> None:
        if when != self.when:
            return
        self.left -= 1
        if self.left == 0:
            self.died = name
            raise Died


def ends_well(whole: Whole, method: str, at: int, when: str) -> str:
    """Moves it, with a death in between; gives who died, "" when nobody did."""
    whole.migrate(method)
    fate = Fate(whole, at, when)
    for _ in range(160):
        try:
            whole.round()
        except Died:
            whole.restart(fate.died)
    whole.cut = lambda name, when: None
    whole.calm()
    return fate.died


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("story", STORIES)
def test_a_process_dies_at_any_commit(tmp_path: Path, story: str, when: str) -> None:
    power, method = STORIES[story]
    died = set()
    first = 1 + [*STORIES].index(story) * 2 + (when == "after")
    for at in range(first, 1000, STRIDE):
        whole = Whole(tmp_path / str(at), power, disks=2)
        name = ends_well(whole, method, at, when)
        if not name:
            break
        died.add(name)
        where = "n2" if whole.vm.decision.node == "nodes/n2" else "n1"
        (whole.is_at if power == ON else whole.is_of)(where)
        assert not unfinished(whole), (at, name)
    assert died, "there is nothing to be cut"

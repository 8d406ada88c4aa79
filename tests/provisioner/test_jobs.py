"""The provisioner's long work, beside the real storage service: its ends, its undoing, and the
death of its process at any call."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pycdlib
import pytest
import yaml

from pvc.compute.v1 import vm_pb2, vm_service_pb2
from pvc.core.v1 import event_pb2, reason_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.provisioner.v1.image_pb2 import ImageStatus
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.mesh import rows
from services.mesh.errors import PvcError
from services.mesh.jobs import ATTEMPTS_MAX
from services.mesh.log import safe
from services.mesh.rows import FINAL
from services.state.store import Put
from services.storage.drivers.fake import Died
from tests.provisioner.worlds import (
    CANCELLED,
    FAILED,
    IMAGE_BYTES,
    POOL,
    SUCCEEDED,
    Operation,
    World,
    build,
    provision,
    qcow2,
)

CONFIG = "#cloud-config\nruncmd: [[echo, hi]]\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def reason_of(operation: Operation) -> str:
    return PvcError.from_status(operation.error).reason_name


def upload(world: World, content: bytes) -> str:
    upload = world.storage.files.begin(len(content), "", "disk.qcow2")
    upload.write(content)
    return upload.finish().name


def fails(kind: type, reason: int = reason_pb2.REASON_STORAGE_FAILED) -> Callable[[object], None]:
    """Requests of a kind are refused."""

    def fault(request: object) -> None:
        if isinstance(request, kind) and not getattr(request, "validate_only", False):
            raise PvcError(reason, "not today")  # type: ignore[arg-type]

    return fault


# --- Images.


def test_a_built_image_is_a_sealed_volume(world: World) -> None:
    operation = world.do(build())
    assert operation.state == SUCCEEDED, operation.error
    image = world.image()
    assert image is not None and image.status.state == ImageStatus.STATE_READY
    assert image.status.size_bytes == IMAGE_BYTES
    assert image.status.origin == "recipe debian-12" and len(image.status.recipe_hash) == 64
    assert "systemd" in image.spec.description
    volume = world.storage.volume("image-debian")
    assert volume is not None and volume.spec.sealed and volume.name == image.status.volume
    assert [line.text for line in operation.log if "packages" in line.text]
    told = [row.message for row in world.outside.snapshot().rows(event_pb2.Event)]
    assert told[-1:] == ["images/debian is ready"]
    world.nothing_lies_about()


def test_the_same_recipe_is_built_once(world: World) -> None:
    world.do(build("one"))
    operation = world.do(build("two"))
    assert operation.state == SUCCEEDED and world.builder.builds == ["debian-12"]
    assert any("was built before" in line.text for line in operation.log)
    assert world.volumes() == ["image-one", "image-two"]


@pytest.mark.parametrize("damage", ["shorter", "other", "card", "old"])
def test_a_cached_image_that_is_not_what_was_built_is_built_anew(world: World, damage: str) -> None:
    world.do(build("one"))
    (file,) = (world.folder / "cache").glob("*.qcow2")
    (card,) = (world.folder / "cache").glob("*.json")
    match damage:
        case "shorter":
            file.write_bytes(qcow2()[:100])
        case "other":
            file.write_bytes(qcow2()[:-1] + b"x")
        case "card":
            card.write_text("{")
        case "old":
            world.clock.seconds += 8 * 24 * 3600
    assert world.do(build("two")).state == SUCCEEDED
    assert world.builder.builds == ["debian-12", "debian-12"]
    assert file.read_bytes() == qcow2()


def test_the_cache_keeps_three_images(world: World) -> None:
    for count in range(5):
        text = f'name = "r{count}"\nrelease = "bookworm"\npackages = ["systemd"]\n'
        assert world.do(build(f"i{count}", recipe_text=text)).state == SUCCEEDED
    assert len(list((world.folder / "cache").glob("*.qcow2"))) == 3
    assert len(list((world.folder / "cache").iterdir())) == 6


def test_a_failed_build_says_why_and_may_be_repeated(world: World) -> None:
    def fault(task: object) -> None:
        raise PvcError(reason_pb2.REASON_BUILD_FAILED, "mmdebstrap ended with status 1")

    world.builder.fault = fault
    operation = world.do(build())
    assert operation.state == FAILED and reason_of(operation) == "BUILD_FAILED"
    image = world.image()
    assert image is not None and image.status.state == ImageStatus.STATE_FAILED
    assert "mmdebstrap" in image.status.why and world.volumes() == []
    world.builder.fault = lambda task: None
    assert world.do(build()).state == SUCCEEDED
    image = world.image()
    assert image is not None and image.status.state == ImageStatus.STATE_READY
    assert image.status.why == ""


def test_a_cancelled_build_leaves_nothing(world: World) -> None:
    name = world.ask(build()).name
    world.builder.fault = lambda task: (world.cancel(name), task.check())[1]  # type: ignore[func-returns-value]
    world.jobs.step()
    assert world.operation(name).state == CANCELLED
    assert world.image() is None and world.volumes() == []


def test_an_import_that_storage_refuses_leaves_a_failed_image(world: World) -> None:
    world.neighbours.fault = fails(storage_service_pb2.ImportVolumeRequest)
    operation = world.do(build())
    assert operation.state == FAILED and reason_of(operation) == "STORAGE_FAILED"
    assert world.volumes() == []
    world.nothing_lies_about()


def test_an_uploaded_image_is_imported(world: World) -> None:
    file = upload(world, qcow2())
    request = api.ImportImageRequest(image_id="mine", file=file, pool=POOL, description="my own")
    assert world.do(request).state == SUCCEEDED
    image = world.image("mine")
    assert image is not None and image.spec.description == "my own"
    assert image.status.origin == f"file {file.removeprefix('files/')}"
    volume = world.storage.volume("image-mine")
    assert volume is not None and volume.spec.sealed


def test_a_file_that_goes_meanwhile_fails_the_image(world: World) -> None:
    file = upload(world, qcow2())
    name = world.ask(api.ImportImageRequest(image_id="mine", file=file, pool=POOL)).name
    world.storage.files.drop(file)
    world.jobs.step()
    assert reason_of(world.operation(name)) == "DANGLING_REFERENCE"
    image = world.image("mine")
    assert image is not None and "does not exist" in image.status.why


def test_removing_an_image_removes_its_volume(world: World) -> None:
    world.with_image()
    assert world.do(api.DeleteImageRequest(name="images/debian")).state == SUCCEEDED
    assert world.image() is None and world.volumes() == []
    world.nothing_lies_about()


def test_an_image_that_could_not_be_removed_stays_what_it_was(world: World) -> None:
    world.with_image().neighbours.fault = fails(storage_service_pb2.DeleteVolumeRequest)
    assert world.do(api.DeleteImageRequest(name="images/debian")).state == FAILED
    image = world.image()
    assert image is not None and not image.meta.HasField("delete_time")
    assert image.status.state == ImageStatus.STATE_READY


# --- VMs.


def test_a_vm_from_an_image(world: World) -> None:
    spec = vm_pb2.VmSpec(memory={"memory_mib": 256})
    request = provision(spec=spec, root_size_bytes=2 * IMAGE_BYTES)
    request.cloud_init.user_data = CONFIG
    operation = world.with_image().do(request)
    assert operation.state == SUCCEEDED, operation.error
    vm = world.vm()
    assert vm is not None and vm.status.state == vm_pb2.VM_STATE_RUNNING
    root, seed = vm.spec.disks
    assert (root.id, root.boot_order, seed.id, seed.read_only) == ("root", 1, "seed", True)
    assert seed.device == vm_pb2.DISK_DEVICE_CDROM
    assert seed.bus == vm_pb2.DISK_BUS_VIRTIO_SCSI
    (nic,) = vm.spec.nics
    assert (nic.id, nic.network) == ("net0", "networks/default")
    volume = world.storage.volume("web-root")
    assert volume is not None and volume.status.parent == f"{POOL}/volumes/image-debian"
    assert volume.status.size_bytes == 2 * IMAGE_BYTES
    seeded = world.storage.volume("web-seed")
    assert seeded is not None and seeded.spec.sealed
    assert seeded.spec.format == storage_pb2.IMAGE_FORMAT_RAW
    result = vm_pb2.Vm()
    assert operation.result.Unpack(result) and result.name == "vms/web"
    world.nothing_lies_about()


def test_the_seed_says_who_the_vm_is_and_the_state_never_has_its_secrets(world: World) -> None:
    request = provision()
    request.cloud_init.user_data = CONFIG + "password: hunter2\n"
    name = world.with_image().ask(request).name
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(world.seeds.read(name)))
    found = {}
    for file in ("user-data", "meta-data", "network-config"):
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, joliet_path=f"/{file}")
        found[file] = content.getvalue().decode()
    world.jobs.step()
    vm = world.vm()
    assert vm is not None
    meta = yaml.safe_load(found["meta-data"])
    assert meta == {"instance-id": vm.spec.uuid, "local-hostname": "web"}
    assert vm.spec.nics[0].mac in found["network-config"]
    assert "hunter2" in found["user-data"] and "hunter2" not in safe(request)
    for table in world.outside.snapshot().tables.values():
        for row in table.values():
            assert b"hunter2" not in row.SerializeToString()
    world.sweep.step()
    assert list((world.folder / "seeds").iterdir()) == []


@pytest.mark.parametrize(
    "kind",
    [
        storage_service_pb2.CreateVolumeRequest,
        storage_service_pb2.ImportVolumeRequest,
        vm_service_pb2.CreateVmRequest,
    ],
)
def test_a_step_that_fails_undoes_the_ones_before(world: World, kind: type) -> None:
    world.with_image().neighbours.fault = fails(kind)
    operation = world.do(provision())
    assert operation.state == FAILED and "not today" in operation.error.message
    assert world.vm() is None and world.volumes() == ["image-debian"]
    world.nothing_lies_about()


def test_a_vm_that_no_node_takes_is_taken_away_again(world: World) -> None:
    def no_node(operation: Operation) -> None:
        if operation.method.endswith("DeleteVm"):
            return real(operation)
        error = PvcError(reason_pb2.REASON_NO_NODE_FITS, "n1: 0 MiB free")
        after = rows.enter_operation(operation, FAILED, world.clock.now(), error=error)
        world.outside.commit([Put(after)])

    real, world.run_vm = world.run_vm, no_node  # type: ignore[method-assign]
    operation = world.with_image().do(provision())
    assert reason_of(operation) == "NO_NODE_FITS"
    assert world.vm() is None and world.volumes() == ["image-debian"]


@pytest.mark.parametrize("at", ["CreateVolume", "ImportVolume", "CreateVm"])
def test_a_cancel_during_any_step_leaves_nothing(world: World, at: str) -> None:
    name = world.with_image().ask(provision()).name

    def working(inner: str) -> None:
        if world.operation(inner).method.endswith(f"/{at}"):
            world.cancel(name)

    world.neighbours.working = working
    world.jobs.step()
    assert world.operation(name).state == CANCELLED
    assert world.vm() is None and world.volumes() == ["image-debian"]
    world.nothing_lies_about()


def test_a_cancel_reaches_the_work_of_others(world: World) -> None:
    """The storage service is at it when the cancel comes: it is told, and waited for."""
    name = world.with_image().ask(provision()).name
    held: list[str] = []

    def hold(inner: str) -> None:
        operation = world.operation(inner)
        if operation.method.endswith("/CreateVolume") and not held:
            held.append(inner)
            world.storage.jobs.step = lambda: None  # type: ignore[method-assign]
            world.cancel(name)

    def unhold(request: object) -> None:
        if type(request).__name__ == "CancelOperationRequest":
            del world.storage.jobs.step  # type: ignore[method-assign]

    world.neighbours.working, world.neighbours.fault = hold, unhold
    world.jobs.step()
    assert world.operation(held[0]).state == CANCELLED
    assert world.operation(name).state == CANCELLED
    assert world.volumes() == ["image-debian"]


def test_what_is_another_s_is_never_removed(world: World) -> None:
    """Somebody makes a volume of that name after the request was accepted."""
    name = world.with_image().ask(provision()).name
    world.storage.create("web-root")
    world.jobs.step()
    assert reason_of(world.operation(name)) == "ALREADY_EXISTS"
    assert world.volumes() == ["image-debian", "web-root"]


def test_another_s_vm_is_never_removed(world: World) -> None:
    name = world.with_image().ask(provision()).name
    bobs = vm_pb2.Vm(spec=vm_pb2.VmSpec(description="bob's"))
    world.neighbours.begin(vm_service_pb2.CreateVmRequest(vm_id="web", vm=bobs), "bob")
    world.jobs.step()
    assert reason_of(world.operation(name)) == "ALREADY_EXISTS"
    assert world.vm() is not None and world.volumes() == ["image-debian"]


def test_the_seed_goes_after_its_vm_and_root(world: World) -> None:
    world.with_image().do(provision())
    world.neighbours.begin(vm_service_pb2.DeleteVmRequest(name="vms/web", force=True), "bob")
    world.sweep.step()
    assert world.volumes() == ["image-debian", "web-root", "web-seed"]
    root = f"{POOL}/volumes/web-root"
    world.neighbours.begin(storage_service_pb2.DeleteVolumeRequest(name=root), "bob")
    world.sweep.step()
    assert world.volumes() == ["image-debian"]


def test_an_old_seed_does_not_stand_in_the_way(world: World) -> None:
    world.with_image().do(provision())
    world.neighbours.begin(vm_service_pb2.DeleteVmRequest(name="vms/web", force=True), "bob")
    root = f"{POOL}/volumes/web-root"
    world.neighbours.begin(storage_service_pb2.DeleteVolumeRequest(name=root), "bob")
    assert world.volumes() == ["image-debian", "web-seed"]
    assert world.do(provision()).state == SUCCEEDED
    assert world.volumes() == ["image-debian", "web-root", "web-seed"]


# --- Deaths.


def uploaded(world: World) -> None:
    upload(world, qcow2())


def import_it(world: World) -> api.ImportImageRequest:
    (file,) = world.storage.files.all()
    return api.ImportImageRequest(image_id="debian", file=file.name, pool=POOL)


def image_there(world: World) -> None:
    image = world.image()
    assert image is not None and image.status.state == ImageStatus.STATE_READY
    assert world.volumes() == ["image-debian"]


def vm_there(world: World) -> None:
    vm = world.vm()
    assert vm is not None and vm.status.state == vm_pb2.VM_STATE_RUNNING
    assert world.volumes() == ["image-debian", "web-root", "web-seed"]
    made = [text for text in world.neighbours.begun if text.startswith("Create")]
    assert len(made) == len(set(made)) == 2, made


def image_gone(world: World) -> None:
    assert world.image() is None and world.volumes() == []


def nothing_made(world: World) -> None:
    assert world.vm() is None and world.volumes() == ["image-debian"]


Story = tuple[Callable[[World], object], Callable[[World], object], Callable[[World], None]]
STORIES: dict[str, Story] = {
    "build": (lambda world: None, lambda world: build(), image_there),
    "import": (uploaded, import_it, image_there),
    "delete": (
        World.with_image,
        lambda world: api.DeleteImageRequest(name="images/debian"),
        image_gone,
    ),
    "provision": (World.with_image, lambda world: provision(), vm_there),
}


@pytest.mark.parametrize("story", STORIES)
def test_dying_at_any_call(story: str, tmp_path: Path) -> None:
    """Every call to the outside is the process's last, once: the next one goes on to the end."""
    begin, request, check = STORIES[story]
    died = 0
    for cut in range(1, 200):
        world = World(tmp_path / str(cut))
        begin(world)
        name = world.ask(request(world)).name
        world.countdown = cut
        try:
            world.jobs.step()
        except Died:
            died += 1
            world.die()
            world.jobs.step()
        else:
            break
        operation = world.operation(name)
        assert operation.state == SUCCEEDED, (cut, operation.error)
        check(world)
    assert died > 4, "the story was never cut"


@pytest.mark.parametrize("story", ["build", "provision"])
@pytest.mark.parametrize("first", [3, 6, 9, 12, 15])
def test_dying_while_undoing(story: str, first: int, tmp_path: Path) -> None:
    """The process dies on the way there, then again at any call of undoing a cancel."""
    begin, request, _ = STORIES[story]
    for cut in range(1, 100):
        world = World(tmp_path / f"{first}-{cut}")
        begin(world)
        name = world.ask(request(world)).name
        died = _die_at(world, first)
        if not died:
            return
        world.cancel(name)
        died = _die_at(world, cut)
        if died:
            world.jobs.step()
        operation = world.operation(name)
        assert operation.state in (CANCELLED, SUCCEEDED), (cut, operation.error)
        if operation.state == CANCELLED:
            (image_gone if story == "build" else nothing_made)(world)
        if not died:
            return


def _die_at(world: World, cut: int) -> bool:
    world.countdown = cut
    try:
        world.jobs.step()
    except Died:
        world.die()
        return True
    world.countdown = -1
    return False


def test_what_was_given_up_is_swept(world: World) -> None:
    """A worker that always dies: nothing of the VM remains, and the operation says so."""
    name = world.with_image().ask(provision()).name
    for cut in (14, 3, 3):
        assert _die_at(world, cut)
    world.jobs.step()
    assert reason_of(world.operation(name)) == "INTERRUPTED"
    assert world.volumes() != ["image-debian"]
    world.sweep.step()
    nothing_made(world)


def test_an_image_that_was_given_up_is_failed(world: World) -> None:
    name = world.ask(build()).name
    for _ in range(ATTEMPTS_MAX):
        assert _die_at(world, 3)
    world.jobs.step()
    assert world.operation(name).state in FINAL
    world.sweep.step()
    image = world.image()
    assert image is not None and image.status.state == ImageStatus.STATE_FAILED
    assert world.do(build()).state == SUCCEEDED


def test_a_worker_that_lost_its_operation_undoes_nothing(world: World) -> None:
    """Its session ended in the middle; the next worker's things are not its own."""
    name = world.with_image().ask(provision()).name

    def lose(inner: str) -> None:
        if world.operation(inner).method.endswith("/ImportVolume"):
            world.neighbours.working = lambda operation: None
            world.store.lose_session()

    world.neighbours.working = lose
    world.jobs.step()
    assert world.operation(name).state not in FINAL
    assert world.volumes() == ["image-debian", "web-root", "web-seed"]
    world.jobs.step()
    assert world.operation(name).state == SUCCEEDED
    vm_there(world)


def test_work_that_nobody_does_is_not_waited_for_for_ever(world: World) -> None:
    world.with_image().storage.jobs.step = lambda: None  # type: ignore[method-assign]
    operation = world.do(provision())
    assert reason_of(operation) == "DEADLINE"
    assert "undoing it failed too" in operation.error.message

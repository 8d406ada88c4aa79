"""What the provisioner accepts and refuses, before anything is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.provisioner.v1.image_pb2 import Image, ImageStatus
from pvc.storage.v1 import storage_pb2
from services.mesh import rows
from services.mesh.errors import PvcError
from services.mesh.validate import check_request
from services.provisioner.build import builtin_recipes
from services.provisioner.core import facts
from services.provisioner.core.recipe import content_hash, parse_recipe
from services.provisioner.service import listed_recipes
from services.state.store import Put
from tests.provisioner.worlds import IMAGE_BYTES, POOL, Operation, World, build, provision

HOSTILE_RECIPES = {
    "not TOML": "name = ",
    "NUL": 'name = "a\0"',
    "unknown key": 'name = "a"\nrelease = "bookworm"\npackages = ["systemd"]\nhook = "rm"',
    "shell in a package": 'name = "a"\nrelease = "bookworm"\npackages = ["x; rm -rf /"]',
    "option as a package": 'name = "a"\nrelease = "bookworm"\npackages = ["--include=x"]',
    "path out of the image": 'name = "a"\nrelease = "bookworm"\npackages = ["systemd"]\n'
    '[[files]]\npath = "/../etc/passwd"\ncontent = ""',
    "huge": "#" * 131073,
    "surrogate": "# \ud800",
    "nothing": " ",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refused(world: World, request: Any, reason: str, field: str, text: str = "") -> PvcError:
    """The request is refused, and nothing is changed."""
    before, seeds = world.outside.snapshot().revision, sorted(world.folder.glob("seeds/*"))
    plan = world.plan_of(request)
    with pytest.raises(PvcError) as caught:
        world.desk._mutate(request, plan, "token ann")
    error = caught.value
    assert (error.reason_name, error.field) == (reason, field), error
    assert text in error.message
    assert world.outside.snapshot().revision == before
    assert sorted(world.folder.glob("seeds/*")) == seeds
    return error


def change(world: World, row: Any) -> None:
    there = world.outside.snapshot().named(row.name)
    row.meta.etag = there.meta.etag if there is not None else ""  # type: ignore[attr-defined]
    world.outside.commit([Put(row)])


# --- Images.


def test_an_accepted_build_holds_its_place(world: World) -> None:
    operation = world.ask(build())
    assert operation.method == "pvc.provisioner.v1.ProvisionerService/BuildImage"
    assert (operation.service, operation.node) == ("provisioner", "nodes/n1")
    image = world.image()
    assert image is not None and image.status.state == ImageStatus.STATE_CREATING
    recipe = parse_recipe(builtin_recipes()["debian-12"])
    assert image.status.recipe_hash == content_hash(recipe)
    refused(world, build(), "BUSY", "image_id", operation.name)


@pytest.mark.parametrize("what", HOSTILE_RECIPES)
def test_a_hostile_recipe_is_refused(world: World, what: str) -> None:
    try:
        request = build(recipe_text=HOSTILE_RECIPES[what])
    except (ValueError, UnicodeEncodeError):
        assert what == "surrogate"
        return
    refused(world, request, "INVALID_CONTENT", "recipe_text")


def test_a_refused_recipe_names_its_field_too(world: World) -> None:
    request = build(recipe_text=HOSTILE_RECIPES["unknown key"])
    error = refused(world, request, "INVALID_CONTENT", "recipe_text", "hook")
    assert error.metadata["recipe_field"] == "hook"


def test_an_unknown_recipe_is_refused_with_the_nearest(world: World) -> None:
    request = build(recipe_id="debian-21")
    refused(world, request, "INVALID_FIELD", "recipe_id", 'did you mean "debian-12"?')


def test_a_build_needs_a_recipe(world: World) -> None:
    request = api.BuildImageRequest(image_id="debian", pool=POOL)
    refused(world, request, "INVALID_FIELD", "recipe_id")


@pytest.mark.parametrize("image_id", ["../x", "UPPER", "a" * 58, "-a", "a\n", "é"])
def test_ids_that_are_no_names_break_the_contract(image_id: str) -> None:
    with pytest.raises(PvcError) as caught:
        check_request(build(image_id))
    assert caught.value.field == "image_id"


def test_the_longest_ids_leave_room_for_their_volumes(world: World) -> None:
    image_id, vm_id = "i" * 57, "v" * 58
    assert world.do(build(image_id)).state == Operation.STATE_SUCCEEDED
    operation = world.do(provision(vm_id, image=f"images/{image_id}"))
    assert operation.state == Operation.STATE_SUCCEEDED, operation.error
    assert all(len(volume) <= 63 for volume in world.volumes())


def test_an_image_is_made_once(world: World) -> None:
    refused(world.with_image(), build(), "ALREADY_EXISTS", "image_id")


def test_an_image_needs_its_volume_s_name(world: World) -> None:
    world.storage.create("image-debian")
    refused(world, build(), "ALREADY_EXISTS", "image_id", "image-debian")


def test_an_image_needs_a_pool(world: World) -> None:
    request = build()
    request.pool = "pools/none"
    refused(world, request, "DANGLING_REFERENCE", "pool", "pools/none")


@pytest.mark.parametrize("what", ["failed", "deleted"])
def test_an_image_needs_a_pool_that_can_be_used(world: World, what: str) -> None:
    pool = rows.copied(world.storage.pool())
    if what == "failed":
        pool.status.state, pool.status.why = storage_pb2.PoolStatus.STATE_FAILED, "gone"
    else:
        pool.meta.delete_time.CopyFrom(world.clock.now())
    change(world, pool)
    refused(world, build(), "WRONG_STATE", "pool")


def test_a_file_that_is_not_there_is_refused(world: World) -> None:
    request = api.ImportImageRequest(image_id="mine", file="files/n1." + "0" * 26, pool=POOL)
    refused(world, request, "DANGLING_REFERENCE", "file")


def test_a_dry_run_changes_nothing_and_says_what_would_be(world: World) -> None:
    before = world.outside.snapshot().revision
    answer = world.ask(build(validate_only=True))
    assert answer.name == "" and "images/debian" in answer.stage
    assert world.outside.snapshot().revision == before


def test_a_repeated_request_is_one(world: World) -> None:
    first = world.ask(build(request_id="r1"))
    assert world.ask(build(request_id="r1")).name == first.name
    refused(world, build("other", request_id="r1"), "REQUEST_ID_REUSED", "request_id")


def test_only_what_is_there_is_removed(world: World) -> None:
    request = api.DeleteImageRequest(name="images/none")
    refused(world, request, "NOT_FOUND", "name")


def test_an_image_is_removed_as_it_was_seen(world: World) -> None:
    request = api.DeleteImageRequest(name="images/debian", etag="999999")
    refused(world.with_image(), request, "ETAG_MISMATCH", "etag")


def test_an_image_with_copies_stays(world: World) -> None:
    world.with_image().do(provision())
    request = api.DeleteImageRequest(name="images/debian")
    error = refused(world, request, "IN_USE", "name", "web-root")
    assert error.metadata["volumes"] == f"{POOL}/volumes/web-root"


def test_an_image_that_a_vm_is_being_made_from_stays(world: World) -> None:
    operation = world.with_image().ask(provision())
    request = api.DeleteImageRequest(name="images/debian")
    refused(world, request, "BUSY", "name", operation.name)


# --- VMs.


def with_disk(**fields: Any) -> vm_pb2.VmSpec:
    return vm_pb2.VmSpec(disks=[vm_pb2.DiskSpec(**fields)])


def nic(**fields: Any) -> vm_pb2.VmSpec:
    return vm_pb2.VmSpec(nics=[vm_pb2.NicSpec(id="lan", network="networks/default", **fields)])


REFUSED: dict[str, tuple[Any, str, str]] = {
    "no such image": ({"image": "images/none"}, "DANGLING_REFERENCE", "image"),
    "no such pool": ({"pool": "pools/none"}, "DANGLING_REFERENCE", "pool"),
    "no such network": ({"network": "networks/none"}, "DANGLING_REFERENCE", "network"),
    "root too small": ({"root_size_bytes": IMAGE_BYTES - 512}, "INVALID_FIELD", "root_size_bytes"),
    "a drive root": ({"spec": with_disk(id="root")}, "INVALID_FIELD", "spec.disks[0].id"),
    "a drive seed": ({"spec": with_disk(id="seed")}, "INVALID_FIELD", "spec.disks[0].id"),
    "drive boots first": (
        {"spec": with_disk(id="a", boot_order=1)}, "INVALID_FIELD", "spec.disks[0].boot_order",
    ),
    "interface boots first": (
        {"spec": nic(boot_order=1)}, "INVALID_FIELD", "spec.nics[0].boot_order",
    ),
    "network and interfaces": (
        {"spec": nic(), "network": "networks/default"}, "INVALID_FIELD", "network",
    ),
    "interface nowhere": (
        {"spec": vm_pb2.VmSpec(nics=[vm_pb2.NicSpec(id="a", network="networks/no")])},
        "DANGLING_REFERENCE", "spec.nics[0].network",
    ),
    "too many drives": (
        {"spec": vm_pb2.VmSpec(disks=[vm_pb2.DiskSpec(id=f"d{i}") for i in range(31)])},
        "INVALID_FIELD", "spec.disks",
    ),
    "compute: no such volume": (
        {"spec": with_disk(id="a", volume=f"{POOL}/volumes/none")},
        "DANGLING_REFERENCE", "spec.disks[0].volume",
    ),
    "compute: a disk without volume": (
        {"spec": with_disk(id="a")}, "INVALID_FIELD", "spec.disks[0].volume",
    ),
    "compute: cpus": (
        {"spec": vm_pb2.VmSpec(cpu={"vcpus": 4, "max_vcpus": 2})},
        "INVALID_FIELD", "spec.cpu.vcpus",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_vm_that_cannot_be_is_refused(world: World, what: str) -> None:
    fields, reason, field = REFUSED[what]
    refused(world.with_image(), provision(**fields), reason, field)


CLOUD_INIT: dict[str, tuple[dict[str, str], str]] = {
    "NUL": ({"user_data": "#cloud-config\na: \0"}, "cloud_init.user_data"),
    "not YAML": ({"user_data": "#cloud-config\na: [b"}, "cloud_init.user_data"),
    "no mapping": ({"user_data": "#cloud-config\n- a\n"}, "cloud_init.user_data"),
    "no header": ({"user_data": "hostname: web\n"}, "cloud_init.user_data"),
    "huge": ({"user_data": "#!/bin/sh\n" + "é" * 65536}, "cloud_init.user_data"),
    "aliases": ({"user_data": "#cloud-config\na: &a [b]\nc: [*a, *a]"}, "cloud_init.user_data"),
    "objects": (
        {"user_data": "#cloud-config\na: !!python/object/apply:os.system [ls]"},
        "cloud_init.user_data",
    ),
    "meta data": ({"meta_data": "- a"}, "cloud_init.meta_data"),
    "host name": ({"meta_data": "local-hostname: 'a b'"}, "cloud_init.meta_data.local-hostname"),
    "network data": ({"network_data": "version: 1"}, "cloud_init.network_data"),
}


@pytest.mark.parametrize("what", CLOUD_INIT)
def test_hostile_cloud_init_data_is_refused(world: World, what: str) -> None:
    texts, field = CLOUD_INIT[what]
    request = provision()
    for name, text in texts.items():
        setattr(request.cloud_init, name, text)
    refused(world.with_image(), request, "INVALID_CONTENT", field)


def test_a_vm_is_made_once(world: World) -> None:
    world.with_image().do(provision())
    refused(world, provision(), "ALREADY_EXISTS", "vm_id", "vms/web")


def test_one_operation_makes_a_vm(world: World) -> None:
    operation = world.with_image().ask(provision())
    with pytest.raises(PvcError) as caught:
        world.ask(provision())
    assert caught.value.reason == reason_pb2.REASON_BUSY
    assert operation.name in caught.value.message


@pytest.mark.parametrize("volume", ["web-root", "web-seed"])
def test_the_names_of_its_volumes_must_be_free(world: World, volume: str) -> None:
    world.with_image().storage.create(volume)
    refused(world, provision(), "ALREADY_EXISTS", "vm_id", volume)


@pytest.mark.parametrize("what", ["failed", "deleted"])
def test_the_image_must_be_ready(world: World, what: str) -> None:
    image = rows.copied(world.with_image().image() or Image())
    if what == "failed":
        image.status.state, image.status.why = ImageStatus.STATE_FAILED, "no mirror"
    else:
        image.meta.delete_time.CopyFrom(world.clock.now())
    change(world, image)
    refused(world, provision(), "WRONG_STATE", "image")


def test_an_image_of_another_node_cannot_be_taken(world: World) -> None:
    pool = rows.copied(world.with_image().storage.pool())
    pool.name, pool.spec.node = "pools/far", "nodes/n2"
    change(world, pool)
    refused(world, provision(pool="pools/far"), "NOT_SUPPORTED", "pool", "nodes/n2")


def test_a_dry_run_of_a_vm_says_where_and_keeps_no_seed(world: World) -> None:
    before = world.with_image().outside.snapshot().revision
    answer = world.ask(provision(validate_only=True))
    assert answer.name == "" and POOL in answer.stage
    assert world.outside.snapshot().revision == before
    assert not (world.folder / "seeds").exists()


def test_what_is_accepted_is_filled_in(world: World) -> None:
    answer = world.with_image().ask(provision(spec=nic()))
    accepted = api.ProvisionVmRequest()
    assert answer.request.Unpack(accepted)
    assert accepted.pool == POOL and accepted.root_size_bytes == IMAGE_BYTES
    assert accepted.spec.nics[0].mac.startswith("52:54:00:") and len(accepted.spec.uuid) == 36
    (seed,) = (world.folder / "seeds").iterdir()
    assert seed.stat().st_mode & 0o777 == 0o600
    assert f"operations/{seed.stem}" == answer.name


def test_hardware_addresses_are_nobody_else_s(world: World) -> None:
    for vm_id in ("a", "b", "c"):
        world.with_image() if vm_id == "a" else None
        world.do(provision(vm_id))
    macs = [
        nic.mac for vm_id in ("a", "b", "c") for nic in (world.vm(vm_id) or vm_pb2.Vm()).spec.nics
    ]
    assert len(set(macs)) == 3


def test_seeds_without_an_operation_go_after_a_while(world: World) -> None:
    """Their request was never accepted."""
    world.seeds.keep("operations/never", b"secret")
    (seed,) = (world.folder / "seeds").iterdir()
    world.clock.seconds = int(seed.stat().st_mtime) + 10
    world.sweep.step()
    assert seed.exists()
    world.clock.seconds += 600
    world.sweep.step()
    assert not seed.exists()


def test_recipes_are_listed_with_their_texts() -> None:
    (recipe,) = listed_recipes(builtin_recipes()).recipes
    assert recipe.id == "debian-12" and "Debian" in recipe.description
    assert parse_recipe(recipe.text).name == "debian-12"


def test_long_lists_are_cut() -> None:
    assert facts.listed(["a", "b"]) == "a, b"
    assert facts.listed(list("abcdefg")) == "a, b, c, d, e and 2 more"

"""The order of a build's steps and what it says of them, without running any."""

from pathlib import Path

import pytest

from services.provisioner import build
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import Recipe, parse_recipe
from services.provisioner.drivers.child import ChildCancelled
from services.provisioner.drivers.image_build import (
    ImageBuild,
    make_bootable,
    prune_cache,
    publish,
)

SMALL = Recipe("small", "", "bookworm", ("busybox",), size_mib=512)


def test_every_builtin_recipe_is_valid_and_named_as_its_file() -> None:
    recipes = build.builtin_recipes()
    assert recipes and all(parse_recipe(text).name == name for name, text in recipes.items())


def test_progress_only_grows_and_repeats_nothing() -> None:
    seen: list[build.BuildProgress] = []
    stages = build._Stages(seen.append, lambda: False)
    stages.enter("packages")
    for percent in (0, 50, 50, 20, 100, 300):
        stages.percent(percent)
    stages.line("Setting up vim")
    stages.enter("done")
    assert [p.percent for p in seen] == [1, 41, 82, 82, 100]
    assert seen[3].line == "Setting up vim" and set(stages.seconds) == {"packages"}


def test_a_cancel_is_noticed_between_stages() -> None:
    with pytest.raises(ChildCancelled):
        build._Stages(lambda _: None, lambda: True).enter("disk")


def test_packages_that_do_not_fit_name_the_size_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "tree_bytes", lambda _: 800 * build.MIB)
    with pytest.raises(FieldProblem, match="need 1064 MiB") as caught:
        build._make_disk(ImageBuild(tmp_path, tmp_path, lambda: False), SMALL)
    assert caught.value.field == "size_mib"


def test_boot_parts_are_written_in_their_places(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"t" * 512 + bytes(2048))
    make_bootable(disk, lambda first, boot: first[:256] + boot[:256], 1024, b"core")
    written = disk.read_bytes()
    assert written[:256] == b"t" * 256 and written[256:512] != b"t" * 256
    assert written[1024:1028] == b"core" and len(written) == 2560


def test_a_finished_image_appears_whole(tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"new")
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "image"
    target.write_bytes(b"old")
    publish(tmp_path / "made", target)
    assert target.read_bytes() == b"new" and list((tmp_path / "there").iterdir()) == [target]


def test_only_old_archives_leave_the_cache(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"")
    written = (tmp_path / "a.deb").stat().st_mtime
    prune_cache(tmp_path, written + 29 * 86400)
    assert (tmp_path / "a.deb").exists()
    prune_cache(tmp_path, written + 31 * 86400)
    assert not (tmp_path / "a.deb").exists()


@pytest.mark.parametrize("kernel", ["vmlinuz", "vmlinuz.old"])
def test_initramfs_link_follows_the_kernels(tmp_path: Path, kernel: str) -> None:
    (tmp_path / kernel).symlink_to("boot/vmlinuz-6.1.0-1-cloud-amd64")
    build._link_initramfs(tmp_path)
    link = tmp_path / kernel.replace("vmlinuz", "initrd.img")
    assert link.readlink() == Path("boot/initrd.img-6.1.0-1-cloud-amd64")

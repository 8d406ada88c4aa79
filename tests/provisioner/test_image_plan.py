"""What a recipe becomes: the files of the image and the installer's command line, as goldens."""

import hashlib
import json

from services.provisioner.build import builtin_recipes
from services.provisioner.core import bootable_disk
from services.provisioner.core.apt_sources import AptSource
from services.provisioner.core.bootstrap import (
    BootstrapPaths,
    BootstrapProgress,
    bootstrap_arguments,
    follow,
)
from services.provisioner.core.guest_files import grub_config, image_files, image_links
from services.provisioner.core.recipe import (
    BUILDER_VERSION,
    CloudInit,
    ImageFile,
    Recipe,
    parse_recipe,
)
from tests.provisioner.golden import FOLDER, check_golden

SOURCES = (AptSource("http://mirror.example.org/debian", "bookworm", ("main",)),)
DEBIAN = parse_recipe(builtin_recipes()["debian-12"])
SMALL = Recipe("s", "", "bookworm", ("a",), files=(ImageFile("/etc/hosts", "mine\n"),))


def test_installer_arguments() -> None:
    paths = BootstrapPaths("/w/root", "/w/fill-cache", "/w/keep-cache")
    arguments = bootstrap_arguments(DEBIAN, SOURCES, ('Acquire::Retries "3"',), paths)
    check_golden("bootstrap-arguments.txt", "\n".join(arguments) + "\n")


def test_files_of_the_image() -> None:
    files = image_files(DEBIAN, SOURCES)
    text = "".join(f"== {f.path} {f.mode:04o}\n{f.content}\n" for f in files)
    check_golden("image-files.txt", text)
    links = image_links(DEBIAN)
    check_golden("image-links.txt", "".join(f"{link.path} -> {link.target}\n" for link in links))


def test_boot_menu_starts_at_once_on_both_consoles() -> None:
    text = grub_config(DEBIAN)
    assert "set timeout=0\n" in text
    assert "console=tty0 console=ttyS0,115200 net.ifnames=0 quiet\n" in text


def test_cloud_init_settings_are_valid_and_complete() -> None:
    files = {f.path: f.content for f in image_files(DEBIAN, SOURCES)}
    settings = json.loads(files["/etc/cloud/cloud.cfg.d/90_pvc.cfg"].split("\n", 1)[1])
    assert settings["ssh_genkeytypes"] == ["ed25519"]
    assert tuple(settings["cloud_final_modules"]) == DEBIAN.cloud_init.final


def test_an_empty_stage_of_cloud_init_does_not_start() -> None:
    masked = {link.path.rsplit("/", 1)[1] for link in image_links(DEBIAN) if "null" in link.target}
    assert "cloud-config.service" in masked
    staged = Recipe("s", "", "bookworm", ("a",), cloud_init=CloudInit(config=("runcmd",)))
    assert not any("cloud-config" in link.path for link in image_links(staged))


def test_the_recipes_own_files_come_last() -> None:
    paths = [f.path for f in image_files(SMALL, SOURCES)]
    assert paths.count("/etc/hosts") == 2
    assert paths[-3:] == ["/etc/hosts", "/etc/.updated", "/var/.updated"]
    assert not any("initramfs" in path for path in paths)


def test_progress_follows_the_installers_lines() -> None:
    lines = [
        "I: running apt-get update...",
        "I: installing essential packages...",
        "Setting up base-files (12) ...",
        "I: installing remaining packages inside the chroot...",
        "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
        "Unpacking vim (1) ...",
        "Unpacking nano (1) ...",
        "Setting up vim (1) ...",
        "Setting up nano (1) ...",
        "Setting up nano (1) ...",
        "I: cleaning package lists and apt cache...",
    ]
    progress, percents = BootstrapProgress(), []
    for line in lines:
        progress = follow(progress, line)
        percents.append(progress.percent)
    assert percents == [0, 30, 30, 45, 45, 58, 71, 84, 98, 98, 98]


def test_builder_version_rises_with_what_the_builder_makes() -> None:
    """The same hash means the same image: a change of built-in files needs a new version."""
    full = Recipe("x", "", "bookworm", ("a",), initramfs_modules=("b",), masked_units=("c.timer",))
    paths = BootstrapPaths("/root", "/fill", "/keep")
    parts = (
        image_files(full, SOURCES),
        image_links(full),
        bootstrap_arguments(full, SOURCES, (), paths),
        bootable_disk.partition_table(1 << 31, bootable_disk.disk_ids("x")),
        (bootable_disk.GRUB_MODULES, bootable_disk.GRUB_PREFIX),
    )
    made = hashlib.sha256(repr(parts).encode()).hexdigest()
    version, known = (FOLDER / "builder-version.txt").read_text().split()
    assert made == known or int(version) < BUILDER_VERSION, "raise BUILDER_VERSION"
    check_golden("builder-version.txt", f"{BUILDER_VERSION} {made}\n")

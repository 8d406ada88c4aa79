"""Builds a guest image of a recipe: the order of the steps, their progress, what is left behind.

What to do comes from the core, how from the drivers. Nothing remains of a build that fails, is
cancelled or dies but the package cache.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.provisioner.core import apt_sources, bootable_disk, guest_files
from services.provisioner.core.bootstrap import (
    BootstrapPaths,
    BootstrapProgress,
    bootstrap_arguments,
    follow,
)
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import Recipe, content_hash, parse_recipe
from services.provisioner.drivers.child import Cancelled, ChildCancelled
from services.provisioner.drivers.image_build import (
    ImageBuild,
    make_bootable,
    prune_cache,
    publish,
    read_apt_sources,
)
from services.provisioner.drivers.image_root import (
    remove_matching,
    tree_bytes,
    write_file,
    write_link,
)
from services.provisioner.drivers.work_folder import work_folder

MIB = 1024 * 1024
RECIPES = Path(__file__).parent / "recipes"

# Where each stage begins, in percent of the whole build, as measured.
STAGES = {"prepare": 0, "packages": 1, "system": 82, "disk": 90, "image": 95, "done": 100}


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """What a build is doing: its stage, percent of the whole, and a line of its log or ""."""

    stage: str
    percent: int
    line: str = ""


OnProgress = Callable[[BuildProgress], None]


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Where a build works. `mirrors` (one-line apt sources) replaces the machine's own if given."""

    work: Path
    apt_cache: Path
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A finished image. Sizes in bytes; `seconds` by stage."""

    path: Path
    content_hash: str
    size: int
    disk_size: int
    seconds: dict[str, float] = field(default_factory=dict)


def builtin_recipes() -> dict[str, str]:
    """The recipes that PVC brings along: their texts by name."""
    return {path.stem: path.read_text() for path in sorted(RECIPES.glob("*.toml"))}


def build_image(
    recipe: Recipe,
    target: Path,
    settings: BuildSettings,
    *,
    on_progress: OnProgress = lambda progress: None,
    cancelled: Cancelled = lambda: False,
) -> BuiltImage:
    """Builds the recipe's image as the qcow2 file `target`; needs root.

    Raises FieldProblem (the recipe or the mirrors), ChildFailed (a step), ChildCancelled.
    """
    stages = _Stages(on_progress, cancelled)
    with work_folder(settings.work) as work:
        build = ImageBuild(work, settings.apt_cache, cancelled)
        stages.enter("prepare")
        build.prepare()
        sources = _sources(recipe, settings.mirrors)
        _install(build, recipe, sources, stages)
        stages.enter("system")
        _configure(build, recipe, sources, stages)
        stages.enter("disk")
        disk = _make_disk(build, recipe)
        stages.enter("image")
        made = work / "image.qcow2"
        build.make_qcow2(disk, made, stages.percent)
        publish(made, target)
    prune_cache(settings.apt_cache, time.time())
    stages.enter("done")
    size = target.stat().st_size
    return BuiltImage(target, content_hash(recipe), size, recipe.size_mib * MIB, stages.seconds)


class _Stages:
    """Counts time and percent through the stages."""

    def __init__(self, on_progress: OnProgress, cancelled: Cancelled) -> None:
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._stage = ""
        self._percent = 0
        self._since = time.monotonic()
        self.seconds: dict[str, float] = {}

    def enter(self, stage: str) -> None:
        if self._cancelled():
            raise ChildCancelled
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = round(now - self._since, 1)
        self._stage, self._since = stage, now
        self._percent = STAGES[stage]
        self._on_progress(BuildProgress(stage, self._percent))

    def percent(self, of_stage: int) -> None:
        """Says how far this stage is; tells the listener only what is new."""
        later = [start for start in STAGES.values() if start > STAGES[self._stage]]
        span = min(later) - STAGES[self._stage]
        percent = STAGES[self._stage] + span * min(of_stage, 100) // 100
        if percent > self._percent:
            self._percent = percent
            self._on_progress(BuildProgress(self._stage, percent))

    def line(self, text: str) -> None:
        self._on_progress(BuildProgress(self._stage, self._percent, text))


def _sources(recipe: Recipe, mirrors: Sequence[str]) -> tuple[apt_sources.AptSource, ...]:
    if mirrors:
        return apt_sources.check_mirrors(mirrors)
    one_line, deb822 = read_apt_sources()
    found = [s for text in one_line for s in apt_sources.parse_sources(text)]
    found += [s for text in deb822 for s in apt_sources.parse_deb822(text)]
    return apt_sources.debian_sources(found, recipe.release)


def _install(
    build: ImageBuild,
    recipe: Recipe,
    sources: Sequence[apt_sources.AptSource],
    stages: _Stages,
) -> None:
    reached = BootstrapProgress()
    settings = apt_sources.apt_settings(build.apt_settings())
    paths = BootstrapPaths(str(build.root), str(build.fill_cache), str(build.keep_cache))
    stages.enter("packages")

    def on_line(line: str) -> None:
        nonlocal reached
        stages.line(line)
        reached = follow(reached, line)
        stages.percent(reached.percent)

    build.install(bootstrap_arguments(recipe, sources, settings, paths), on_line)


def _configure(
    build: ImageBuild,
    recipe: Recipe,
    sources: Sequence[apt_sources.AptSource],
    stages: _Stages,
) -> None:
    for pattern in guest_files.REMOVED:
        remove_matching(build.root, pattern)
    for file in guest_files.image_files(recipe, sources):
        write_file(build.root, file.path, file.content.encode(), file.mode)
    for link in guest_files.image_links(recipe):
        write_link(build.root, link.path, link.target)
    if (build.root / "usr/sbin/update-initramfs").exists():
        build.make_initramfs(stages.line)
        _link_initramfs(build.root)


def _link_initramfs(root: Path) -> None:
    """Links /initrd.img beside /vmlinuz: the kernel's package was installed without one.

    From here on Debian's kernel packages keep both links.
    """
    for suffix in ("", ".old"):
        kernel = root / f"vmlinuz{suffix}"
        if kernel.is_symlink():
            target = str(kernel.readlink()).replace("vmlinuz-", "initrd.img-")
            write_link(root, f"/initrd.img{suffix}", target)


def _make_disk(build: ImageBuild, recipe: Recipe) -> Path:
    size = recipe.size_mib * MIB
    # File systems need some of the space themselves, and a full one is of no use.
    needed = tree_bytes(build.root) * 5 // 4 // MIB + 64
    if needed > recipe.size_mib:
        raise FieldProblem("size_mib", f"is too small: these packages need {needed} MiB")
    ids = bootable_disk.disk_ids(content_hash(recipe))
    extent = bootable_disk.root_extent(size)
    disk = build.work / "disk.raw"
    build.make_disk(disk, size, bootable_disk.partition_table(size, ids))
    identifier = str(ids.root_file_system)
    build.make_file_system(
        disk, build.root, extent.offset, extent.size, recipe.root_label, identifier
    )
    write_boot_code(build, disk)
    return disk


def write_boot_code(build: ImageBuild, disk: Path) -> None:
    """Makes a disk with the layout of `bootable_disk` bootable."""
    core = build.grub_core(bootable_disk.GRUB_PREFIX, bootable_disk.GRUB_MODULES)
    start = bootable_disk.CORE_START * bootable_disk.SECTOR
    make_bootable(disk, bootable_disk.boot_sector, start, bootable_disk.core_area(core))


def main() -> None:
    """Builds a recipe from the command line: for trying a recipe without a running PVC."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe", help="a built-in recipe's name or a TOML file")
    parser.add_argument("target", type=Path, help="the qcow2 file to write")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    chosen = parser.parse_args()
    text = builtin_recipes().get(chosen.recipe) or Path(chosen.recipe).read_text()
    settings = BuildSettings(chosen.target.parent, chosen.cache.resolve() / "apt")
    began = time.monotonic()

    def show(progress: BuildProgress) -> None:
        print(
            f"{time.monotonic() - began:6.1f} {progress.percent:3} {progress.stage} {progress.line}"
        )

    print(build_image(parse_recipe(text), chosen.target, settings, on_progress=show))


if __name__ == "__main__":
    main()

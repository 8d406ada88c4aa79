"""The command line of mmdebstrap for a recipe, and what its output says about progress."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.provisioner.core.apt_sources import AptSource, source_line
from services.provisioner.core.recipe import Recipe

# Pages and translations that a server nobody sits at does not need; copyright notices stay.
_EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
_INCLUDED = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")


@dataclass(frozen=True, slots=True)
class BootstrapPaths:
    """Where the root folder goes and which programs bring archives in and keep them."""

    root: str
    fill_cache: str
    keep_cache: str


def bootstrap_arguments(
    recipe: Recipe, sources: Sequence[AptSource], settings: Sequence[str], paths: BootstrapPaths
) -> tuple[str, ...]:
    """Arguments of mmdebstrap, without the program; `settings` are apt's, one text each."""
    apt = ('Apt::Install-Recommends "false"', 'Acquire::Languages "none"', *settings)
    return (
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--verbose",
        "--include=" + ",".join(recipe.packages),
        *(f"--aptopt={setting}" for setting in apt),
        *(f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED),
        *(f"--dpkgopt=path-include={path}" for path in _INCLUDED),
        f"--setup-hook={paths.fill_cache}",
        f"--extract-hook={paths.keep_cache}",
        f"--customize-hook={paths.keep_cache}",
        recipe.release,
        paths.root,
        *(source_line(source) for source in sources),
    )


# Where each part of the installation begins, in percent of the whole, as measured.
_PARTS = {
    "running apt-get update": (0, "reading the package lists"),
    "downloading packages with apt": (5, "downloading packages"),
    "extracting archives": (15, "unpacking the base system"),
    "installing essential packages": (30, "installing the base system"),
    "installing remaining packages": (45, "installing packages"),
    "cleaning package lists": (98, "cleaning up"),
}
_NEW = re.compile(r"(\d+) upgraded, (\d+) newly installed")
_STEP = re.compile(r"(Unpacking|Setting up) (\S+)")
_REMAINING_FROM, _REMAINING_TO = 45, 98


@dataclass(frozen=True, slots=True)
class BootstrapProgress:
    """How far the installation is: percent, what it does, and the steps seen of this part."""

    percent: int = 0
    doing: str = "starting"
    steps: int = 0
    steps_expected: int = 0


def follow(progress: BootstrapProgress, line: str) -> BootstrapProgress:
    """The progress after one more line of mmdebstrap's output."""
    for text, (percent, doing) in _PARTS.items():
        if line.startswith("I: ") and text in line:
            return BootstrapProgress(percent, doing)
    if counted := _NEW.match(line):
        expected = 2 * int(counted[2])
        return BootstrapProgress(progress.percent, progress.doing, 0, expected)
    if _STEP.match(line) and progress.doing == "installing packages" and progress.steps_expected:
        steps = min(progress.steps + 1, progress.steps_expected)
        span = (_REMAINING_TO - _REMAINING_FROM) * steps // progress.steps_expected
        return BootstrapProgress(
            _REMAINING_FROM + span, progress.doing, steps, progress.steps_expected
        )
    return progress

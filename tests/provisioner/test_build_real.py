"""A real build cut short: by a cancel, by a kill, by a disk too small. Nothing of it remains."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.provisioner.build import BuildProgress, BuildSettings, build_image
from services.provisioner.core.recipe import Recipe
from services.provisioner.drivers.child import ChildCancelled, ChildFailed
from services.provisioner.drivers.work_folder import MARKER, remove_leftovers
from tests.guests.tiny import CACHE
from tests.provisioner.test_child import gone

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is missing"),
    pytest.mark.skipif(os.geteuid() != 0, reason="building an image needs root"),
]
SMALL = Recipe("small", "", "bookworm", ("busybox",))


def folders(base: Path) -> list[Path]:
    return [path for path in base.glob(f"{MARKER}*") if path.is_dir()]


def test_cancel_in_the_middle_of_the_installation(tmp_path: Path) -> None:
    stages: list[str] = []
    seen: set[str] = set()

    def listen(progress: BuildProgress) -> None:
        stages.append(progress.line)
        seen.update(folder.name for folder in folders(tmp_path))

    with pytest.raises(ChildCancelled):
        build_image(
            SMALL,
            tmp_path / "out.qcow2",
            BuildSettings(tmp_path, CACHE / "apt"),
            on_progress=listen,
            cancelled=lambda: any("extracting archives" in line for line in stages),
        )
    assert not folders(tmp_path) and not (tmp_path / "out.qcow2").exists()
    (folder,) = seen
    assert gone(f"PVC_BUILD={folder}")


def test_a_killed_build_leaves_no_process_and_its_folder_is_found(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from services.provisioner.build import *\n"
        "base, cache = map(pathlib.Path, sys.argv[1:])\n"
        "recipe = Recipe('small', '', 'bookworm', ('busybox',))\n"
        "build_image(recipe, base / 'out.qcow2', BuildSettings(base, cache),\n"
        "            on_progress=lambda p: print(p.line, flush=True))\n"
    )
    build = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(CACHE / "apt")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert build.stdout is not None
    assert any("extracting archives" in line for line in build.stdout)
    build.send_signal(signal.SIGKILL)
    build.wait()
    build.stdout.close()
    (left,) = folders(tmp_path)
    assert gone(f"PVC_BUILD={left.name}")
    assert remove_leftovers(tmp_path) == [left] and not left.exists()


def test_unreachable_archive_is_told_and_cleaned_up(tmp_path: Path) -> None:
    mirrors = ("deb file:/nowhere/debian bookworm main",)
    settings = BuildSettings(tmp_path, CACHE / "apt", mirrors)
    with pytest.raises(ChildFailed, match="mmdebstrap ended with status"):
        build_image(SMALL, tmp_path / "out.qcow2", settings)
    assert not folders(tmp_path)

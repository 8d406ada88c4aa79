"""Work folders and what is written into an image: nothing is left, nothing leads out."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.provisioner.drivers import work_folder as wf
from services.provisioner.drivers.image_root import (
    UnsafePath,
    remove_matching,
    tree_bytes,
    write_file,
    write_link,
)


def test_folder_is_there_while_used_and_gone_afterwards(tmp_path: Path) -> None:
    with wf.work_folder(tmp_path) as folder:
        (folder / "x").write_text("x")
        assert folder.parent == tmp_path and folder.name.startswith(wf.MARKER)
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), wf.work_folder(tmp_path) as failed:
        raise ZeroDivisionError
    assert not failed.exists()


def test_a_dead_builds_folder_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib\n"
        "from services.provisioner.drivers.work_folder import work_folder\n"
        "with work_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'root').mkdir(); print(folder, flush=True); sys.stdin.read()\n"
        "    os._exit(9)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert other.stdout is not None
    folder = Path(other.stdout.readline().decode().strip())
    with wf.work_folder(tmp_path):
        assert (folder / "root").is_dir()
    other.communicate(b"")
    assert other.returncode == 9 and folder.is_dir()
    assert wf.remove_leftovers(tmp_path) == [folder]
    assert not folder.exists()


def test_foreign_folders_and_links_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{wf.MARKER}link").symlink_to(tmp_path / "mine")
    assert wf.remove_leftovers(tmp_path) == []
    assert (tmp_path / "mine").is_dir()


def test_nothing_is_removed_through_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"{wf.MARKER}x"
    folder.mkdir()
    monkeypatch.setattr(wf, "mounts_below", lambda _: [str(folder / "proc")])
    with pytest.raises(RuntimeError, match="mounted"):
        wf.remove_leftovers(tmp_path)
    assert folder.is_dir()


def test_mounts_are_found() -> None:
    assert "/dev/pts" in wf.mounts_below(Path("/dev"))
    assert wf.mounts_below(Path("/usr/share")) == []


def test_files_are_written_anew_with_their_mode(tmp_path: Path) -> None:
    write_file(tmp_path, "/a/b/c", b"1", 0o600)
    write_file(tmp_path, "/a/b/c", b"2", 0o755)
    assert (tmp_path / "a/b/c").read_bytes() == b"2"
    assert stat.S_IMODE((tmp_path / "a/b/c").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) & 0o755 == 0o755


@pytest.mark.parametrize("target", ["/etc", "../outside", "/nowhere"])
def test_no_path_leads_out_of_the_image(tmp_path: Path, target: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "run").symlink_to(target)
    with pytest.raises(UnsafePath, match="'run' is a link"):
        write_file(root, "/run/x", b"", 0o644)
    with pytest.raises(UnsafePath):
        write_link(root, "/run/x", "y")
    assert not list(outside.iterdir())


def test_a_link_in_the_last_place_is_replaced_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "victim").write_text("safe")
    (root / "resolv.conf").symlink_to(tmp_path / "victim")
    write_file(root, "/resolv.conf", b"new", 0o644)
    write_link(root, "/resolv.conf", "/other")
    assert (tmp_path / "victim").read_text() == "safe"
    assert (root / "resolv.conf").readlink() == Path("/other")


def test_removal_takes_files_and_links_but_not_folders(tmp_path: Path) -> None:
    for name in ("k1", "k2", "other"):
        (tmp_path / name).write_text(name)
    (tmp_path / "k3").mkdir()
    remove_matching(tmp_path, "k*")
    assert {path.name for path in tmp_path.iterdir()} == {"k3", "other"}


def test_tree_counts_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    once = tree_bytes(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert tree_bytes(tmp_path) == once >= 100_000

"""The lab's own QEMU: the one of Debian's backports, unpacked beside the machine's and never
installed. Emulated (TCG), the machine's older one can lose a guest's writes while it migrates."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

from lab.cluster.commands import run
from lab.cluster.site import CACHE, LabError
from services.provisioner.core.apt_sources import (
    debian_sources,
    parse_deb822,
    parse_sources,
    source_line,
)
from services.provisioner.core.problem import FieldProblem
from services.provisioner.drivers.image_build import read_apt_sources

RELEASE = "bookworm"
PACKAGES = (
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "qemu-utils",
    "seabios",
)
PLACES = (
    "usr/bin/qemu-system-x86_64",
    "usr/bin/qemu-img",
    "usr/lib/x86_64-linux-gnu/qemu",
    "usr/share/qemu",
    "usr/share/seabios",
)
"""What a node sees of it in place of the machine's."""
DOWNLOAD_S = 300.0


def emulator(cache: Path = CACHE) -> Path:
    """The folder that it is unpacked in; downloaded if it is not there. Raises LabError."""
    folder = cache / "qemu-backports"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                _unpacked(Path(work)).replace(folder)
    return folder


def _unpacked(work: Path) -> Path:
    options = _apt_options(work)
    packages = work / "packages"
    packages.mkdir()
    run(["apt-get", "-q", *options, "update"], DOWNLOAD_S)
    # apt-get downloads into the folder that it runs in.
    run(["env", "-C", str(packages), "apt-get", "-q", *options, "download", *PACKAGES], DOWNLOAD_S)
    tree = work / "tree"
    for archive in packages.glob("*.deb"):
        run(["dpkg", "-x", str(archive), str(tree)])
    for place in PLACES:
        if not (tree / place).exists():
            raise LabError(f"the packages {', '.join(PACKAGES)} hold no {place}")
    shutil.rmtree(packages)
    return tree


def _apt_options(work: Path) -> list[str]:
    """Settings by which apt touches nothing but a folder of ours."""
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "sources").write_text(f"{_source()}\n")
    settings = {
        "Dir::Etc::SourceList": str(work / "sources"),
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": str(work / "lists"),
        "Dir::Cache": str(work),
        "APT::Sandbox::User": "root",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _source() -> str:
    """The backports of the archive that this machine has its packages from."""
    one_line, deb822 = read_apt_sources()
    found = [source for text in one_line for source in parse_sources(text)]
    found += [source for text in deb822 for source in parse_deb822(text)]
    try:
        archives = debian_sources(found, RELEASE)
    except FieldProblem as problem:
        raise LabError(str(problem)) from problem
    archive = next(source for source in archives if source.suite == RELEASE)
    return source_line(archive).replace(f" {RELEASE} ", f" {RELEASE}-backports ")

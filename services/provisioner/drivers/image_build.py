"""The steps of an image build, one verb each: packages, initramfs, disk, boot sectors, qcow2.

No loop device, no mount that outlives a step, no shell; what goes into a step is decided elsewhere.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.provisioner.drivers.child import (
    Cancelled,
    OnLine,
    build_environment,
    contained,
    run_child,
)

GRUB_PLATFORM = "i386-pc"
GRUB_BOOT_IMG = Path("/usr/lib/grub/i386-pc/boot.img")
BOOTSTRAP_TIMEOUT_S = 3600.0
STEP_TIMEOUT_S = 900.0
# An archive that no build has used for so long leaves the cache.
CACHE_DAYS = 30

# Run by mmdebstrap with the root folder as its argument. The cache's path comes in the environment,
# so that nothing is ever pasted into a script. apt checks every archive's hash before it uses it.
FILL_CACHE = """\
#!/bin/sh
# Brings the package archives of earlier builds into a root folder.
set -eu
mkdir -p "$1/var/cache/apt/archives/partial"
for archive in "$PVC_APT_CACHE"/*.deb; do
    # Another build may be removing an old one at this moment.
    cp -p "$archive" "$1/var/cache/apt/archives/" 2> /dev/null || [ ! -e "$archive" ]
done
"""
KEEP_CACHE = """\
#!/bin/sh
# Keeps the package archives of a root folder for the next build.
set -eu
for archive in "$1"/var/cache/apt/archives/*.deb; do
    [ -e "$archive" ] || continue
    cp "$archive" "$PVC_APT_CACHE/new.$PVC_BUILD"
    mv -f "$PVC_APT_CACHE/new.$PVC_BUILD" "$PVC_APT_CACHE/${archive##*/}"
done
"""


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """One build in its work folder. Every verb may be cancelled and raises ChildFailed."""

    work: Path
    apt_cache: Path
    cancelled: Cancelled

    @property
    def root(self) -> Path:
        """The folder that becomes the root file system."""
        return self.work / "root"

    @property
    def fill_cache(self) -> Path:
        """The program that brings cached archives in."""
        return self.work / "fill-cache"

    @property
    def keep_cache(self) -> Path:
        """The program that keeps new archives."""
        return self.work / "keep-cache"

    def prepare(self) -> None:
        """Makes the folders and the two programs that mmdebstrap runs."""
        (self.work / "tmp").mkdir()
        self.apt_cache.mkdir(parents=True, exist_ok=True)
        for path, text in ((self.fill_cache, FILL_CACHE), (self.keep_cache, KEEP_CACHE)):
            path.write_text(text)
            path.chmod(0o755)

    def _run(
        self,
        arguments: Sequence[str],
        on_line: OnLine = lambda line: None,
        stdin: bytes = b"",
        timeout_s: float = STEP_TIMEOUT_S,
    ) -> None:
        extra = {
            "PVC_APT_CACHE": str(self.apt_cache),
            "PVC_BUILD": self.work.name,
            # The initramfs is made once, at the end, not by each package that wants one.
            "INITRD": "No",
        }
        run_child(
            contained(arguments),
            timeout_s=timeout_s,
            cancelled=self.cancelled,
            on_line=on_line,
            environment=build_environment(self.work / "tmp", extra),
            stdin=stdin,
        )

    def apt_settings(self) -> str:
        """The machine's apt settings, as apt prints them for programs."""
        lines: list[str] = []
        self._run(("apt-config", "dump"), lines.append)
        return "\n".join(lines)

    def install(self, arguments: Sequence[str], on_line: OnLine) -> None:
        """Runs mmdebstrap into the root folder."""
        self._run(("mmdebstrap", *arguments), on_line, timeout_s=BOOTSTRAP_TIMEOUT_S)

    def make_initramfs(self, on_line: OnLine) -> None:
        """Makes the initramfs of every kernel in the root folder."""
        self._run(
            ("chroot", str(self.root), "update-initramfs", "-c", "-k", "all"), on_line=on_line
        )

    def make_disk(self, disk: Path, size: int, table: str) -> None:
        """Makes a sparse disk of this size with this partition table (sfdisk's format)."""
        with disk.open("wb") as file:
            file.truncate(size)
        self._run(("sfdisk", "--quiet", "--no-tell-kernel", str(disk)), stdin=table.encode())

    def make_file_system(
        self, disk: Path, source: Path, offset: int, size: int, label: str, identifier: str
    ) -> None:
        """Makes an ext4 with the source folder's content at a place of the disk."""
        options = f"offset={offset},lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
        place = (str(disk), f"{size // 1024}k")
        identity = ("-L", label, "-U", identifier)
        self._run(
            (
                "mkfs.ext4",
                "-q",
                "-F",
                "-m",
                "1",
                *identity,
                "-E",
                options,
                "-d",
                str(source),
                *place,
            )
        )

    def grub_core(self, prefix: str, modules: Sequence[str]) -> bytes:
        """GRUB's core for a BIOS machine, with these modules."""
        core = self.work / "core.img"
        self._run(("grub-mkimage", "-O", GRUB_PLATFORM, "-o", str(core), "-p", prefix, *modules))
        return core.read_bytes()

    def make_qcow2(self, disk: Path, target: Path, on_percent: Callable[[int], None]) -> None:
        """Converts the disk to a compressed qcow2."""

        def on_line(line: str) -> None:
            # "    (42.00/100%)"
            number = line.strip().lstrip("(").split("/", 1)[0]
            if number.replace(".", "", 1).isdigit():
                on_percent(int(float(number)))

        formats = ("-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd")
        self._run(("qemu-img", "convert", "-p", "-c", *formats, str(disk), str(target)), on_line)


def make_bootable(
    disk: Path, boot_sector: Callable[[bytes, bytes], bytes], core_start: int, core: bytes
) -> None:
    """Writes GRUB's two parts: the first sector (made by `boot_sector`) and the core."""
    boot_img = GRUB_BOOT_IMG.read_bytes()
    with disk.open("r+b") as file:
        first = boot_sector(file.read(512), boot_img)
        file.seek(core_start)
        file.write(core)
        file.seek(0)
        file.write(first)


def prune_cache(apt_cache: Path, now_s: float) -> None:
    """Removes the archives that no build has written or used for a month."""
    for archive in apt_cache.iterdir():
        with suppress(FileNotFoundError):  # another build gives its own their names
            if archive.is_file() and now_s - archive.stat().st_mtime > CACHE_DAYS * 86400:
                archive.unlink()


def publish(made: Path, target: Path) -> None:
    """Moves a finished file to its place in one step, after it is safe on the disk."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    if made.stat().st_dev == target.parent.stat().st_dev:
        made.replace(target)
        return
    beside = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(made, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def read_apt_sources(folder: Path = Path("/etc/apt")) -> tuple[list[str], list[str]]:
    """The texts of the machine's apt source files: one-line format, deb822 format."""
    parts = folder / "sources.list.d"
    one_line = [folder / "sources.list", *sorted(parts.glob("*.list"))]
    deb822 = sorted(parts.glob("*.sources"))
    return _texts(one_line), _texts(deb822)


def _texts(paths: Sequence[Path]) -> list[str]:
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()]

"""A tiny Linux guest for tests: Debian's cloud kernel and a busybox initramfs, up in two seconds.

`tiny_guest` makes kernel and initramfs, `tiny_disk` a disk that boots them through GRUB; both are
made once and kept in the cache folder. Nothing is installed on the machine.
"""

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.provisioner.build import write_boot_code
from services.provisioner.core import bootable_disk
from services.provisioner.drivers.image_build import ImageBuild

CACHE = Path(__file__).parents[2] / ".cache"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX = Path("/bin/busybox")
INIT = Path(__file__).with_name("init.sh")
DISK_BYTES = 64 * 1024 * 1024
READY = "PVC-TINY READY"

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "isofs", "virtio_net"),
    *("virtio_console", "virtio-rng", "virtio_balloon", "button", "evdev"),
)
KERNEL_ARGUMENTS = "console=tty0 console=ttyS0,115200 quiet net.ifnames=0 swiotlb=noforce"

# Small commands for a test to see what was hot-plugged, on the console or at /cgi-bin/state.
COMMANDS = Path(__file__).with_name("commands")
PLACES = {
    "etc/acpi/PWRF/00000080": "power-button",
    "www/cgi-bin/state": "state.cgi",
    **{f"bin/{name}": name for name in ("disks", "nics", "cpus", "nic-up", "dhcp-event", "agent")},
}
FOLDERS = ("bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "var", "www", "lib")


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """A kernel and an initramfs to boot it with."""

    kernel: Path
    initrd: Path


def tiny_guest(cache: Path = CACHE) -> TinyGuest:
    """The guest's kernel and initramfs, made if the cache has none of this content."""
    folder = cache / "guests"
    with _locked(folder):
        tree = _kernel_tree(folder)
        kernel = next((tree / "boot").glob("vmlinuz-*"))
        initrd = folder / f"tiny-{_fingerprint(kernel.name)}.cpio.gz"
        if not initrd.exists():
            _write(initrd, gzip.compress(_initramfs(tree), 9, mtime=0))
        return TinyGuest(kernel, initrd)


def tiny_disk(cache: Path = CACHE) -> Path:
    """A raw disk of 64 MiB that boots the tiny guest by BIOS. Copy it; do not write to it."""
    guest = tiny_guest(cache)
    folder = cache / "guests"
    with _locked(folder):
        disk = folder / f"{guest.initrd.name.removesuffix('.cpio.gz')}.raw"
        if not disk.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                _make_disk(guest, Path(work)).replace(disk)
        return disk


def _make_disk(guest: TinyGuest, work: Path) -> Path:
    build = ImageBuild(work, work / "apt", lambda: False)
    build.prepare()
    content = work / "content"
    (content / "boot/grub").mkdir(parents=True)
    shutil.copyfile(guest.kernel, content / "vmlinuz")
    shutil.copyfile(guest.initrd, content / "initrd.img")
    (content / "boot/grub/grub.cfg").write_text(
        f"linux /vmlinuz {KERNEL_ARGUMENTS}\ninitrd /initrd.img\nboot\n"
    )
    ids = bootable_disk.disk_ids(guest.initrd.name)
    extent = bootable_disk.root_extent(DISK_BYTES)
    disk = work / "disk.raw"
    build.make_disk(disk, DISK_BYTES, bootable_disk.partition_table(DISK_BYTES, ids))
    identifier = str(ids.root_file_system)
    build.make_file_system(disk, content, extent.offset, extent.size, "tiny", identifier)
    write_boot_code(build, disk)
    return disk


def _fingerprint(kernel: str) -> str:
    """Changes with everything that goes into the guest."""
    parts = [kernel, KERNEL_ARGUMENTS, *MODULES, INIT.read_text(), str(BUSYBOX.stat().st_size)]
    parts += [f"{path}={(COMMANDS / name).read_text()}" for path, name in PLACES.items()]
    parts += [Path(__file__).read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _kernel_tree(folder: Path) -> Path:
    """The unpacked kernel package with its module index; the newest the machine's apt knows."""
    package = _kernel_package(folder)
    tree = folder / package
    if not tree.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work = Path(name)
            _run("apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", package, cwd=work)
            (archive,) = work.glob("*.deb")
            unpacked = work / "tree"
            _run("dpkg", "-x", str(archive), str(unpacked))
            (version,) = (path.name for path in (unpacked / "lib/modules").iterdir())
            _run("depmod", "-b", str(unpacked), version)
            unpacked.replace(tree)
    return tree


def _kernel_package(folder: Path) -> str:
    """The package that the newest kernel's metapackage depends on, or the one already here."""
    here = sorted(path.name for path in folder.glob("linux-image-*") if path.is_dir())
    if here:
        return here[-1]
    for line in _run("apt-cache", "show", "--no-all-versions", KERNEL_PACKAGE).splitlines():
        if line.startswith("Depends: "):
            return line.removeprefix("Depends: ").split(" ", 1)[0].rstrip(",")
    raise RuntimeError(f"apt knows no {KERNEL_PACKAGE}; run apt-get update")


def _initramfs(tree: Path) -> bytes:
    """The archive the kernel unpacks as its first root file system."""
    entries = [_entry(folder, 0o40755, b"") for folder in (*FOLDERS, "etc/acpi", "etc/acpi/PWRF")]
    entries += [_entry("www/cgi-bin", 0o40755, b""), _entry("lib/modules", 0o40755, b"")]
    entries += [_entry("bin/busybox", 0o100755, BUSYBOX.read_bytes())]
    entries += [_entry("init", 0o100755, INIT.read_bytes())]
    for path, name in PLACES.items():
        entries.append(_entry(path, 0o100755, (COMMANDS / name).read_bytes()))
    modules = _modules(tree)
    entries += [_entry(f"lib/modules/{m.name}", 0o100644, m.read_bytes()) for m in modules]
    names = "".join(f"/lib/modules/{module.name}\n" for module in modules)
    entries += [_entry("etc/modules", 0o100644, names.encode())]
    return b"".join(entries) + _entry("TRAILER!!!", 0, b"")


def _modules(tree: Path) -> list[Path]:
    """The modules with all they need, each after what it needs."""
    (folder,) = (tree / "lib/modules").iterdir()
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, needed = line.split(":", 1)
        needs[path] = needed.split()
    by_name = {Path(path).stem: path for path in needs}
    ordered: dict[str, None] = {}
    for name in MODULES:
        path = by_name[name]
        ordered.update(dict.fromkeys([*reversed(needs[path]), path]))
    return [folder / path for path in ordered]


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """One entry of a cpio archive in the `newc` format, which the kernel reads."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return _aligned(header) + _aligned(content)


def _aligned(block: bytes) -> bytes:
    return block + bytes(-len(block) % 4)


def _run(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    beside.write_bytes(content)
    beside.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One builder at a time: test workers share the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""The layout of a bootable BIOS disk image, as data: partition table and boot sectors.

It makes bytes and text and touches no disk; the two GRUB parts come in as bytes.
"""

import struct
import uuid
from dataclasses import dataclass

SECTOR = 512
# The first mebibyte stays free for the table, the second holds GRUB's core, the rest is the root.
CORE_START = 2048
CORE_SECTORS = 2048
ROOT_START = CORE_START + CORE_SECTORS
# The second copy of a GPT: 32 sectors of entries and one of header.
GPT_TAIL_SECTORS = 33

TYPE_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
TYPE_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

# What GRUB needs to read the root file system and boot from it, and nothing more.
GRUB_MODULES = ("biosdisk", "part_gpt", "ext2", "normal", "linux", "serial", "terminal", "echo")
# Without a drive in front, GRUB takes the drive the BIOS booted, whatever its number.
GRUB_PREFIX = "(,gpt2)/boot/grub"

# Of boot.img: the sector where the core begins, and a jump that forces the boot drive to 0x80.
BOOT_KERNEL_SECTOR = 0x5C
BOOT_DRIVE_CHECK = 0x66
# The first 440 bytes are code; behind them the disk's signature and the protective partition.
BOOT_CODE_BYTES = 440
# Of the core's first sector: the list of what to read next (sector, count, segment).
CORE_BLOCKLIST = SECTOR - 12
CORE_SEGMENT = 0x820


@dataclass(frozen=True, slots=True)
class DiskIds:
    """The identifiers written into an image: fixed by its content, so that a build repeats."""

    disk: uuid.UUID
    core_partition: uuid.UUID
    root_partition: uuid.UUID
    root_file_system: uuid.UUID


@dataclass(frozen=True, slots=True)
class Extent:
    """A span of the disk, in bytes."""

    offset: int
    size: int


def disk_ids(content_hash: str) -> DiskIds:
    """Name-based identifiers for the image with this content."""

    def part(name: str) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_OID, f"pvc-image/{content_hash}/{name}")

    return DiskIds(part("disk"), part("core"), part("root"), part("file-system"))


def root_extent(disk_size: int) -> Extent:
    """Where the root partition lies: to the end of the disk, in whole 4 KiB blocks."""
    end = disk_size // SECTOR - GPT_TAIL_SECTORS
    sectors = (end - ROOT_START) // 8 * 8
    if sectors <= 0:
        raise ValueError(f"a disk of {disk_size} bytes has no room for a root partition")
    return Extent(ROOT_START * SECTOR, sectors * SECTOR)


def partition_table(disk_size: int, ids: DiskIds) -> str:
    """The input of sfdisk: a GPT with GRUB's partition and the root."""
    root_sectors = root_extent(disk_size).size // SECTOR
    return (
        f"label: gpt\n"
        f"label-id: {ids.disk}\n"
        f"start={CORE_START}, size={CORE_SECTORS}, type={TYPE_BIOS_BOOT}, "
        f"uuid={ids.core_partition}, name=grub\n"
        f"start={ROOT_START}, size={root_sectors}, type={TYPE_LINUX}, "
        f"uuid={ids.root_partition}, name=root\n"
    )


def boot_sector(first_sector: bytes, boot_img: bytes) -> bytes:
    """The disk's first sector with GRUB's boot code in it and the partition entry kept."""
    if len(first_sector) != SECTOR or len(boot_img) != SECTOR or boot_img[-2:] != b"\x55\xaa":
        raise ValueError("boot.img is not the one-sector boot code of GRUB for i386-pc")
    sector = bytearray(first_sector)
    sector[:BOOT_CODE_BYTES] = boot_img[:BOOT_CODE_BYTES]
    struct.pack_into("<Q", sector, BOOT_KERNEL_SECTOR, CORE_START)
    # Two no-operations in place of the jump: trust the drive number that the BIOS hands over.
    sector[BOOT_DRIVE_CHECK : BOOT_DRIVE_CHECK + 2] = b"\x90\x90"
    return bytes(sector)


def core_area(core_img: bytes) -> bytes:
    """GRUB's core as it lies in its partition: whole sectors, its list of sectors filled in."""
    if len(core_img) <= SECTOR:
        raise ValueError("core.img is shorter than two sectors")
    _, _, segment = struct.unpack_from("<QHH", core_img, CORE_BLOCKLIST)
    if segment != CORE_SEGMENT:
        raise ValueError("core.img does not begin with GRUB's disk boot sector")
    area = bytearray(core_img + bytes(-len(core_img) % SECTOR))
    sectors = len(area) // SECTOR
    if sectors > CORE_SECTORS:
        raise ValueError(f"core.img has {sectors} sectors, its partition {CORE_SECTORS}")
    struct.pack_into("<QHH", area, CORE_BLOCKLIST, CORE_START + 1, sectors - 1, CORE_SEGMENT)
    return bytes(area)

"""The bytes that make a disk boot: table and boot sectors, against goldens and hostile input."""

import struct

import pytest

from services.provisioner.core import bootable_disk as bd
from tests.provisioner.golden import check_golden

MIB = 1024 * 1024
BOOT_IMG = bytes(range(256)) + bytes(254) + b"\x55\xaa"


def core(size: int = 1500, segment: int = 0x820) -> bytes:
    image = bytearray(b"c" * size)
    struct.pack_into("<QHH", image, 500, 2, 0, segment)
    return bytes(image)


def test_partition_table() -> None:
    check_golden("partition-table.txt", bd.partition_table(2048 * MIB, bd.disk_ids("abc")))


def test_root_reaches_to_the_table_at_the_end() -> None:
    extent = bd.root_extent(2048 * MIB)
    assert extent.offset == 2 * MIB
    assert 0 <= 2048 * MIB - 33 * 512 - (extent.offset + extent.size) < 4096
    with pytest.raises(ValueError, match="no room"):
        bd.root_extent(2 * MIB)


def test_ids_follow_the_content() -> None:
    assert bd.disk_ids("a") == bd.disk_ids("a") != bd.disk_ids("b")
    assert len(set(map(str, [*_ids("a"), *_ids("b")]))) == 8


def _ids(name: str) -> list[object]:
    ids = bd.disk_ids(name)
    return [ids.disk, ids.core_partition, ids.root_partition, ids.root_file_system]


def test_boot_sector_keeps_the_partition_entry() -> None:
    first = bytes(446) + b"P" * 64 + b"\x55\xaa"
    sector = bd.boot_sector(first, BOOT_IMG)
    assert len(sector) == 512 and sector[440:] == first[440:]
    assert struct.unpack_from("<Q", sector, 0x5C) == (2048,)
    assert sector[0x66:0x68] == b"\x90\x90"
    assert sector[:0x5C] == BOOT_IMG[:0x5C] and sector[0x68:440] == BOOT_IMG[0x68:440]


@pytest.mark.parametrize("boot_img", [b"", bytes(512), BOOT_IMG + bytes(512), BOOT_IMG[:-2]])
def test_boot_sector_refuses_what_is_not_boot_code(boot_img: bytes) -> None:
    with pytest.raises(ValueError, match=r"boot\.img"):
        bd.boot_sector(bytes(512), boot_img)


def test_core_lists_its_own_sectors() -> None:
    area = bd.core_area(core(1500))
    assert len(area) == 1536 and area[1500:] == bytes(36)
    assert struct.unpack_from("<QHH", area, 500) == (2049, 2, 0x820)
    assert area[:500] == core()[:500] and area[512:1500] == core()[512:]


@pytest.mark.parametrize(
    ("image", "why"),
    [(b"", "shorter"), (core(512), "shorter"), (core(segment=0x800), "does not begin"),
     (core(2049 * 512), "2049 sectors")],
)  # fmt: skip
def test_core_refuses_what_cannot_boot(image: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bd.core_area(image)

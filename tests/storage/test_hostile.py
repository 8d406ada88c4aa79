"""Images that mean harm: each is refused, with the reason, and no tool opens what it refers to."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from services.mesh.errors import PvcError
from services.storage.core import images
from services.storage.core.layout import QCOW2, RAW, VMDK
from services.storage.drivers import qemu_img
from services.storage.drivers.directory import DirectoryDriver
from services.storage.drivers.driver import ImageFacts
from tests.storage.benches import MIB, call

CAPACITY = 1 << 40
DRIVER = DirectoryDriver()


def admit(path: Path, said: int = 0) -> int:
    """What an import does before it copies: → the format that the image is read as."""
    with path.open("rb") as file:
        head = file.read(images.HEAD_BYTES)
    format = images.format_of(head, said)
    images.check_head(head, format, path.stat().st_size)
    words = {QCOW2: "qcow2", RAW: "raw", VMDK: "vmdk"}
    facts = DRIVER.inspect(str(path), words[format])  # type: ignore[arg-type]
    images.check_facts(facts, format, CAPACITY)
    return format


def qcow2(path: Path, size: str = "4M", *options: str) -> Path:
    call("qemu-img", "create", "-q", "-f", "qcow2", *options, path, size)
    return path


def patch(path: Path, offset: int, form: str, *values: int) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, *values))
    return path


def refusal(path: Path, said: int = 0) -> str:
    with pytest.raises(PvcError) as error:
        admit(path, said)
    assert error.value.reason_name == "INVALID_CONTENT"
    return error.value.message


@pytest.mark.real
def test_honest_images_pass(tmp_path: Path) -> None:
    assert admit(qcow2(tmp_path / "a")) == QCOW2
    assert admit(qcow2(tmp_path / "b", "4M", "-o", "compat=0.10")) == QCOW2
    assert admit(qcow2(tmp_path / "c", "4M", "-o", "extended_l2=on,compression_type=zstd")) == QCOW2
    for options in ("subformat=streamOptimized", "subformat=monolithicSparse"):
        path = tmp_path / options
        call("qemu-img", "create", "-q", "-f", "vmdk", "-o", options, path, "64M")
        assert admit(path) == VMDK
    raw = tmp_path / "raw"
    raw.write_bytes(b"\0" * 1000)
    assert admit(raw) == RAW


BACKINGS = [
    "/etc/passwd",
    "../../../../etc/shadow",
    'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}',
    "nbd://127.0.0.1:1/secret",
    "nbd:unix:/run/secret",
    "ssh://root@127.0.0.1/etc/passwd",
    "http://127.0.0.1/image",
    "rbd:pool/image:conf=/etc/ceph/ceph.conf",
    "fat:rw:/root",
    "host_device:/dev/vda",
    "\nname\x00with\x1bescapes",
]


@pytest.mark.real
@pytest.mark.parametrize("backing", BACKINGS)
def test_an_image_on_top_of_something_is_refused_without_opening_that(
    tmp_path: Path, backing: str
) -> None:
    path = qcow2(tmp_path / "evil")
    name = backing.encode()
    patch(path, 8, ">QI", 0x1000, len(name))
    with path.open("r+b") as file:
        file.seek(0x1000)
        file.write(name)
    message = refusal(path)
    assert "continues another file" in message
    assert message.isprintable(), "what the image says is shown harmlessly"
    # Even a driver that is asked anyway does not open it.
    facts = DRIVER.inspect(str(path), "qcow2")
    assert facts.backing
    with pytest.raises(PvcError, match="continues another file"):
        images.check_facts(facts, QCOW2, CAPACITY)


@pytest.mark.real
def test_no_tool_follows_a_backing_file(tmp_path: Path) -> None:
    """One that is not there makes every tool fail that looks for it; one that is there would be in
    the copy.
    """
    secret = tmp_path / "secret"
    secret.write_bytes(b"SECRET" * 1000)
    there = qcow2(tmp_path / "there", "4M", "-b", str(secret), "-F", "raw")
    nowhere = qcow2(tmp_path / "nowhere", "4M", "-u", "-b", "/nowhere", "-F", "raw")
    out = tmp_path / "out"
    for path in (str(there), str(nowhere)):
        call(*qemu_img.describe_foreign(path, "qcow2"))
        call(*qemu_img.check_foreign(path, "qcow2"))
        call(*qemu_img.measure_foreign(path, "qcow2"))
        call(*qemu_img.copy_foreign(path, "qcow2", str(out), "raw", ()))
        assert b"SECRET" not in out.read_bytes()


@pytest.mark.real
def test_a_data_file_outside_is_refused(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "evil", "4M", "-o", f"data_file={tmp_path}/blocks,data_file_raw=on")
    assert "another file" in refusal(path)
    patch(path, 72, ">Q", 0)  # the name is still there, although nothing says to use it
    assert "another file" in refusal(path)


QCOW2_PATCHES: list[tuple[str, Callable[[Path], Path], str]] = [
    ("version", lambda p: patch(p, 4, ">I", 9), "version 9"),
    ("encrypted", lambda p: patch(p, 32, ">I", 2), "encrypted"),
    ("clusters", lambda p: patch(p, 20, ">I", 31), "absurd"),
    ("64 TiB and more", lambda p: patch(p, 24, ">Q", (64 << 40) + 512), "absurd"),
    ("2^63 bytes", lambda p: patch(p, 24, ">Q", 1 << 63), "absurd"),
    ("no bytes", lambda p: patch(p, 24, ">Q", 0), "absurd"),
    ("huge L1", lambda p: patch(p, 36, ">I", 0xFFFFFFFF), "tables are absurd"),
    ("L1 elsewhere", lambda p: patch(p, 40, ">Q", 1 << 50), "cut off"),
    ("huge refcounts", lambda p: patch(p, 56, ">I", 0xFFFFFFFF), "tables are absurd"),
    ("refcounts elsewhere", lambda p: patch(p, 48, ">Q", 1 << 50), "cut off"),
    ("snapshots", lambda p: patch(p, 60, ">I", 1 << 20), "snapshots are absurd"),
    ("unknown feature", lambda p: patch(p, 72, ">Q", 1 << 40), "unknown here"),
    ("corrupt", lambda p: patch(p, 72, ">Q", 2), "corrupt"),
    ("endless header", lambda p: patch(p, 100, ">I", 0xFFFFFFF0), "does not end"),
]


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "word"), [x[1:] for x in QCOW2_PATCHES], ids=[x[0] for x in QCOW2_PATCHES]
)
def test_a_qcow2_that_is_absurd_is_refused(
    tmp_path: Path, change: Callable[[Path], Path], word: str
) -> None:
    assert word in refusal(change(qcow2(tmp_path / "evil")))


@pytest.mark.real
def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * 8 * MIB)
    whole = tmp_path / "whole"
    call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, whole)
    for count in (3, 40, 80, 4096, 5 * MIB):
        cut = tmp_path / f"cut{count}"
        cut.write_bytes(whole.read_bytes()[:count])
        said = QCOW2 if count < 4 else 0
        assert refusal(cut, said)


@pytest.mark.real
def test_tables_that_point_nowhere_are_refused(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "evil")
    patch(path, 0x30000, ">Q", 1 << 63 | 1 << 40)  # the first entry of L1
    assert "damaged" in refusal(path)


@pytest.mark.real
@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_vmdk_whose_blocks_are_elsewhere_is_refused(tmp_path: Path, subformat: str) -> None:
    path = tmp_path / "evil.vmdk"
    call("qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", path, "4M")
    assert "only a description" in refusal(path)


@pytest.mark.real
def test_a_vmdk_description_of_a_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.vmdk"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\nRW 20480 FLAT "/etc/passwd" 0\n'
    )
    assert "only a description" in refusal(path)
    assert "only a description" in refusal(path, VMDK)


def vmdk(path: Path) -> Path:
    options = "subformat=monolithicSparse"
    call("qemu-img", "create", "-q", "-f", "vmdk", "-o", options, path, "64M")
    return path


@pytest.mark.real
def test_a_vmdk_that_is_absurd_is_refused(tmp_path: Path) -> None:
    assert "only a description" in refusal(patch(vmdk(tmp_path / "a"), 12, "<Q", 0))
    assert "absurd" in refusal(patch(vmdk(tmp_path / "b"), 12, "<Q", 1 << 54))
    assert "absurd" in refusal(patch(vmdk(tmp_path / "c"), 44, "<I", 1 << 31))
    assert "cut off" in refusal(patch(vmdk(tmp_path / "d"), 28, "<Q", 1 << 40))


@pytest.mark.real
def test_a_vmdk_on_top_of_another_is_refused(tmp_path: Path) -> None:
    path = vmdk(tmp_path / "evil.vmdk")
    text = path.read_bytes()[512 : 512 * 21]
    hint = text.replace(b"#DDB\n", b'parentFileNameHint="/etc/passwd"\n')[: len(text)]
    assert b"parentFileNameHint" in hint
    with path.open("r+b") as file:
        file.seek(512)
        file.write(hint)
    assert "continues another file" in refusal(path)


@pytest.mark.real
def test_an_encrypted_image_is_refused(tmp_path: Path) -> None:
    options = "encrypt.format=aes,encrypt.key-secret=s"
    call(
        "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x",
        "-o", options, tmp_path / "evil", "4M",
    )  # fmt: skip
    assert "encrypted" in refusal(tmp_path / "evil")


@pytest.mark.parametrize(("magic", "_what"), images._FOREIGN)
def test_formats_that_are_not_taken_are_named(magic: bytes, _what: str) -> None:
    with pytest.raises(PvcError) as error:
        images.format_of(magic + b"\0" * 512, 0)
    assert error.value.reason_name == "NOT_SUPPORTED"
    assert images.format_of(magic + b"\0" * 512, RAW) == RAW


def test_a_raw_disk_is_raw_whatever_its_guest_wrote_when_the_user_says_so() -> None:
    assert images.format_of(b"QFI\xfb" + b"\0" * 500, RAW) == RAW
    assert images.format_of(b"QFI\xfb" + b"\0" * 500, 0) == QCOW2


def test_what_does_not_begin_like_it_is_not_it() -> None:
    with pytest.raises(PvcError, match="does not begin like a qcow2 image"):
        images.format_of(b"\0" * 512, QCOW2)


def facts(**changes: object) -> ImageFacts:
    values: dict[str, object] = {
        "format": "qcow2", "size_bytes": MIB, "needs_bytes": MIB, "backing": "",
        "references": (), "encrypted": False, "corrupt": False,
    }  # fmt: skip
    return ImageFacts(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "raw"}, "INVALID_CONTENT"),
        ({"backing": "x"}, "INVALID_CONTENT"),
        ({"references": ("/etc/passwd",)}, "INVALID_CONTENT"),
        ({"encrypted": True}, "INVALID_CONTENT"),
        ({"corrupt": True}, "INVALID_CONTENT"),
        ({"size_bytes": 65 << 40}, "INVALID_CONTENT"),
        ({"size_bytes": 2 * CAPACITY}, "OUT_OF_SPACE"),
    ],
)
def test_what_the_tool_found_is_judged_too(change: dict[str, object], reason: str) -> None:
    images.check_facts(facts(), QCOW2, CAPACITY)
    with pytest.raises(PvcError) as error:
        images.check_facts(facts(**change), QCOW2, CAPACITY)
    assert error.value.reason_name == reason


def test_a_volume_is_never_smaller_than_its_image() -> None:
    assert images.volume_size(1000, 0) == MIB
    assert images.volume_size(5 * MIB + 1, 0) == 5 * MIB + 512
    assert images.volume_size(MIB, 8 * MIB) == 8 * MIB
    with pytest.raises(PvcError, match="cut it off"):
        images.volume_size(8 * MIB, MIB)

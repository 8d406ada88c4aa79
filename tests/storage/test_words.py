"""What qemu-img is told, word for word, and what is made of its answers; and where names lead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.errors import PvcError
from services.storage.core import layout
from services.storage.core.layout import QCOW2, RAW
from services.storage.drivers import qemu_img

GOLDEN = Path(__file__).parent / "golden"
A, B, TMP = "/p/volumes/a.qcow2", "/p/volumes/b,c.raw", "/p/tmp/a.qcow2"
NONE = ("-t", "none")

CALLS = {
    "create": qemu_img.create(TMP, "qcow2", 1 << 30),
    "clone": qemu_img.clone(TMP, "../volumes/b,c.raw", "raw", 1 << 30),
    "resize": qemu_img.resize(B, "raw", 1 << 31),
    "snapshot": qemu_img.snapshot("/p/volumes/b,c.qcow2", "-c", "one"),
    "mend": qemu_img.mend(A),
    "describe": qemu_img.describe(A, "qcow2"),
    "copy": qemu_img.copy(B, "raw", TMP, "qcow2", NONE),
    "copy of a snapshot": qemu_img.copy(A, "qcow2", "/p/tmp/x.raw", "raw", NONE, "one"),
    "export": qemu_img.export(A, "qcow2", "/f/x.part", "qcow2", True, NONE, "one"),
    "export to vmdk": qemu_img.export(A, "qcow2", "/f/x.part", "vmdk", True, NONE),
    "export to raw": qemu_img.export(A, "qcow2", "/f/x.part", "raw", False, NONE),
    "describe foreign": qemu_img.describe_foreign('/f/"quoted" file', "qcow2"),
    "check foreign": qemu_img.check_foreign("/f/x", "vmdk"),
    "measure foreign": qemu_img.measure_foreign("/f/x", "raw"),
    "copy foreign": qemu_img.copy_foreign("/f/x", "qcow2", TMP, "qcow2", NONE),
    "confined": qemu_img.confined(["qemu-img", "info"], {"cpu": 30, "as": 1 << 31}),
    "bound": qemu_img.confined(["qemu-img", "info"], {}),
}


def test_every_call_is_the_golden_one() -> None:
    wanted = json.loads((GOLDEN / "calls.json").read_text())
    assert wanted == CALLS


def test_no_path_can_be_an_option_or_a_protocol() -> None:
    for name, words in CALLS.items():
        paths = [word for word in words if "/" in word and not word.startswith("json:")]
        for path in paths:
            known = path.startswith(("/", "../volumes/", "driver=qcow2,"))
            assert known, f"{name}: {path}"


def test_an_info_is_read() -> None:
    facts = qemu_img.disk_facts((GOLDEN / "info-snapshots.json").read_text())
    assert (facts.size_bytes, facts.allocated_bytes) == (4194304, 348160)
    assert facts.snapshots == ("one", "two")
    ids = qemu_img.snapshot_ids((GOLDEN / "info-snapshots.json").read_text())
    assert ids == {"one": "1", "two": "2"}


def test_what_a_foreign_image_refers_to_is_read() -> None:
    info = {
        "filename": "/f/x", "format": "vmdk", "virtual-size": 512, "backing-filename": "b",
        "full-backing-filename": "/f/b",
        "format-specific": {"data": {"extents": [{"filename": "/f/x"}, {"filename": "/etc/x"}]}},
    }  # fmt: skip
    facts = qemu_img.image_facts(json.dumps(info), '{"corruptions": 2}', '{"required": 7}')
    assert (facts.backing, facts.references) == ("/f/b", ("/etc/x",))
    assert facts.corrupt and facts.needs_bytes == 7


@pytest.mark.parametrize(
    ("output", "percent"),
    [
        (b"", None),
        (b"    (0.00/100%)\r", 0.0),
        (b"(1.01/100%)\r    (12.50/100%)\r  (13.", 12.5),
        (b"    (100.00/100%)\r\n", 100.0),
    ],
)
def test_progress_is_read(output: bytes, percent: float | None) -> None:
    assert qemu_img.percent_of(output) == percent


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("qemu-img: error while writing at byte 0: No space left on device", "OUT_OF_SPACE"),
        ('Failed to get "write" lock\nIs another process using the image [x]?', "IN_USE"),
        ("Could not open 'x': Input/output error", "STORAGE_FAILED"),
        ("", "STORAGE_FAILED"),
    ],
)
def test_failures_are_told_apart(stderr: str, reason: str) -> None:
    words = qemu_img.confined(qemu_img.mend(A), {})
    error = qemu_img.failure(words, 1, stderr)
    assert error.reason_name == reason
    assert error.message.startswith("qemu-img check: ")


def test_an_answer_that_is_no_json_is_an_error() -> None:
    for answer in ("", "image: x", "[]"):
        with pytest.raises(PvcError, match="no JSON"):
            qemu_img.disk_facts(answer)


IDS = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)
FORMATS = st.sampled_from((QCOW2, RAW))


@given(IDS, FORMATS, IDS, FORMATS)
def test_no_two_volumes_lie_at_the_same_place(a: str, f: int, b: str, g: int) -> None:
    first, second = layout.volume_path("/p", a, f), layout.volume_path("/p", b, g)
    assert (first == second) == ((a, f) == (b, g))
    assert layout.volume_at(first) == (a, f)


@given(st.text())
def test_no_name_leads_out_of_the_folder(text: str) -> None:
    try:
        path = layout.volume_path("/pool", f"pools/p/volumes/{text}", QCOW2)
    except PvcError as error:
        assert error.reason_name == "INVALID_FIELD"
        return
    assert Path(path).parent == Path("/pool/volumes")
    assert path.isprintable() and ".." not in Path(path).parts


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "a/../../etc", "a\0", "-rf", "A", "a\n", "ä", "a" * 64, "a/"]
)
def test_names_that_are_no_ids_are_refused(text: str) -> None:
    with pytest.raises(PvcError) as error:
        layout.checked_id(text, "volume_id")
    assert (error.value.reason_name, error.value.field) == ("INVALID_FIELD", "volume_id")


@given(st.text())
def test_no_file_name_leads_anywhere(text: str) -> None:
    try:
        node = layout.node_of_file(f"files/{text}")
    except PvcError as error:
        assert error.reason_name == "NOT_FOUND"
        return
    assert "/" not in text and not text.startswith(".") and node.startswith("nodes/")


def test_a_file_says_whose_it_is() -> None:
    name = layout.file_name_for("nodes/n1.example", "0" * 26)
    assert layout.node_of_file(name) == "nodes/n1.example"


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [("/a", "/a", True), ("/a", "/a/b", True), ("/a/b", "/a", True), ("/a", "/ab", False)],
)
def test_folders_overlap(one: str, other: str, answer: bool) -> None:
    assert layout.overlaps(one, other) is answer


def test_other_files_are_no_volumes() -> None:
    for name in ("a.vmdk", "a", ".a.qcow2", "A.qcow2", "a.qcow2.part", "..qcow2"):
        assert layout.volume_at(f"/p/volumes/{name}") is None

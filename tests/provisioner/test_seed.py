"""The seed of a VM: readable as ISO 9660, always the same bytes, and nothing hostile in it."""

import hashlib
import io
import os
import time
import traceback

import pycdlib
import pytest
import yaml

from services.provisioner.core.problem import FieldProblem
from services.provisioner.seeds import SeedTexts, make_seed

CONFIG = "#cloud-config\nruncmd: [[echo, hi]]\n"
MIME = (
    'Content-Type: multipart/mixed; boundary="B"\nMIME-Version: 1.0\n\n'
    "--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\ntrue\n--B--\n"
)


def read_back(image: bytes, **how: str) -> dict[str, bytes]:
    """The files of a seed: joliet_path or rr_path tells by which of its two names."""
    ((kind, prefix),) = (how or {"joliet_path": "/"}).items()
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    files = {}
    for name in ("user-data", "meta-data", "network-config"):
        content = io.BytesIO()
        try:
            iso.get_file_from_iso_fp(content, **{kind: prefix + name})
        except pycdlib.pycdlibexception.PyCdlibException:
            continue
        files[name] = content.getvalue()
    return files


def test_files_are_there_by_both_kinds_of_names() -> None:
    image = make_seed(SeedTexts(CONFIG), "i-1", "web", ["52:54:00:00:00:01"])
    assert image[16 * 2048 + 40 :].startswith(b"cidata ")
    files = read_back(image)
    assert files == read_back(image, rr_path="/")
    assert files["user-data"] == CONFIG.encode()
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": "i-1", "local-hostname": "web"}
    assert yaml.safe_load(files["network-config"])["ethernets"]["eth0"] == {
        "match": {"macaddress": "52:54:00:00:00:01"},
        "set-name": "eth0",
        "dhcp4": True,
    }


def test_same_texts_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = SeedTexts(CONFIG, "role: web\n", "version: 2\nethernets: {}\n")
    image = make_seed(texts, "i-1", "web")
    golden = "a9386cec54d4c5cae2f4b9c4c02b1ddc64f3e79f1062563439b8e86122929b42"
    assert hashlib.sha256(image).hexdigest() == golden
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 5e8)
    assert make_seed(texts, "i-1", "web") == image
    monkeypatch.undo()
    time.tzset()
    assert os.environ.get("TZ") != "Asia/Tokyo"


def test_nothing_given_is_a_host_name_and_the_guests_own_dhcp() -> None:
    files = read_back(make_seed(SeedTexts(), "i-1", "web"))
    assert files["user-data"].startswith(b"#cloud-config\n")
    assert "network-config" not in files


@pytest.mark.parametrize("user_data", [CONFIG, "#!/bin/sh\ntrue\n", MIME, "#cloud-config\r\n{}"])
def test_user_data_that_cloud_init_knows(user_data: str) -> None:
    image = make_seed(SeedTexts(user_data), "i-1", "web")
    assert read_back(image)["user-data"] == user_data.encode()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("password: hunter2: x", "line 2, column 18: mapping values are not allowed here"),
        ("password: 'hunter2", "line 3, column 1: found unexpected end of stream"),
        ("password: [hunter2", "line 3, column 1: expected ',' or ']', but got"),
        ("a: !!python/hunter2 x", "line 2, column 4: could not determine a constructor"),
        ("a: !hunter2!x y", "line 2, column 4: found undefined tag handle …"),
        ("password: hunter2\n\tb: 1", r"line 3, column 1: found character '.t' that"),
        ("password: \x01hunter2", "what no YAML text may"),
        ("2001-99-99: hunter2", "what no YAML text may"),
    ],
)
def test_what_is_wrong_with_a_text_is_said_without_quoting_it(text: str, where: str) -> None:
    with pytest.raises(FieldProblem, match=where) as caught:
        make_seed(SeedTexts(f"#cloud-config\n{text}\n"), "i-1", "web")
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown.replace(text, "")


@pytest.mark.parametrize(
    ("user_data", "why"),
    [
        ("hello", "must begin"),
        ("cloud-config\na: 1", "must begin"),
        ("#cloud-configx\na: 1", "must begin"),
        ("#!", "must begin"),
        (" #cloud-config\n", "must begin"),
        ("Content-Type: text/plain\n\nhello", "must begin"),
        ("Content-Type: multipart/mixed; boundary=B\n\nnothing", "must begin"),
        ("#cloud-config\na: [1", "not valid YAML"),
        ("#cloud-config\n- a\n", "mapping"),
        ("#cloud-config\n1: a\n", "mapping"),
        ("#cloud-config\nhello\n", "mapping"),
        ("#cloud-config\na: !!python/object/apply:os.system ['id']\n", "not valid YAML"),
        ("#cloud-config\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
        ("#cloud-config\n" + "[" * 131000, "not valid YAML"),
        ("#cloud-config\na: \0", "NUL"),
        ("#cloud-config\na: \ud800", "Unicode"),
        ("#cloud-config\na: " + "x" * 131072, "at most"),
        ("#cloud-config\na: 2001-99-99\n", "not valid YAML"),
    ],
)
def test_user_data_that_is_refused(user_data: str, why: str) -> None:
    with pytest.raises(FieldProblem, match=why) as caught:
        make_seed(SeedTexts(user_data), "i-1", "web")
    assert caught.value.field == "cloud_init.user_data"


def test_meta_data_is_completed_and_never_pasted() -> None:
    texts = SeedTexts(meta_data='local-hostname: other\nnote: "a: b\\n- c #{}"\n')
    meta = yaml.safe_load(read_back(make_seed(texts, "i-1", "web"))["meta-data"])
    assert meta == {"instance-id": "i-1", "local-hostname": "other", "note": "a: b\n- c #{}"}


@pytest.mark.parametrize(
    ("meta_data", "field"),
    [
        ("local-hostname: 'a\nb'", "local-hostname"),
        ("local-hostname: Web", "local-hostname"),
        ("local-hostname: [a]", "local-hostname"),
        ("local-hostname: ../x", "local-hostname"),
        ("instance-id: ''", "instance-id"),
        ("instance-id: {a: b}", "instance-id"),
        ("- a", ""),
        ("a: [", ""),
    ],
)
def test_meta_data_that_is_refused(meta_data: str, field: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        make_seed(SeedTexts(meta_data=meta_data), "i-1", "web")
    assert caught.value.field == "cloud_init.meta_data" + (f".{field}" if field else "")


def test_network_data_below_its_key_or_not() -> None:
    for text in ("version: 2\nethernets: {}\n", "network: {version: 2, ethernets: {}}\n"):
        files = read_back(make_seed(SeedTexts(network_data=text), "i-1", "web", ["a"]))
        assert yaml.safe_load(files["network-config"]) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["version: 1", "ethernets: {}", "network: []", "[]", "a: b: c"])
def test_network_data_that_is_refused(text: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        make_seed(SeedTexts(network_data=text), "i-1", "web")
    assert caught.value.field == "cloud_init.network_data"

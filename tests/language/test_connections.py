"""Connections: kept whole, found again, chosen in one way; two writers, broken files, secrets."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.clock import SystemClock
from services.mesh.identity import create_cluster
from shell import main
from shell.connections import (
    HERE,
    Connection,
    Connections,
    addresses_in,
    certificates_in,
    checked_address,
    checked_name,
    choose,
)
from shell.language.runner import Runner
from shell.session import Session
from shell.toml_file import BadFile
from tests.contract.whole import Whole
from tests.doors.world import World, world_in
from tests.language.conftest import Said
from tests.language.test_scripts import PATHS

Pvc = Callable[..., Said]


@pytest.fixture
def pvc(capfd: Any) -> Pvc:
    def call(*arguments: str) -> Said:
        capfd.readouterr()
        code = main.run(arguments)
        return Said(code, *capfd.readouterr())

    return call


def address_of(whole: Whole) -> str:
    return f"127.0.0.1:{whole.doors.grpc_port}"


@pytest.fixture
def secret_file(whole: Whole, tmp_path: Path) -> Path:
    path = tmp_path / "eve.token"
    path.write_text(whole.secrets["eve"] + "\n")
    return path


@pytest.fixture
def prod(pvc: Pvc, whole: Whole, secret_file: Path) -> Said:
    return pvc("connection", "add", "prod", "--address", address_of(whole),
               "--token-file", str(secret_file), "--description", "the real one")  # fmt: skip


def test_a_connection_is_checked_kept_and_used(
    pvc: Pvc, prod: Said, whole: Whole, own_files: Path
) -> None:
    assert prod.code == 0, prod.err
    assert prod.out == "connection prod is kept: cluster test 2.0, token eve, role admin\n"
    assert "pvc connection use prod" in prod.err
    file = own_files / "connections.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_files.stat().st_mode) == 0o700
    assert pvc("-c", "prod", "node", "list", "-f", "name").out == "n1\n"
    assert pvc("connection", "list", "-f", "name").out == "local\nprod\n"
    used = pvc("connection", "use", "prod")
    assert used.out == f"connection prod ({address_of(whole)}) is used from now on\n"
    assert pvc("whoami", "-f", "csv").out.splitlines()[1].startswith("token eve,")
    listed = pvc("connection", "list").out.splitlines()
    assert [line[0] for line in listed] == ["C", " ", "*"]
    assert pvc("connection", "use", "local").code == 0
    assert Connections().current() == "local"


def test_the_secret_is_in_no_answer(pvc: Pvc, prod: Said, whole: Whole) -> None:
    secret = whole.secrets["eve"]
    said = [prod, pvc("connection", "list", "-f", "json"), pvc("connection", "list", "-f", "wide"),
            pvc("connection", "info", "prod", "-f", "yaml"), pvc("connection", "info", "prod"),
            pvc("-c", "prod", "-v", "vm", "list"), pvc("connection", "list", "--columns", "token"),
            pvc("connection", "remove", "prod")]  # fmt: skip
    assert not any(secret in one.out + one.err for one in said)
    assert secret not in repr(Connections().get("prod"))
    (row,) = [one for one in json.loads(said[1].out) if one["name"] == "prod"]
    assert row["hasToken"] and "token" not in row


def test_what_does_not_answer_is_not_kept(
    pvc: Pvc, whole: Whole, secret_file: Path, own_files: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        said = pvc("connection", "add", "x", "--address", nobody, "--token-file", str(secret_file))
        assert said.code == 5 and "nothing was kept" in said.err
        assert not (own_files / "connections.toml").exists()
        kept = pvc("connection", "add", "x", "--address", nobody, "--no-check")
        assert (kept.code, kept.out) == (0, "connection x is kept\n")
        assert pvc("-c", "x", "vm", "list").code == 5
    wrong = pvc("connection", "add", "y", "--address", address_of(whole))
    assert wrong.code == 1 and "nothing was kept" in wrong.err
    assert list(Connections().all()) == ["x"]


def test_the_next_address_is_asked(pvc: Pvc, whole: Whole, secret_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        both = f"127.0.0.1:{taken.getsockname()[1]},{address_of(whole)}"
        said = pvc("connection", "add", "two", "--address", both,
                   "--token-file", str(secret_file))  # fmt: skip
    assert said.code == 0, said.err
    assert Connections().get("two").address == both


def test_a_token_from_standard_input(
    pvc: Pvc, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(whole.secrets["ann"] + "\n"))
    said = pvc("connection", "add", "ro", "--address", address_of(whole), "--token-stdin")
    assert "token ann, role viewer" in said.out
    assert Connections().get("ro").token == whole.secrets["ann"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["local", "--address", "n1"], "local is this node's own cluster"),
        (["a/b", "--address", "n1"], "cannot be a connection's name"),
        (["a", "--address", "n1:0"], "is no address"),
        (["a", "--address", "n1:99999"], "is no address"),
        (["a", "--address", "http://n1:7371"], "is no address"),
        (["a", "--address", "fe80::1"], "is no address"),
        (["a", "--address", " , "], "an address is needed"),
        (["a", "--address", "n1", "--ca", "/nowhere"], "/nowhere: No such file"),
        (["a", "--address", "n1", "--ca", "/proc/version"], "there is no certificate in it"),
        (["a", "--address", "n1", "--token-file", "/nowhere"], "/nowhere: No such file"),
        (["a", "--address", "n1", "--token-file", "/nowhere", "--token-stdin"], "exclude"),
        (["a"], "Missing option '--address'"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept(pvc: Pvc, own_files: Path, arguments: list[str], message: str) -> None:
    said = pvc("connection", "add", *arguments)
    assert said.code == 2 and message in said.err
    assert not (own_files / "connections.toml").exists()


def test_names_are_taken_once(pvc: Pvc, prod: Said, whole: Whole) -> None:
    again = pvc("connection", "add", "prod", "--address", "n9", "--no-check")
    assert again.code == 2 and "--replace takes its place" in again.err
    assert Connections().get("prod").address == address_of(whole)
    assert pvc("connection", "add", "prod", "--address", "n9", "--no-check", "--replace").code == 0
    assert Connections().get("prod") == Connection("prod", ("n9:7371",))


def test_the_one_that_is_talked_to_goes_by_its_new_name(prod: Said) -> None:
    session = Session("prod")
    for arguments in (["vm", "list"], ["connection", "rename", "prod", "first"]):
        assert main.run(arguments, session) == 0
    assert session.connection.name == "first"
    assert main.run(["vm", "list"], session) == 0
    session.close()


def test_rename_and_remove(pvc: Pvc, prod: Said) -> None:
    assert pvc("connection", "use", "prod").code == 0
    assert pvc("connection", "rename", "prod", "main").out == "connection prod is main now\n"
    assert Connections().current() == "main"
    assert pvc("connection", "add", "b", "--address", "b", "--no-check").code == 0
    assert "already" in pvc("connection", "rename", "b", "main").err
    assert pvc("connection", "rename", "nope", "c").code == 2
    declined = pvc("connection", "remove", "main")
    assert declined.code == 3 and "Its token is kept nowhere else" in declined.err
    assert pvc("connection", "remove", "main", "--yes").code == 0
    assert (list(Connections().all()), Connections().current()) == (["b"], "")
    assert pvc("connection", "remove", "local").code == 2
    unknown = pvc("-c", "main", "vm", "list")
    assert unknown.code == 2 and "there is no connection 'main'; there are: local, b" in unknown.err


def test_a_connection_changes_and_keeps_what_is_not_given(
    pvc: Pvc, prod: Said, whole: Whole, tmp_path: Path
) -> None:
    (tmp_path / "ann").write_text(whole.secrets["ann"])
    said = pvc("connection", "modify", "prod", "--token-file", str(tmp_path / "ann"))
    assert said.out == "connection prod is changed: cluster test 2.0, token ann, role viewer\n"
    found = Connections().get("prod")
    assert (found.token, found.description) == (whole.secrets["ann"], "the real one")
    dead = pvc("connection", "modify", "prod", "--address", "127.0.0.1:1")
    assert dead.code == 5 and Connections().get("prod") == found
    assert pvc("connection", "set", "prod", "--description", "").code == 0
    assert Connections().get("prod") == replace(found, description="")
    assert pvc("connection", "modify", "prod").code == 2
    assert pvc("connection", "modify", "nope", "--address", "a").code == 2
    assert pvc("connection", "modify", "local", "--address", "a").code == 2


def test_all_are_asked_at_once_and_nobody_is_waited_for(
    pvc: Pvc, prod: Said, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name in ("s1", "s2", "s3"):
            port = silent.getsockname()[1]
            pvc("connection", "add", name, "--address", f"127.0.0.1:{port}", "--no-check")
        began = time.monotonic()
        said = pvc("connection", "list", "--status", "-f", "json")
        took = time.monotonic() - began
    assert took < 6
    found = {one["name"]: one for one in json.loads(said.out)}
    assert (found["prod"]["answer"], found["prod"]["role"]) == ("ok", "admin")
    assert found["prod"]["health"] in ("ok", "warning") and found["prod"]["version"] == "2.0"
    assert found["s1"]["answer"] not in ("", "ok") and found["s1"]["health"] == ""
    table = pvc("connection", "info", "prod", "--status").out
    assert re.search(r"^Role: +admin$", table, re.MULTILINE)


def test_which_one_is_chosen(
    pvc: Pvc, prod: Said, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose() == HERE
    Connections().use("prod")
    assert choose().name == "prod"
    monkeypatch.setenv("PVC_CONNECTION", "local")
    assert choose() == HERE
    noted = pvc("connection", "use", "prod")
    assert "PVC_CONNECTION is set" in noted.err
    monkeypatch.setenv("PVC_CONNECTION", "prod,n8")
    with pytest.raises(click.UsageError, match="there is no connection 'prod,n8'"):
        choose()
    monkeypatch.setenv("PVC_CONNECTION", "n7:1,n8")
    assert choose() == Connection("", ("n7:1", "n8:7371"))
    assert choose("prod").name == "prod"


def test_the_token_of_one_cluster_is_not_shown_to_another(
    prod: Said, whole: Whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PVC_TOKEN", "secret-of-the-first")
    other = tmp_path / "other"
    other.write_text("secret-of-a-file")
    session = Session("n1:7371", token_file=str(other))
    assert session._token() == "secret-of-a-file"
    assert Session("n1:7371")._token() == "secret-of-the-first"
    assert Session("prod")._token() == whole.secrets["eve"]
    Connections().add(Connection("bare", ("n3:7371",)))
    session.switch("bare")
    assert session._token() == ""
    session.switch("prod")
    assert session._token() == whole.secrets["eve"]


def test_a_shell_switches_and_forgets_what_was_used(
    prod: Said, whole: Whole, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(Session(f"unix:{whole.folder}/run/pvc.sock"), interactive=True)
    assert runner.run_line("use vm web; whoami -f csv") == 0
    assert "local root" in capfd.readouterr().out
    assert runner.run_line("use connection nope") == 2
    assert runner.context == "vm/web"
    assert runner.run_line("use connection prod; whoami -f csv") == 0
    assert "token eve" in capfd.readouterr().out
    assert runner.context == "" and Connections().current() == ""
    runner.session.switch(f"unix:{whole.folder}/run/pvc.sock")
    assert runner.run_line("use vm web; connection use prod; whoami -f csv") == 0
    assert "token eve" in capfd.readouterr().out and Connections().current() == "prod"
    assert runner.run_line("connection list | where current='*' | name") == 0
    assert capfd.readouterr().out == "prod\n"
    runner.session.close()


BROKEN = (
    ("[connections.prod\naddresses = ['n1:1']\n", "line 1"),
    ("\n\nx = [", "line 3, the end"),
    ("current = 'prod'\n", "the name of no connection"),
    ("[connections.prod]\naddresses = 'n1:1'\n", "connections.prod.addresses must be a list"),
    ("[connections.prod]\naddresses = ['n1:x']\n", "connections.prod: 'n1:x' is no address"),
    ("[connections.prod]\naddresses = ['n1:1']\ntoken = 1\n", "connections.prod.token must be"),
    ("connections = 1\n", "must be a table"),
    ("[connections]\nprod = 'n1'\n", "connections.prod must be a table"),
    ("\n\n\xff\n", "line 3 is no text"),
)


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_file_is_told_and_left_alone(
    pvc: Pvc, own_files: Path, text: str, message: str
) -> None:
    own_files.mkdir()
    file = own_files / "connections.toml"
    file.write_bytes(text.encode("latin-1"))
    for arguments in (["list"], ["use", "prod"], ["remove", "prod", "--yes"], ["rename", "a", "b"],
                      ["add", "new", "--address", "n1", "--no-check"]):  # fmt: skip
        said = pvc("connection", *arguments)
        assert said.code == 1 and message in said.err, arguments
        assert str(file) in said.err
    assert pvc("vm", "list").code == 1
    assert file.read_bytes() == text.encode("latin-1")
    assert pvc("-c", "unix:/nowhere", "vm", "list").code == 5  # that one needs no file
    assert pvc("--help").code == 0


def test_what_people_wrote_stays(own_files: Path) -> None:
    own_files.mkdir()
    file = own_files / "connections.toml"
    file.write_text("# mine\n[connections.b]\naddresses = ['b:1'] # at work\ncolour = 'red'\n")
    Connections().add(Connection("a", ("a:1",), "x", "t", "-----BEGIN…\nA\n"), use=True)
    text = file.read_text()
    assert text.startswith("# mine\n") and "# at work\ncolour = 'red'\n" in text
    found = Connections().all()
    assert found["a"] == Connection("a", ("a:1",), "x", "t", "-----BEGIN…\nA\n")
    assert list(found) == ["b", "a"] and Connections().current() == "a"


def test_a_file_that_others_can_read_is_told_of_and_closed_by_the_next_change(
    own_files: Path, pvc: Pvc, prod: Said
) -> None:
    Connections().add(Connection("a", ("a:1",)))
    file = own_files / "connections.toml"
    file.chmod(0o644)
    assert not Connections().is_private()
    assert f"chmod 600 {file}" in pvc("-c", "prod", "node", "list", "-f", "name").err
    Connections().use("a")
    assert Connections().is_private()


WRITER = """
import sys
from shell.connections import Connection, Connections
for n in range(15):
    Connections().add(Connection(f"{sys.argv[1]}-{n}", ("n1:1",), "d" * 500), use=True)
"""


def process(code: str, own_files: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PATHS,
        "PVC_CONFIG_DIR": str(own_files),
    }
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)  # fmt: skip


def test_two_writers_lose_nothing(own_files: Path) -> None:
    writers = [process(WRITER, own_files, name) for name in "abc"]
    while any(writer.poll() is None for writer in writers):
        found = Connections().all()  # never half a file
        assert all(one.description == "d" * 500 for one in found.values())
        time.sleep(0.005)
    for writer in writers:
        assert writer.wait() == 0, writer.communicate()
    assert len(Connections().all()) == 45
    assert sorted(one.name for one in own_files.iterdir()) == [
        ".connections.toml.lock", "connections.toml",
    ]  # fmt: skip


HOLDER = """
import sys, time
from shell.connections import Connections
with Connections()._changed():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_writer_that_dies_leaves_no_lock_and_no_half_file(own_files: Path) -> None:
    Connections().add(Connection("a", ("a:1",)))
    (own_files / ".connections.toml.new").write_text("[connections.half")
    holder = process(HOLDER, own_files)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    Connections().add(Connection("b", ("b:1",)))
    assert list(Connections().all()) == ["a", "b"]
    assert not (own_files / ".connections.toml.new").exists()


def test_a_writer_that_hangs_is_not_waited_for_for_ever(
    own_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shell import toml_file

    monkeypatch.setattr(toml_file, "LOCK_S", 0.2)
    Connections().add(Connection("a", ("a:1",)))
    holder = process(HOLDER, own_files)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BadFile, match="another program has been changing"):
            Connections().add(Connection("b", ("b:1",)))
        assert list(Connections().all()) == ["a"]
    finally:
        holder.kill()
        holder.wait()


def test_a_folder_that_cannot_be_written(
    pvc: Pvc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("/proc/pvc", str(tmp_path / "file")):
        monkeypatch.setenv("PVC_CONFIG_DIR", folder)
        said = pvc("connection", "add", "a", "--address", "n1", "--no-check")
        assert said.code == 1, said.err
        assert folder in said.err and "cannot be" in said.err


@given(st.text(max_size=30))
def test_addresses_and_names_are_taken_or_refused(text: str) -> None:
    for check in (checked_address, checked_name, addresses_in):
        try:
            found = check(text)
        except click.UsageError:
            continue
        if check is checked_address:
            assert checked_address(found) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", "n1:7371"),
        ("n1:1", "n1:1"),
        ("[::1]", "[::1]:7371"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("unix:/run/x", "unix:/run/x"),
        ("10.0.0.1", "10.0.0.1:7371"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    assert checked_address(text) == expected


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    create_cluster(folder, "test", "n1", ["127.0.0.1"], SystemClock().now())
    return folder


@pytest.fixture(scope="module")
def closed_world(tls: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("world")) as world:
        pair = {"certificate": str(tls / "node.crt"), "key": str(tls / "node.key")}
        world.settings = replace(world.settings, **pair)
        world.reopen()
        yield world


def test_the_ca_goes_with_the_connection(
    pvc: Pvc, closed_world: World, tls: Path, tmp_path: Path, own_files: Path
) -> None:
    (tmp_path / "token").write_text(closed_world.secrets["bob"])
    both = tmp_path / "both.pem"
    both.write_text((tls / "node.key").read_text() + (tls / "ca.crt").read_text())
    arguments = ["connection", "add", "far", "--address", closed_world.grpc_address,
                 "--token-file", str(tmp_path / "token")]  # fmt: skip
    untrusted = pvc(*arguments)
    assert untrusted.code == 5 and "look at --address, --ca" in untrusted.err
    said = pvc(*arguments, "--ca", str(both))
    assert said.code == 0, said.err
    assert "token bob, role operator" in said.out
    both.unlink()
    (tmp_path / "token").unlink()
    assert pvc("-c", "far", "whoami", "-f", "csv").out.splitlines()[1].startswith("token bob")
    assert "PRIVATE KEY" not in (own_files / "connections.toml").read_text()


def test_certificates_are_found_among_other_things() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    key = "-----BEGIN PRIVATE KEY-----\nBBBB\n-----END PRIVATE KEY-----"
    assert certificates_in(f"text\n{key}\n{pem}\n{pem}\nmore") == f"{pem}\n{pem}\n"
    with pytest.raises(click.UsageError):
        certificates_in(key)

"""`pvc audit` and `pvc token` against a real gateway."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.gateway.v1.token_pb2 import LastUse, Token, TokenUse
from services.state.store import ANY_VERSION, Put
from tests.doors.world import World, world_in
from tests.shell import test_commands

pvc = test_commands.pvc


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("shell")) as world:
        yield world


def kept(world: World) -> None:
    """All that was asked is in the state, with how it ended: that is written after the answer."""
    recorder, end = world.doors._door._recorder, time.monotonic() + 60
    while recorder._going:
        assert time.monotonic() < end
        time.sleep(0.01)
    recorder.step()


def test_the_audit_log_in_commands(pvc: Any, world: World) -> None:
    address = world.grpc_address
    pvc("vm", "create", "web")
    os.environ["PVC_TOKEN"] = world.secrets["bob"]
    try:
        assert pvc("-c", address, "vm", "start", "none").code == 4
        assert pvc("-c", address, "token", "revoke", "eve", "--yes").code == 1
    finally:
        del os.environ["PVC_TOKEN"]
    kept(world)
    listed = pvc("audit", "list")
    head, *lines = listed.out.splitlines()
    assert head.split() == ["TIME", "CALLER", "METHOD", "TARGET", "OUTCOME", "TOOK"]
    assert "local root" in lines[0] and "CreateVm  vms/web" in lines[0]
    assert any("token bob" in line and "failed NOT_FOUND" in line for line in lines)
    by_bob = pvc("audit", "list", "--caller", "bob", "--since", "1h", "-f", "json")
    assert {one["caller"] for one in json.loads(by_bob.out)} == {"token bob"}
    made, failed, refused = "vms/web", "vms/none", "tokens/eve"
    for which, targets in (
        (("--method", "Create*"), {made}), (("--target", failed), {failed}),
        (("--target", "vms/*"), {made, failed}), (("--peer", "127.0.0.1"), {failed, refused}),
        (("--outcome", "refused"), {refused}), (("--caller", "local root"), {made}),
        (("--outcome", "failed", "--outcome", "succeeded"), {made, failed}),
        (("--filter", "door=socket"), {made}), (("--filter", "took>1m"), set()),
        (("--caller", "nobody*"), set()),
    ):  # fmt: skip
        found = pvc("audit", "list", *which, "-f", "json")
        assert found.code == 0, found.err
        assert {one["target"] for one in json.loads(found.out)} == targets, which
    (name,) = pvc("audit", "list", "--method", "CreateVm", "-f", "name").out.split()
    assert re.search(r"Method: +CreateVm", pvc("audit", "info", name).out)
    wrong = pvc("audit", "list", "--filter", "colour=red")
    assert wrong.code == 2 and "colour" in wrong.err


@pytest.mark.parametrize("format", ["table", "json"])
def test_it_is_followed_until_ctrl_c(world: World, pvc: Any, format: str, tmp_path: Path) -> None:
    environment = dict(os.environ, PVC_CONNECTION=f"unix:{world.socket}", PYTHONUNBUFFERED="1")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", "from shell.main import main; main()"]
    command += ["audit", "watch", "-f", format, "--no-header"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as watching:
        assert watching.stdout is not None
        deadline = time.monotonic() + 60
        while not world.doors._door._streams:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pvc("token", "create", f"w-{format}", "--role", "viewer")
        kept(world)
        line = watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
    assert f"tokens/w-{format}" in line and "CreateToken" in line
    if format == "json":
        assert json.loads(line)["auditEntry"]["caller"] == "local root"


def test_a_token_is_changed_and_keeps_its_secret(pvc: Any, world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    pvc("token", "create", "mia", "--role", "operator", "--output", str(secret))
    me = ("-c", world.grpc_address, "--token-file", str(secret), "whoami", "-f", "json")
    assert pvc("token", "update", "mia", "--role", "viewer", "--ttl", "30d").code == 0
    assert json.loads(pvc(*me).out)["role"] == "ROLE_VIEWER"
    shown = json.loads(pvc("token", "info", "mia", "-f", "json").out)
    assert "expireTime" in shown and not shown.get("secretHash")
    assert pvc("token", "update", "mia", "--ttl", "never", "--description", "Mia").code == 0
    shown = json.loads(pvc("token", "info", "mia", "-f", "json").out)
    assert "expireTime" not in shown and shown["description"] == "Mia"
    assert pvc("token", "update", "mia").code == 2
    assert pvc("token", "update", "nobody", "--role", "viewer").code == 4
    assert pvc("token", "update", "mia", "--role", "king").code == 2


def test_the_last_admin_is_revoked_knowingly(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    with world_in(tmp_path) as world:
        monkeypatch.setenv("PVC_CONNECTION", f"unix:{world.socket}")
        pvc = test_commands.pvc.__wrapped__(world, capfd, monkeypatch)
        for command in (("revoke", "eve"), ("update", "eve", "--role", "viewer")):
            asked = pvc("token", *command)
            assert asked.code == 3 and "last token of an admin" in asked.err
        assert pvc("token", "revoke", "eve", "--yes").code == 0
        told = pvc("event", "list", "--subject", "tokens/eve", "--severity", "warning").out
        assert "root of a node still comes in" in told
        assert pvc("token", "create", "new", "--role", "admin").code == 0, "and root does"


def test_tokens_that_nobody_uses_are_found(pvc: Any, world: World) -> None:
    for name, days in (("lately", 1), ("seldom", 100)):
        assert pvc("token", "create", name, "--role", "viewer").code == 0
        row = world.store.snapshot().find(Token, f"tokens/{name}")
        assert row is not None
        use = LastUse(address="10.0.0.7", node="nodes/n1")
        use.time.FromSeconds(int(time.time()) - days * 86400)
        told = TokenUse(name=f"tokenUses/{name}", token_uid=row.meta.uid, last_used=use)
        told.meta.etag = ANY_VERSION
        world.store.commit([Put(told)])
    assert pvc("token", "create", "never", "--role", "viewer").code == 0
    names = pvc("token", "list", "--unused", "90d", "-f", "name").out.split()
    assert {"seldom", "never"} <= set(names) and "lately" not in names
    wide = pvc("token", "list", "seldom", "-f", "wide").out.splitlines()
    assert wide[0].split() == [
        "NAME",
        "ROLE",
        "EXPIRES",
        "AGE",
        "LAST",
        "USED",
        "FROM",
        "DESCRIPTION",
    ]
    assert wide[1].split()[-2:] == ["100d", "10.0.0.7"]
    shown = pvc("token", "info", "seldom").out
    assert re.search(r"Last used: +100d", shown) and re.search(r"From: +10.0.0.7", shown)
    assert pvc("token", "list", "--filter", "last-used>90d", "-f", "name").out.split() == ["seldom"]
    for name in ("lately", "seldom", "never"):
        assert pvc("token", "revoke", name, "--yes").code == 0

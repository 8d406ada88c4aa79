"""The doors: where they may be, who must answer behind them, and what is written down."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.sync.client import connect

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1 import storage_pb2
from pvc_client import Cluster, errors
from services.gateway.access import secret_hash
from services.gateway.doors import Settings, check, is_loopback, listening
from services.gateway.main import settings_of
from services.gateway.methods import METHODS
from services.gateway.routing import node_for
from services.gateway.tokens import Token, ensure_first_token
from services.mesh.clock import SystemClock
from services.mesh.config import load
from services.mesh.errors import PvcError
from services.mesh.identity import create_cluster
from services.state.memory import MemoryStore
from services.state.store import ANY_VERSION, Delete, Put
from tests.doors.world import World, world_in

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("doors")) as world:
        yield world


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (Settings(grpc_address="0.0.0.0:7371"), "plainly on 0.0.0.0:7371"),
        (Settings(rest_address="[::]:7370"), "plainly on"),
        (Settings(rest_address="pvc.example:7370"), "plainly on"),
        (Settings(certificate="/x.pem"), "come together"),
    ],
)
def test_unsafe_doors_are_refused(settings: Settings, problem: str) -> None:
    with pytest.raises(PvcError, match=problem) as refused:
        check(settings)
    assert refused.value.reason_name == "INVALID_CONFIG"


def test_safe_doors_are_not() -> None:
    check(Settings())
    check(Settings("0.0.0.0:1", "0.0.0.0:2", certificate="/c", key="/k"))
    assert is_loopback("localhost:1") and is_loopback("[::1]:1") and is_loopback("127.3.2.1:1")


def test_a_taken_address_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PvcError, match=f"cannot listen on 127.0.0.1:{port}"):
            listening(f"127.0.0.1:{port}")


def test_the_first_token_is_made_once_and_mended(tmp_path: Path) -> None:
    store, path = MemoryStore(), tmp_path / "pvc" / "admin.token"
    secret = ensure_first_token(store, CLOCK, path)
    assert path.read_text() == secret + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    revision = store.snapshot().revision
    assert ensure_first_token(store, CLOCK, path) == secret
    assert store.snapshot().revision == revision, "nothing was to be done"
    # Cut between file and row: the file's secret becomes the token.
    other = MemoryStore()
    assert ensure_first_token(other, CLOCK, path) == secret
    # The file is lost: a new secret, the old one is worth nothing.
    path.unlink()
    newer = ensure_first_token(store, CLOCK, path)
    row = store.snapshot().find(Token, "tokens/admin")
    assert newer != secret and row is not None and row.secret_hash == secret_hash(newer)


def test_a_leftover_of_a_cut_write_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "admin.token.new").write_text("half")
    os.chmod(tmp_path / "admin.token.new", 0o644)  # noqa: PTH101
    ensure_first_token(MemoryStore(), CLOCK, tmp_path / "admin.token")
    assert [path.name for path in tmp_path.iterdir()] == ["admin.token"]


def populated() -> MemoryStore:
    store = MemoryStore()
    vm = vm_pb2.Vm(name="vms/web")
    vm.decision.node = "nodes/n2"
    volume = storage_pb2.Volume(name="pools/a/volumes/b")
    volume.status.node = "nodes/n3"
    store.commit([Put(vm), Put(volume), Put(cluster_pb2.Node(name="nodes/n1.example"))])
    return store


@pytest.mark.parametrize(
    ("path", "fields", "node"),
    [
        ("/pvc.compute.v1.VmService/AttachConsole", {"name": "vms/web"}, "nodes/n2"),
        ("/pvc.compute.v1.VmService/GetVm", {"name": "vms/web"}, ""),
        (
            "/pvc.compute.v1.DiskService/SnapshotOpenVolumes",
            {"volumes": ["pools/a/volumes/b"]},
            "nodes/n3",
        ),
        ("/pvc.compute.v1.DiskService/SnapshotOpenVolumes", {}, ""),
        (
            "/pvc.storage.v1.StorageService/DownloadFile",
            {"name": "files/n1.example.0123"},
            "nodes/n1.example",
        ),
        ("/pvc.storage.v1.StorageService/DownloadFile", {"name": "files/0123"}, ""),
    ],
)
def test_the_node_that_must_answer(path: str, fields: dict[str, object], node: str) -> None:
    method = METHODS[path]
    assert node_for(populated().snapshot(), method, method.request(**fields)) == node


def test_a_console_of_no_vm_is_not_found() -> None:
    method = METHODS["/pvc.compute.v1.VmService/AttachConsole"]
    with pytest.raises(PvcError) as refused:
        node_for(populated().snapshot(), method, method.request(name="vms/none"))
    assert refused.value.reason_name == "NOT_FOUND"


def test_a_console_goes_to_the_node_of_its_vm(world: World) -> None:
    vm = vm_pb2.Vm(name="vms/far")
    vm.decision.node = "nodes/n7"
    world.store.commit([Put(vm)])
    with Cluster(f"unix:{world.socket}") as cluster, cluster.vms.console("far") as console:
        console.read()
    assert world.peers.asked[-1] == ("compute", "nodes/n7")


def audited(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "pvc.audit"]


def test_mutations_and_refusals_are_written_down_and_reads_are_not(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pvc.audit")
    with Cluster(world.grpc_address, token=world.secrets["bob"]) as bob:
        bob.vms.get("far")
        bob.vms.create("line", vm_pb2.VmSpec(), request_id='a"b')
        with pytest.raises(errors.NotFound):
            bob.vms.start("none")
        with pytest.raises(errors.InvalidField):
            bob.vms.start("none", request_id="a\nforged OK")
        with pytest.raises(errors.PermissionDenied, match="needs the role admin"):
            bob.tokens.delete("eve")
    made, failed, forged, refused = [one for one in audited(caplog) if "token bob" in one]
    assert made.startswith('"token bob" from 127.0.0.1:')
    assert 'VmService/CreateVm "vms/line" request_id="a\\"b" OK ' in made
    assert 'VmService/StartVm "vms/none"' in failed and " NOT_FOUND " in failed
    assert '"a\\nforged OK" INVALID_FIELD ' in forged
    assert "AccessService/DeleteToken" in refused and " PERMISSION_DENIED " in refused
    assert not any(secret in line for line in audited(caplog) for secret in world.secrets.values())


def test_health_answers_without_a_token(world: World) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(world.grpc_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    create_cluster(folder, "test", "n1", ["127.0.0.1"], CLOCK.now())
    return folder


def test_doors_with_the_clusters_certificate(tls: Path, tmp_path: Path) -> None:
    with world_in(tmp_path) as world:
        pair = {"certificate": str(tls / "node.crt"), "key": str(tls / "node.key")}
        world.settings = replace(world.settings, **pair)
        world.reopen()
        token = world.secrets["ann"]
        with Cluster(world.grpc_address, token=token, ca=tls / "ca.crt") as cluster:
            assert cluster.whoami().caller == "token ann"
        plain = Cluster(world.grpc_address, token=token, timeout_s=20)
        with plain, pytest.raises(errors.Unreachable):
            plain.whoami()
        url = f"https://127.0.0.1:{world.doors.rest_port}/v1/whoami"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        trusting = ssl.create_default_context(cafile=str(tls / "ca.crt"))
        with urllib.request.urlopen(request, context=trusting, timeout=60) as answer:
            assert json.load(answer)["caller"] == "token ann"
        watch = f"wss://127.0.0.1:{world.doors.rest_port}/v1/nodes:watch"
        with connect(watch, ssl=trusting, additional_headers=request.headers) as socket:
            assert "CHANGE_KIND_BOOKMARK" in str(socket.recv(5))
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(request, timeout=60)


def shown_at(port: int) -> bytes:
    """The certificate that a door shows."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=60).encode()


def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    create_cluster(folder, "test", "n1", ["127.0.0.1"], CLOCK.now())
    files = {"certificate": str(folder / "node.crt"), "key": str(folder / "node.key")}
    with world_in(tmp_path) as world:
        world.settings = replace(world.settings, **files)
        world.reopen()
        ports = world.doors.grpc_port, world.doors.rest_port
        first = (folder / "node.crt").read_bytes()
        assert [shown_at(port) for port in ports] == [first, first]
        create_cluster(folder, "test", "n1", ["127.0.0.1", "10.0.0.9"], CLOCK.now())
        second = (folder / "node.crt").read_bytes()
        assert [shown_at(port) for port in ports] == [second, second] and second != first
        (folder / "node.crt").write_bytes(first)  # not the certificate of this key
        for _ in range(2):
            assert [shown_at(port) for port in ports] == [second, second]


@pytest.mark.parametrize(
    ("section", "certificate"),
    [
        ("", ""),
        ('rest_listen = "0.0.0.0:7370"', "tls/node.crt"),
        ('rest_listen = "0.0.0.0:7370"\ncertificate = "/c.pem"\nkey = "/k.pem"', "/c.pem"),
        ('rest_listen = ""\ngrpc_listen = ""', ""),
    ],
)
def test_what_a_configuration_makes_of_the_doors(
    section: str, certificate: str, tmp_path: Path
) -> None:
    file = tmp_path / "pvc.toml"
    file.write_text(f"[gateway]\n{section}\n")
    settings = settings_of(load(file))
    assert settings.certificate.endswith(certificate)
    assert bool(settings.certificate) == bool(certificate)
    check(settings)
    assert settings.socket == "/run/pvc/pvc.sock"


def test_closing_does_not_wait_for_those_who_watch(tmp_path: Path) -> None:
    with (
        world_in(tmp_path) as world,
        Cluster(world.grpc_address, token=world.secrets["ann"]) as ann,
    ):
        changes = ann.vms.watch()
        next(changes)
        address = ("127.0.0.1", world.doors.rest_port)
        with socket.create_connection(address, timeout=60) as raw:
            token = f"authorization: Bearer {world.secrets['ann']}"
            raw.sendall(f"GET /v1/vms:watch HTTP/1.1\r\nhost: x\r\n{token}\r\n\r\n".encode())
            received = raw.recv(65536)
            world.run(world.doors.stop(grace_s=3600), timeout_s=60)
            while piece := raw.recv(65536):
                received += piece
        assert b"shutting down" in received, "the last line says why it ended"
        changes._complete = False  # do not resume
        with pytest.raises(errors.Unreachable, match="shutting down"):
            next(changes)


def test_the_local_socket_is_private_and_no_setting_of_the_process_changes_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[int] = []
    monkeypatch.setattr(os, "umask", masks.append)
    (tmp_path / ".pvc").mkdir(mode=0o755)  # a process died there
    with world_in(tmp_path) as world:
        assert world.socket.stat().st_mode & 0o777 == 0o600
        assert not (tmp_path / ".pvc").exists()
        with Cluster(f"unix:{world.socket}") as cluster:
            assert cluster.whoami().caller == "local root"
    assert not masks and not world.socket.exists()


def test_a_revoked_token_ends_what_it_had_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since it is revoked, not because all are asked from time to time."""
    monkeypatch.setattr("services.gateway.lasting.RECHECK_S", 3600.0)
    secret = world.add_token("short", 3)
    cluster = Cluster(world.grpc_address, token=secret)
    with cluster, socket.create_connection(("127.0.0.1", world.doors.rest_port), timeout=60) as raw:
        changes = cluster.vms.watch()
        next(changes)
        head = f"host: x\r\nauthorization: Bearer {secret}"
        raw.sendall(f"GET /v1/vms:watch HTTP/1.1\r\n{head}\r\n\r\n".encode())
        received = raw.recv(65536)
        world.store.commit([Delete("tokens/short", "*")])
        with pytest.raises(errors.Unauthenticated):
            for _ in changes:
                continue
        while piece := raw.recv(65536):
            received += piece
            if b"UNAUTHENTICATED" in received:
                break
    assert b"UNAUTHENTICATED" in received
    wait_until(lambda: not world.doors._door._streams)


def test_nothing_is_left_of_a_caller_who_goes_before_the_first_answer(
    world: World,
) -> None:
    world.store.commit([Put(vm_pb2.Vm(name="vms/silent", meta={"etag": ANY_VERSION}))])
    streams = world.doors._door._streams
    wait_until(lambda: not streams)
    with socket.create_connection(("127.0.0.1", world.doors.rest_port), timeout=60) as raw:
        head = f"host: x\r\nauthorization: Bearer {world.secrets['bob']}"
        raw.sendall(f"GET /v1/vms/silent:consoleLog HTTP/1.1\r\n{head}\r\n\r\n".encode())
        wait_until(lambda: len(streams) == 1)
    wait_until(lambda: not streams)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_a_caller_wrote_is_not_written_down_at_any_length(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pvc.audit")
    bob = Cluster(world.grpc_address, token=world.secrets["bob"])
    with bob, pytest.raises(errors.PvcError):
        bob.vms.start("x" * 100_000, request_id="y" * 100_000)
    (line,) = audited(caplog)
    assert len(line) < 1000


def test_nothing_is_left_of_a_watcher_who_goes(world: World) -> None:
    streams = world.doors._door._streams
    wait_until(lambda: not streams)
    with Cluster(world.grpc_address, token=world.secrets["ann"]) as cluster:
        changes = cluster.vms.watch(filter='name = "vms/none"')
        next(changes)
        with socket.create_connection(("127.0.0.1", world.doors.rest_port), timeout=60) as raw:
            token = f"authorization: Bearer {world.secrets['ann']}"
            path = "/v1/vms:watch?filter=name%3D%22vms/none%22"
            raw.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n{token}\r\n\r\n".encode())
            received = b""
            while b"BOOKMARK" not in received:
                received += raw.recv(65536)
            wait_until(lambda: len(streams) == 2)
        changes.close()
        wait_until(lambda: not streams)

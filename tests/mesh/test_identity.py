"""Certificates: made once, kept, renewed, refused in words when they do not fit."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from services.mesh import identity
from services.mesh.errors import PvcError
from services.mesh.identity import Files, create_cluster, node_of, renew, write_private
from services.state.memory import MemoryStore
from tests.mesh.serving import CLOCK, at, cluster, on_tls, served

BEGIN = at("2026-01-01T00:00:00Z")
LATER = at("2026-06-01T00:00:00Z")
OLD = at("2026-10-01T00:00:00Z")
EXPIRED = at("2027-02-01T00:00:00Z")


def made(folder: Path, node: str = "n1", addresses: tuple[str, ...] = ("10.0.0.1",)) -> Files:
    return create_cluster(folder, "test", node, addresses, BEGIN)


def refusal(work: object) -> str:
    with pytest.raises(PvcError) as caught:
        work()  # type: ignore[operator]
    assert caught.value.reason == reason_pb2.REASON_INVALID_CONFIG
    return caught.value.message


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_private_and_complete(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "tls"
    made(folder)
    assert {path.name for path in folder.iterdir()} == {"ca.crt", "ca.key", "node.crt", "node.key"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert node_of((folder / "node.crt").read_bytes()) == "nodes/n1"


def test_making_it_again_keeps_it(tmp_path: Path) -> None:
    made(tmp_path)
    before = content(tmp_path)
    create_cluster(tmp_path, "test", "n1", ["10.0.0.1"], LATER)
    assert content(tmp_path) == before


def test_new_addresses_or_age_make_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    made(tmp_path)
    before = content(tmp_path)
    create_cluster(tmp_path, "test", "n1", ["10.0.0.1", "10.0.0.2"], LATER)
    moved = content(tmp_path)
    assert moved["ca.crt"] == before["ca.crt"] and moved["node.crt"] != before["node.crt"]
    create_cluster(tmp_path, "test", "n1", ["10.0.0.1"], OLD)
    assert content(tmp_path)["node.crt"] == moved["node.crt"], "it was made five months later"
    create_cluster(tmp_path, "test", "n1", ["10.0.0.1"], EXPIRED)
    assert content(tmp_path)["node.crt"] != moved["node.crt"]
    Files(tmp_path).checked(EXPIRED)


def test_renewal_when_less_than_a_third_remains(tmp_path: Path) -> None:
    made(tmp_path)
    assert not renew(tmp_path, LATER)
    before = content(tmp_path)
    assert renew(tmp_path, OLD)
    assert not renew(tmp_path, OLD)
    assert content(tmp_path)["node.crt"] != before["node.crt"]
    assert identity.names_of(Files(tmp_path).pair("node").certificate)[1] == ["n1", "10.0.0.1"]


def test_without_the_authoritys_key_nothing_is_renewed_and_expiry_is_told(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "ca.key").unlink()
    assert not renew(tmp_path, OLD)
    assert "expired on 2027-01-01" in refusal(lambda: renew(tmp_path, EXPIRED))
    assert "expired on 2027-01-01" in refusal(lambda: Files(tmp_path).checked(EXPIRED))


def test_a_wrong_clock_is_suspected(tmp_path: Path) -> None:
    made(tmp_path)
    early = at("2020-01-01T00:00:00Z")
    assert "is the machine's clock right?" in refusal(lambda: Files(tmp_path).checked(early))


def test_what_does_not_belong_together_is_told(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    made(one)
    made(two)
    other = create_cluster(tmp_path / "three", "other", "n1", [], BEGIN)
    assert '"PVC cluster other"' in refusal(lambda: made(other.folder))
    (one / "node.key").write_bytes((two / "node.key").read_bytes())
    assert "is not the key of" in refusal(Files(one).checked)
    (one / "node.crt").write_bytes((two / "node.crt").read_bytes())
    assert "different clusters" in refusal(Files(one).checked)


def test_a_writer_that_died_between_key_and_certificate_is_mended(tmp_path: Path) -> None:
    made(tmp_path)
    fresh = identity.new_node(Files(tmp_path).pair("ca"), "n1", [], identity.moment_of(BEGIN))
    write_private(tmp_path / "node.key", fresh.key_pem)
    assert renew(tmp_path, LATER)
    Files(tmp_path).checked(LATER)
    (tmp_path / "ca.crt").unlink()
    made(tmp_path)
    Files(tmp_path).checked(LATER)


@pytest.mark.parametrize("name", ["node.crt", "node.key", "ca.crt"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    made(tmp_path)
    (tmp_path / name).write_text("nonsense")
    assert name in refusal(Files(tmp_path).checked)
    (tmp_path / name).unlink()
    assert f"cannot read {tmp_path / name}" in refusal(Files(tmp_path).checked)


def test_a_node_must_have_a_name(tmp_path: Path) -> None:
    assert "cannot be a node's name" in refusal(lambda: made(tmp_path, "N 1"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    write_private(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(identity.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(file, b"new")
    assert content(tmp_path) == {"a": b"old"}


def called(address: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    options = [("grpc.ssl_target_name_override", "n1"), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        stub = api_grpc.NodeServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetNode(api.GetNodeRequest(name="nodes/x"), timeout=60)
        return caught.value.code()


def test_expired_certificates_are_not_let_in_and_renewed_ones_are_taken_up(tmp_path: Path) -> None:
    """A server goes on while its certificate is renewed under it."""
    files = cluster(tmp_path)
    authority, certificate, key = files.checked()
    with served(MemoryStore(), on_tls(files)) as running:
        good = grpc.ssl_channel_credentials(authority, key, certificate)
        assert called(running.address, good) == grpc.StatusCode.NOT_FOUND
        past = identity.moment_of(at("2020-01-01T00:00:00Z"))
        expired = identity.new_node(files.pair("ca"), "n1", ["127.0.0.1"], past)
        bad = grpc.ssl_channel_credentials(authority, expired.key_pem, expired.certificate_pem)
        assert called(running.address, bad) == grpc.StatusCode.UNAVAILABLE
        create_cluster(tmp_path, "test", "n1", ["127.0.0.1", "127.0.0.2"], CLOCK.now())
        assert files.checked()[1] != certificate
        fresh = files.channel_credentials(CLOCK.now())
        assert called(running.address, fresh) == grpc.StatusCode.NOT_FOUND
        (tmp_path / "node.key").write_text("nonsense")
        assert called(running.address, fresh) == grpc.StatusCode.NOT_FOUND

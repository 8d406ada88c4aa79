"""TLS on the doors: what is shown, what is refused at the start, and what callers are told."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pvc_client import Cluster, errors
from services.gateway.certificate import checked
from services.mesh.clock import SystemClock
from services.mesh.errors import PvcError
from services.mesh.identity import Pair, create_cluster, new_authority, new_node
from tests.doors.world import World, world_in

CLOCK = SystemClock()
HOST = "127.0.0.1"
DAY = timedelta(days=1)


def pair(at: datetime | None = None) -> Pair:
    authority = new_authority("test", datetime.now(UTC))
    return new_node(authority, "n1", [HOST], at or datetime.now(UTC))


def files(folder: Path, made: Pair, key: bytes | None = None, mode: int = 0o600) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    certificate, secret = folder / "door.crt", folder / "door.key"
    certificate.write_bytes(made.certificate_pem)
    secret.write_bytes(made.key_pem if key is None else key)
    secret.chmod(mode)
    return {"certificate": str(certificate), "key": str(secret)}


def sealed_key() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


BAD = {
    "of another key": (lambda f: files(f, pair(), pair().key_pem), "was not made for the key"),
    "expired": (lambda f: files(f, pair(datetime.now(UTC) - 900 * DAY)), "expired on .*renewed"),
    "of tomorrow": (
        lambda f: files(f, pair(datetime.now(UTC) + 9 * DAY)),
        "only from.*clock",
    ),
    "no key": (lambda f: files(f, pair(), b"hello"), "no unencrypted key in PEM form"),
    "an empty key": (lambda f: files(f, pair(), b""), "no unencrypted key"),
    "a sealed key": (lambda f: files(f, pair(), sealed_key()), "no unencrypted key"),
    "a key for all": (lambda f: files(f, pair(), mode=0o644), "read by everybody: chmod 600"),
    "missing": (lambda f: {**files(f, pair()), "key": f"{f}/none"}, "cannot be read: No such"),
    "a folder": (lambda f: {**files(f, pair()), "key": str(f)}, "cannot be read: Is a dir"),
    "swapped": (
        lambda f: dict(zip(("key", "certificate"), files(f, pair()).values(), strict=True)),
        "no certificate in PEM form",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_pair_that_is_of_no_use_is_refused_at_the_start(kind: str, tmp_path: Path) -> None:
    make, words = BAD[kind]
    settings = make(tmp_path / "tls")
    with world_in(tmp_path) as world:
        world.settings = replace(world.settings, **settings)
        with pytest.raises(PvcError, match=words) as refused:
            world.reopen()
    assert refused.value.reason_name == "INVALID_CONFIG"
    assert "gateway's certificate" in refused.value.message


def test_keys_of_other_kinds_do_as_well(tmp_path: Path) -> None:
    made = files(tmp_path, pair())
    assert checked(Path(made["certificate"]), Path(made["key"]), CLOCK.now())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tls")
    create_cluster(folder / "tls", "test", "n1", [HOST], CLOCK.now())
    with world_in(folder) as world:
        own = {"certificate": str(folder / "tls/node.crt"), "key": str(folder / "tls/node.key")}
        world.settings = replace(world.settings, **own)
        world.reopen()
        yield world


def ports(world: World) -> dict[str, int]:
    return {"grpc": world.doors.grpc_port, "rest": world.doors.rest_port}


def shaken(port: int, least: ssl.TLSVersion, most: ssl.TLSVersion) -> tuple[str, str]:
    """The version and the protocol above it that a door agrees to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = least, most
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        return tls.version() or "", tls.selected_alpn_protocol() or ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("door", ["grpc", "rest"])
def test_no_tls_older_than_1_2_is_spoken(door: str, world: World) -> None:
    port = ports(world)[door]
    new, old = ssl.TLSVersion, {"grpc": "h2", "rest": "http/1.1"}[door]
    assert shaken(port, new.TLSv1_3, new.TLSv1_3) == ("TLSv1.3", old)
    assert shaken(port, new.TLSv1_2, new.TLSv1_2) == ("TLSv1.2", old)
    for version in (new.TLSv1, new.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shaken(port, version, version)


@pytest.mark.parametrize("door", ["grpc", "rest"])
def test_who_speaks_plainly_to_a_door_with_tls_gets_nothing(door: str, world: World) -> None:
    with socket.create_connection((HOST, ports(world)[door]), timeout=60) as raw:
        raw.sendall(b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\n\r\n")
        received = raw.recv(4096)
    assert b"200" not in received and b"caller" not in received


def test_a_client_with_the_wrong_ca_is_told_what_is_wrong(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    other.write_bytes(new_authority("other", datetime.now(UTC)).certificate_pem)
    token = world.secrets["ann"]
    right = world.socket.parent / "tls" / "ca.crt"
    with Cluster(world.grpc_address, token=token, ca=right) as cluster:
        assert cluster.whoami().caller == "token ann"
    wrong = Cluster(world.grpc_address, token=token, ca=other, timeout_s=5)
    with wrong as cluster, pytest.raises(errors.PvcError) as refused:
        cluster.whoami()
    assert "no CA signed that is trusted here" in str(refused.value)
    assert "give the cluster's own (--ca FILE" in str(refused.value)


def test_a_certificate_that_ends_while_it_is_shown_is_shown_on(world: World) -> None:
    """An expired one that takes the place of a good one is not taken up, and a good one that takes
    its place is, at the next connection."""
    folder = world.socket.parent / "tls"
    before = (folder / "node.crt").read_bytes(), (folder / "node.key").read_bytes()
    late, fresh = pair(datetime.now(UTC) - 900 * DAY), pair()
    for made, shown in ((late, before[0]), (fresh, fresh.certificate_pem)):
        (folder / "node.key").write_bytes(made.key_pem)
        (folder / "node.crt").write_bytes(made.certificate_pem)
        for door, port in ports(world).items():
            assert ssl.get_server_certificate((HOST, port), timeout=60).encode() == shown, door
    (folder / "node.key").write_bytes(before[1])
    (folder / "node.crt").write_bytes(before[0])

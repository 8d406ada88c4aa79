"""HTTP's own manners at the REST door, as a table: versions, conditions, repeats, packing, other
origins, wrong types, and callers who take their time."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from services.gateway import patience
from services.state.store import Put
from tests.doors.world import ORIGIN, World, world_in
from tests.gateway.asking import ask


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("manners")) as world:
        vms = [vm_pb2.Vm(name=f"vms/v{n}", spec=vm_pb2.VmSpec(tags=["x"])) for n in range(50)]
        world.store.commit([Put(vm) for vm in vms])
        yield world


def etag(world: World, name: str = "v0") -> str:
    return str(ask(world, "GET", f"/v1/vms/{name}").json["meta"]["etag"])


def test_a_resource_has_a_version(world: World) -> None:
    got = ask(world, "GET", "/v1/vms/v0")
    assert got.headers["etag"] == f'"{etag(world)}"'
    assert got.headers["cache-control"] == "private, no-cache"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "etag" not in ask(world, "GET", "/v1/vms/v0?readMask=name").headers
    listed = ask(world, "GET", "/v1/vms")
    assert "etag" not in listed.headers and listed.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("known", "status"),
    [('"{}"', 304), ('W/"{}"', 304), ('"1000000", "{}"', 304), ("*", 304), ('"1000000"', 200),
     ("{}", 200), ("", 200)],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["GET", "HEAD"])
def test_who_has_it_already_does_not_get_it_again(
    world: World, known: str, status: int, verb: str
) -> None:
    sent = {"if-none-match": known.format(etag(world))}
    got = ask(world, verb, "/v1/vms/v0", headers=sent)
    assert (got.status, got.body == b"") == (status, status == 304 or verb == "HEAD")
    assert got.headers["etag"] == f'"{etag(world)}"'


@pytest.mark.parametrize(
    ("match", "inside", "status", "reason"),
    [
        ('"{}"', "", 200, ""),
        ('W/"{}"', "", 200, ""),
        ('"{}"', "{}", 200, ""),
        ("*", "", 200, ""),
        ('"1000000"', "", 412, "ETAG_MISMATCH"),
        ("", "1000000", 409, "ETAG_MISMATCH"),
        ('"1000000"', "{}", 400, "INVALID_FIELD"),
        ('"{}", "1000000"', "", 400, "INVALID_FIELD"),
        ("{}", "", 400, "INVALID_FIELD"),
    ],
)
def test_a_change_of_what_was_seen(
    world: World, match: str, inside: str, status: int, reason: str
) -> None:
    """A version that is not the current one is 412 when a header asked for it, else 409."""
    now = etag(world, "v1")
    body: dict[str, Any] = {"spec": {"description": "changed"}}
    if inside:
        body["meta"] = {"etag": inside.format(now)}
    headers = {"if-match": match.format(now)} if match else {}
    answer = ask(world, "PATCH", "/v1/vms/v1", body, headers=headers)
    assert answer.status == status
    assert not reason or answer.reason == reason
    assert (etag(world, "v1") != now) is (status == 200), "refused whole"


def test_a_condition_that_cannot_be_kept_is_refused(world: World) -> None:
    body = {"vmId": "new", "vm": {"spec": {}}}
    refused = ask(world, "POST", "/v1/vms", body, headers={"if-match": '"7"'})
    assert (refused.status, refused.reason) == (400, "INVALID_FIELD")
    assert ask(world, "GET", "/v1/vms/new").status == 404


def test_a_call_may_be_repeated(world: World) -> None:
    body = {"vmId": "once", "vm": {"spec": {}}}
    first, again = (
        ask(world, "POST", "/v1/vms", body, headers={"idempotency-key": key})
        for key in ("k-1", '"k-1"')
    )
    assert first.status == again.status == 200
    assert first.json["name"] == again.json["name"], "the same operation"
    other = {"vmId": "twice", "vm": {"spec": {}}}
    reused = ask(world, "POST", "/v1/vms", other, headers={"idempotency-key": "k-1"})
    assert (reused.status, reused.reason) == (400, "REQUEST_ID_REUSED")
    differs = body | {"requestId": "k-2"}
    refused = ask(world, "POST", "/v1/vms", differs, headers={"idempotency-key": "k-1"})
    assert (refused.status, refused.field) == (400, "request_id")


def test_a_request_id_comes_back(world: World) -> None:
    body = {"vmId": "traced", "vm": {"spec": {}}}
    first, again = (
        ask(world, "POST", "/v1/vms", body, headers={"x-request-id": "r-1"}) for _ in range(2)
    )
    assert first.json["name"] == again.json["name"]
    assert first.headers["x-request-id"] == "r-1"
    said = body | {"requestId": "own"}
    refused = ask(world, "POST", "/v1/vms", said, headers={"x-request-id": "r-1"})
    assert refused.reason == "ALREADY_EXISTS", "the request's own word goes before a proxy's"
    assert refused.headers["x-request-id"] == "r-1"


def test_head_is_get_without_a_body(world: World) -> None:
    for target in ("/v1/vms/v0", "/v1/vms", "/v1/cluster", "/v1/vms/nowhere", "/openapi.json", "/"):
        head, get = (ask(world, verb, target) for verb in ("HEAD", "GET"))
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-length"] == str(len(get.body))


def test_metadata_as_grpc_gateway_has_it(world: World) -> None:
    got = ask(world, "GET", "/v1/vms", headers={"Grpc-Metadata-Pvc-Min-Revision": "1"})
    assert got.headers["grpc-metadata-pvc-revision"] == got.headers["pvc-revision"]
    late = ask(world, "GET", "/v1/vms", headers={"Grpc-Metadata-Pvc-Min-Revision": "999999",
                                                 "grpc-timeout": "50m"})  # fmt: skip
    assert (late.status, late.reason) == (504, "DEADLINE")


def test_large_answers_are_packed_for_who_takes_that(world: World) -> None:
    plain = ask(world, "GET", "/v1/vms")
    packed = ask(world, "GET", "/v1/vms", headers={"accept-encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"].startswith("accept-encoding")
    assert packed.headers["vary"] == plain.headers["vary"]
    assert json.loads(gzip.decompress(packed.body)) == plain.json
    assert len(packed.body) * 5 < len(plain.body)
    small = ask(world, "GET", "/v1/whoami", headers={"accept-encoding": "gzip"})
    assert small.headers["content-encoding"] is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200), ("application/json; charset=utf-8", 200), ("", 200),
        ("application/merge-patch+json", 200), ("APPLICATION/JSON", 200),
        ("application/x-www-form-urlencoded", 200), ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415), ("application/xml", 415),
        ("application/octet-stream", 415), ("application/jsonish", 415),
    ],
)  # fmt: skip
def test_the_type_of_a_body(world: World, kind: str, status: int) -> None:
    body = {"vmId": "typed", "vm": {"spec": {}}, "validateOnly": True}
    answer = ask(world, "POST", "/v1/vms", body, headers={"content-type": kind} if kind else {})
    assert answer.status == status
    assert status == 200 or answer.reason == "NOT_SUPPORTED"


def test_a_packed_body_is_refused(world: World) -> None:
    answer = ask(
        world, "POST", "/v1/vms", gzip.compress(b"{}"), headers={"content-encoding": "gzip"}
    )
    assert (answer.status, answer.reason) == (415, "NOT_SUPPORTED")


def test_too_large_is_said_before_it_is_read(world: World) -> None:
    token = f"authorization: Bearer {world.secrets['eve']}\r\n"
    head = f"POST /v1/vms HTTP/1.1\r\nhost: x\r\n{token}content-length: 9999999\r\n\r\n"
    declared = raw(world, head.encode())
    assert declared.startswith(b"HTTP/1.1 413 ") and b"TOO_LARGE" in declared


def test_pages_of_the_allowed_origin_may_call(world: World) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "authorization, if-match",
    }
    may = ask(world, "OPTIONS", "/v1/vms/v0", headers=asked, as_="")
    assert (may.status, may.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "PATCH" in may.headers["access-control-allow-methods"]
    assert "if-match" in may.headers["access-control-allow-headers"]
    got = ask(world, "GET", "/v1/vms/v0", headers={"origin": ORIGIN})
    assert got.headers["access-control-allow-origin"] == ORIGIN
    assert "etag" in got.headers["access-control-expose-headers"]
    refused = ask(world, "GET", "/v1/vms/v0", headers={"origin": ORIGIN}, as_="")
    assert refused.headers["access-control-allow-origin"] == ORIGIN, "so that it can tell why"


def test_pages_of_other_origins_may_not(world: World) -> None:
    evil = {"origin": "https://evil.example.org"}
    asked = evil | {"access-control-request-method": "GET"}
    assert ask(world, "OPTIONS", "/v1/vms", headers=asked, as_="").status == 400
    got = ask(world, "GET", "/v1/vms", headers=evil)
    assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    ("verb", "target", "as_", "status", "code", "header"),
    [
        ("GET", "/v1/vms", "", 401, 16, "www-authenticate"),
        ("POST", "/v1/vms", "ann", 403, 7, ""),
        ("GET", "/v1/vms/nowhere", "eve", 404, 5, ""),
        ("GET", "/v2/vms", "eve", 404, 5, ""),
        ("PUT", "/v1/vms", "eve", 405, 9, "allow"),
        ("POST", "/", "", 405, 9, "allow"),
        ("DELETE", "/openapi.json", "", 405, 9, "allow"),
        ("BREW", "/v1/vms", "eve", 405, 9, "allow"),
        ("HEAD", "/v1/vms:watch", "eve", 405, None, "allow"),
    ],
)
def test_errors_have_a_shape(
    world: World, verb: str, target: str, as_: str, status: int, code: int | None, header: str
) -> None:
    answer = ask(world, verb, target, as_=as_)
    assert answer.status == status
    assert not header or answer.headers[header]
    if code is not None:
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.json) == {"code", "message", "details"} and answer.json["code"] == code
        assert answer.json["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"


def raw(world: World, sent: bytes, silence_s: float = 1.0) -> bytes:
    """What comes back to these bytes, until the connection is closed or silent for so long."""
    with socket.create_connection(("127.0.0.1", world.doors.rest_port), 5) as connection:
        connection.sendall(sent)
        connection.settimeout(silence_s)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 100_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000, 431),
    ],
)
def test_what_is_no_http_is_answered_and_closed(world: World, sent: bytes, status: int) -> None:
    answer = raw(world, sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b"connection: close" in answer.lower()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["details"][0]["reason"] == "INVALID_FIELD"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=60).map(lambda path: b"GET /v1/%b HTTP/1.1\r\nhost: x\r\n\r\n" % path),
    st.binary(max_size=60).map(lambda one: b"GET / HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % one),
))  # fmt: skip
def test_whatever_comes_is_no_failure_of_ours(
    world: World, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    answer = raw(world, sent, silence_s=0.02)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 2")), answer
    assert "Traceback" not in caplog.text


def test_a_slow_head_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.2)
    for sent in (b"", b"GET / HTTP/1.1\r\nhost:"):
        assert raw(world, sent).startswith(b"HTTP/1.1 408 ")
    whole = b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n"
    answers = raw(world, whole + whole[:10])
    assert answers.startswith(b"HTTP/1.1 404 ") and b"HTTP/1.1 408 " in answers, "nor for a second"

"""Limits on callers, each at its bound and one beyond: tries, requests, streams, connections and
sizes; and patience with those who say nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from pvc.core.v1 import options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc_client import Cluster, errors
from services.gateway import doors, limits
from services.gateway.access import Caller
from services.gateway.limits import Bounds, Limits
from services.mesh.errors import PvcError
from tests.doors.world import World, world_in
from tests.gateway.test_access import http

ANN = Caller("token ann", options_pb2.ROLE_VIEWER, "tokens/ann")
BOB = Caller("token bob", options_pb2.ROLE_OPERATOR, "tokens/bob")
WHOAMI = "/pvc.gateway.v1.AccessService/WhoAmI"
MIB = 1 << 20


def refusal_of(call: Any, *arguments: Any) -> PvcError:
    with pytest.raises(PvcError) as refused:
        call(*arguments)
    assert refused.value.reason_name == "RATE_LIMITED"
    return refused.value


def test_requests_are_bounded_for_each_caller() -> None:
    rates = Limits(Bounds(requests_per_s=10))
    for _ in range(20):
        rates.count_request(ANN, 100.0)
    refused = refusal_of(rates.count_request, ANN, 100.0)
    assert refused.message == "token ann asks more than 10 times a second; ask again in 0.1 s"
    assert refused.retry_after_s == pytest.approx(0.1)
    rates.count_request(BOB, 100.0)
    rates.count_request(ANN, 100.11)
    refusal_of(rates.count_request, ANN, 100.11)


def test_none_means_none() -> None:
    rates = Limits(Bounds(requests_per_s=0, streams_per_caller=0))
    with ExitStack() as stack:
        for _ in range(10_000):
            rates.count_request(ANN, 100.0)
            stack.enter_context(rates.stream(ANN))


def test_streams_are_bounded_for_each_caller_and_forgotten() -> None:
    bounded = Limits(Bounds(streams_per_caller=2))
    with bounded.stream(ANN), bounded.stream(BOB):
        with bounded.stream(ANN):
            assert "2 streams open" in refusal_of(bounded.stream(ANN).__enter__).message
        with bounded.stream(ANN):
            pass
    assert not bounded._streams


def test_an_address_that_tries_too_much_lets_in_those_alone_who_were_there_before() -> None:
    bounded = Limits(Bounds(tries_per_s=2))
    bounded.count_entry("ipv4:10.0.0.1:9", ANN, 100.0)
    for _ in range(5):
        bounded.count_try("10.0.0.1:7", 100.0)
    refused = refusal_of(bounded.count_try, "10.0.0.1:8", 100.0)
    assert refused.message == "too many tries from this address; ask again in 0.5 s"
    refusal_of(bounded.count_entry, "10.0.0.1:9", BOB, 100.0)
    bounded.count_entry("10.0.0.1:9", ANN, 100.0)
    bounded.count_entry("10.0.0.2:9", BOB, 100.0)
    bounded.count_entry("10.0.0.1:9", BOB, 100.5)


def test_what_is_remembered_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KNOWN_MAX", 3)
    bounded = Limits(Bounds())
    for number in range(9):
        bounded.count_entry(f"10.0.0.{number}:9", ANN, 100.0)
    assert len(bounded._known) == 3


class Still:
    """A clock that goes on when it is told to: how many requests a second has is not for the
    machine to say."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.now_s = time.monotonic() + 3600
        patch.setattr(world.clock, "monotonic", lambda: self.now_s)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bounds = {"requests_per_s": 2, "tries_per_s": 1, "connections": 8, "streams_per_caller": 3}
    with world_in(tmp_path_factory.mktemp("narrow"), **bounds) as world:
        yield world


def over_grpc(world: World, token: str) -> grpc.RpcError | None:
    with grpc.insecure_channel(world.grpc_address) as channel:
        try:
            metadata = (("authorization", f"Bearer {token}"),)
            channel.unary_unary(WHOAMI)(b"", timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            return error
    return None


def test_who_asks_too_often_is_told_when_to_come_again(
    narrow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Still(narrow, monkeypatch)
    secret = narrow.add_token("often", options_pb2.ROLE_VIEWER)
    answers = [http(narrow, "GET", "/v1/whoami", secret) for _ in range(6)]
    assert [status for status, _, _ in answers[:4]] == [200] * 4
    limited = [(body, headers) for status, body, headers in answers if status == 429]
    body, headers = limited[0]
    told = json.loads(body)
    assert headers["retry-after"] == "1" and "often asks more than 2 times" in told["message"]
    assert any("retryDelay" in detail for detail in told["details"])
    failed: Any = next(filter(None, (over_grpc(narrow, secret) for _ in range(9))))
    trailing = dict(failed.trailing_metadata())
    assert failed.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 500
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    pause = error_details_pb2.RetryInfo()
    assert [one for one in status.details if one.Unpack(pause)]
    assert 0 < pause.retry_delay.ToMilliseconds() <= 500
    clock.now_s += pause.retry_delay.ToMilliseconds() / 1e3 + 0.01
    assert over_grpc(narrow, secret) is None, "then it is let in"
    with Cluster(f"unix:{narrow.socket}") as root:
        assert all(root.whoami() for _ in range(20)), "root is not held up"


def test_guessing_is_slow_at_both_doors_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_in(tmp_path, tries_per_s=1) as world:
        Still(world, monkeypatch)
        codes = [http(world, "GET", "/v1/whoami", f"eve~{n}")[0] for n in range(4)]
        found: list[Any] = [over_grpc(world, f"eve~{n}") for n in range(4)]
        assert codes == [401] * 4
        told = [error.code().name for error in found]
        assert told == ["UNAUTHENTICATED"] + ["RESOURCE_EXHAUSTED"] * 3
        assert http(world, "GET", "/v1/whoami", world.secrets["eve"])[0] == 429, "a right guess"
        world.doors._door._recorder.step()
        with Cluster(f"unix:{world.socket}") as root:
            reasons = [entry.reason for entry in root.audit.list()]
    assert reasons.count("UNAUTHENTICATED") == 5 and reasons.count("RATE_LIMITED") == 4


def test_streams_of_a_caller_at_both_doors_together(
    narrow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Still(narrow, monkeypatch)
    secret = narrow.add_token("streams", options_pb2.ROLE_VIEWER)
    with Cluster(narrow.grpc_address, token=secret) as cluster, ExitStack() as open_ones:
        watches = [cluster.vms.watch() for _ in range(3)]
        for one in watches:
            next(one)
            open_ones.callback(one.close)
        clock.now_s += 1  # for a request more
        status, body, headers = http(narrow, "GET", "/v1/vms:watch", secret)
        assert status == 429 and b"has 3 streams open at this gateway" in body
        assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("size", [4 * MIB, 4 * MIB + 1])
def test_a_request_has_at_most_4_mib(size: int, tmp_path: Path) -> None:
    fits = size == 4 * MIB
    with world_in(tmp_path) as world:
        token = world.secrets["eve"]
        with socket.create_connection(("127.0.0.1", world.doors.rest_port), timeout=60) as raw:
            head = f"POST /v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            raw.sendall(f"{head}content-length: {size}\r\n\r\n".encode())
            if fits:
                raw.sendall(b'"' + b"x" * (size - 2) + b'"')
            status = raw.recv(12)[-3:]
            assert status == (b"400" if fits else b"413"), "what fits is read: it is no object"
        method = "/pvc.gateway.v1.AccessService/CreateToken"
        metadata = (("authorization", f"Bearer {token}"),)
        channel = grpc.insecure_channel(world.grpc_address)
        with channel, pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary(method)(b"\xff" * size, timeout=60, metadata=metadata)
        error: Any = failed.value
        expected = "INVALID_ARGUMENT" if fits else "RESOURCE_EXHAUSTED"
        assert error.code().name == expected, error.details()


def alive(raw: socket.socket) -> bool:
    """Whether a door still has the connection, a moment after it was opened."""
    raw.settimeout(0.5)
    try:
        return raw.recv(4096) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def answers(port: int) -> bool:
    """Whether REST has time for a new connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        raw.sendall(b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\n\r\n")
        return b" 401 " in raw.recv(4096)


def test_connections_are_bounded(narrow: World) -> None:
    most = narrow.settings.bounds.connections
    with ExitStack() as stack:
        host = "127.0.0.1"
        for _ in range(most - 1):
            stack.enter_context(socket.create_connection((host, narrow.doors.rest_port)))
        assert answers(narrow.doors.rest_port), "the last one that fits"
        stack.enter_context(socket.create_connection((host, narrow.doors.rest_port)))
        with socket.create_connection((host, narrow.doors.rest_port), timeout=60) as beyond:
            beyond.sendall(b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 503 " in beyond.recv(4096)
        channels = []
        for _ in range(most + 1):
            own = (("grpc.use_local_subchannel_pool", 1),)
            channels.append(grpc.insecure_channel(narrow.grpc_address, own))
            stack.callback(channels[-1].close)
        codes = []
        for channel in channels:
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(WHOAMI)(b"", timeout=60)
            error: Any = failed.value
            codes.append(error.code().name)
        assert codes.pop() == "UNAVAILABLE", "the one beyond"
        assert set(codes) <= {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
        with Cluster(f"unix:{narrow.socket}") as root:
            assert root.whoami().caller == "local root", "root comes in all the same"


def test_who_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "HANDSHAKE_MS", 300)
    monkeypatch.setattr("services.gateway.patience.HEAD_S", 0.3)
    with world_in(tmp_path) as world:
        for port in (world.doors.grpc_port, world.doors.rest_port):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
                began = time.monotonic()
                while raw.recv(4096):
                    pass
                assert time.monotonic() - began > 0.2


def test_who_opens_a_stream_of_requests_and_says_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.door.FIRST_S", 0.2)
    with world_in(tmp_path) as world, Cluster(f"unix:{world.socket}") as cluster:
        channel = grpc.insecure_channel(f"unix:{world.socket}")
        stop = iter(lambda: time.sleep(5), 0)
        call: Any = channel.stream_stream("/pvc.compute.v1.VmService/AttachConsole")
        with channel, pytest.raises(grpc.RpcError) as failed:
            next(call(stop, timeout=60))
        error: Any = failed.value
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error.details()
        assert "did not come in within 0.2 s" in error.details()
        with pytest.raises(errors.PvcError):
            cluster.audit.get("none")
        world.doors._door._recorder.step()
        (entry,) = list(cluster.audit.list(filter='method = "*/AttachConsole"'))
    assert entry.outcome == AuditEntry.OUTCOME_FAILED and entry.reason == "DEADLINE"

"""Who comes in, at every door and for every method: walked from the descriptors, so that none is
forgotten."""

from __future__ import annotations

import importlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import options_pb2
from pvc.gateway.v1 import access_service_pb2, token_pb2
from services.gateway import access
from services.gateway.methods import METHODS, Method
from services.gateway.rates import REMEMBERED_MAX, Rates, host_of
from services.mesh.errors import PvcError
from tests.doors.world import World, world_in

VIEWER, OPERATOR, ADMIN = (options_pb2.Role.Value(f"ROLE_{r}") for r in ("VIEWER", "OPERATOR", "ADMIN"))  # fmt: skip  # noqa: E501
EVERY = pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.short)
SECRET = access.make_secret("ann", "s" * 32)
NOW = Timestamp(seconds=1000)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("access")) as world:
        yield world


def find(name: str) -> token_pb2.Token | None:
    if name != "tokens/ann":
        return None
    token = token_pb2.Token(name=name, role=VIEWER, secret_hash=access.secret_hash(SECRET))
    token.expire_time.FromSeconds(2000)
    return token


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("", "carries no token"),
        ("Basic abc", "must read 'Bearer"),
        ("Bearer", "must read 'Bearer"),
        ("Bearer ", "not valid"),
        ("Bearer ann", "not valid"),
        ("Bearer ann~", "not valid"),
        ("Bearer ann~wrong", "not valid"),
        ("Bearer bob~" + "s" * 32, "not valid"),
        (f"Bearer {SECRET}x", "not valid"),
        ("Bearer ann~" + "ü" * 32, "not valid"),
        ("Bearer " + "x" * 300, "not valid"),
        ("Bearer ../ann~" + "s" * 32, "not valid"),
    ],
)
def test_wrong_credentials_are_refused(header: str, problem: str) -> None:
    with pytest.raises(PvcError, match=problem) as refused:
        access.authenticate(header, find, NOW)
    assert refused.value.reason_name == "UNAUTHENTICATED"
    assert "s" * 32 not in refused.value.message


def test_a_right_one_comes_in_until_it_expires() -> None:
    header = f"bearer {SECRET}"
    ann = access.Caller("token ann", VIEWER, "tokens/ann", ends=2000.0)
    assert access.authenticate(header, find, NOW) == ann
    with pytest.raises(PvcError, match="has expired"):
        access.authenticate(header, find, Timestamp(seconds=2000))


UNCOUNTED = {
    "VmService/AttachConsole", "StorageService/UploadFile", "StorageService/DeleteFile",
    "NodeService/JoinNode",
}  # fmt: skip
"""They change something, and may be asked again without a request_id."""
LOOKS = {"OperationService/WaitOperation", "NodeService/CheckNodePower"}
"""They change nothing, and are no GET: one waits, one asks a machine's controller."""


def test_no_service_is_forgotten() -> None:
    """Whatever service the contracts have, the gateway knows."""
    folder = Path(str(access_service_pb2.__file__)).parents[2]
    for file in folder.rglob("*_pb2_grpc.py"):
        module = importlib.import_module(
            ".".join(file.relative_to(folder.parent).with_suffix("").parts)
        )
        for name in dir(module):
            assert not name.endswith("Servicer") or any(name[:-8] in path for path in METHODS), name


@EVERY
def test_every_method_says_who_may_call_it(method: Method) -> None:
    assert method.role in (VIEWER, OPERATOR, ADMIN)
    got = method.http is not None and method.http.WhichOneof("pattern") == "get"
    counted = "request_id" in method.request.DESCRIPTOR.fields_by_name
    writes = counted or method.internal or method.short in UNCOUNTED
    assert method.mutates == writes, "mutations carry a request_id; see UNCOUNTED"
    assert not (writes and got)
    assert writes or got or method.short in LOOKS, "GET changes nothing, all others say why not"
    if method.by_secret:
        assert method.mutates and not method.internal
    elif writes:
        assert method.role >= OPERATOR, "a mutation for viewers"
    for role in (options_pb2.ROLE_UNSPECIFIED, VIEWER, OPERATOR, ADMIN):
        caller = access.Caller("x", role)
        if method.internal or role < method.role:
            with pytest.raises(PvcError) as refused:
                access.authorize(caller, method)
            assert refused.value.reason_name == "PERMISSION_DENIED"
        else:
            access.authorize(caller, method)


def call(address: str, method: Method, token: str) -> tuple[grpc.StatusCode, str]:
    """The status that an empty call gets through gRPC."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"  # noqa: E501
        stub = getattr(channel, kind)(method.path)
        request: Any = iter([b""]) if method.client_streaming else b""
        try:
            answer = stub(request, metadata=metadata, timeout=60)
            if method.server_streaming:
                next(answer, None)
                answer.cancel()
        except grpc.RpcError as error:
            return error.code(), error.details() or ""  # type: ignore[attr-defined]
    return grpc.StatusCode.OK, ""


WITH_CREDENTIALS = [method for method in METHODS.values() if not method.by_secret]
"""All but those whose request carries a secret."""


@pytest.mark.parametrize("method", WITH_CREDENTIALS, ids=lambda m: m.short)
def test_grpc_refuses_strangers(method: Method, world: World) -> None:
    asked = len(world.peers.asked)
    for token in ("", "nobody~x", world.secrets["ann"] + "x"):
        code, words = call(world.grpc_address, method, token)
        assert code == grpc.StatusCode.UNAUTHENTICATED, words
    assert len(world.peers.asked) == asked, "a refused call reached a service"


@EVERY
def test_grpc_lets_roles_do_what_they_may(method: Method, world: World) -> None:
    for name, role in (("ann", VIEWER), ("bob", OPERATOR), ("eve", ADMIN)):
        if not method.internal and role >= method.role:
            continue
        code, words = call(world.grpc_address, method, world.secrets[name])
        assert code == grpc.StatusCode.PERMISSION_DENIED, words


@pytest.mark.parametrize(
    "method", [m for m in METHODS.values() if m.internal], ids=lambda m: m.short
)
def test_not_even_root_calls_what_is_internal(method: Method, world: World) -> None:
    assert call(f"unix:{world.socket}", method, "")[0] == grpc.StatusCode.PERMISSION_DENIED


def http(world: World, verb: str, path: str, token: str = "", body: bytes = b"") -> Any:
    request = urllib.request.Request(world.rest_url + path, body or None, method=verb)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(100_000), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.mark.parametrize(
    "method", [m for m in WITH_CREDENTIALS if m.http is not None], ids=lambda m: m.short
)
def test_rest_refuses_strangers_and_the_wrong_role(method: Method, world: World) -> None:
    rule = method.http
    assert rule is not None
    kind = rule.WhichOneof("pattern")
    assert kind is not None
    path = getattr(rule, kind)
    for field in (
        "name",
        "parent",
        "vm.name",
        "pool.name",
        "network.name",
        "node.name",
        "token.name",
    ):
        path = path.replace("{" + field + "=", "").replace("}", "")
    path = path.replace("*", "x")
    status, body, headers = http(world, kind.upper(), path)
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert json.loads(body)["details"][0]["reason"] == "UNAUTHENTICATED"
    for name, role in (("ann", VIEWER), ("bob", OPERATOR)):
        if role < method.role:
            status, body, _ = http(world, kind.upper(), path, world.secrets[name])
            assert (status, json.loads(body)["details"][0]["reason"]) == (403, "PERMISSION_DENIED")


JOIN = METHODS["/pvc.coordinator.v1.NodeService/JoinNode"]


def test_whoever_has_a_secret_needs_no_token_and_cannot_guess_it(tmp_path: Path) -> None:
    with world_in(tmp_path, tries_per_s=2.0) as world:
        token = world.secrets["ann"]
        assert http(world, "GET", "/v1/whoami", token)[0] == 200
        asked = len(world.peers.asked)
        code, words = call(world.grpc_address, JOIN, "")
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "name" in words, "the service answers"
        assert len(world.peers.asked) == asked + 1
        tries = [call(world.grpc_address, JOIN, "")[0] for _ in range(20)]
        assert tries.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 10
        status, body, headers = http(world, "POST", "/v1/nodes/n9:join", body=b"{}")
        assert status == 429 and b"ask again in" in body and headers["retry-after"] == "1"
        assert http(world, "GET", "/v1/whoami", token)[0] == 200, "who was known before may go on"
        assert http(world, "GET", "/v1/whoami", world.secrets["bob"])[0] == 429, "a right guess?"


def test_an_address_is_the_same_at_all_doors() -> None:
    assert host_of("ipv6:%5B::1%5D:9") == host_of("::1:80") == "::1"
    assert host_of("ipv4:10.0.0.1:9") == host_of("10.0.0.1:80") == "10.0.0.1"


def test_tries_come_back_with_time_and_addresses_are_forgotten() -> None:
    rates = Rates(2.0)
    assert not any(rates.taken("10.0.0.1", 100.0) for _ in range(5))
    assert rates.taken("10.0.0.1", 100.0) == rates.wait_s("10.0.0.1", 100.0) == 0.5
    assert not rates.taken("10.0.0.2", 100.0) and not rates.wait_s("10.0.0.3", 100.0)
    assert not rates.taken("10.0.0.1", 100.5), "half a second later there is one"
    assert rates.taken("10.0.0.1", 100.5)
    for number in range(REMEMBERED_MAX + 5):
        rates.taken(str(number), 101.0)
    assert len(rates._buckets) == REMEMBERED_MAX


def test_a_stranger_learns_nothing_from_a_bad_body(world: World) -> None:
    assert http(world, "POST", "/v1/vms", body=b"{")[0] == 401


def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    secret = world.add_token("gone", VIEWER)
    assert http(world, "GET", "/v1/whoami", secret)[0] == 200
    assert http(world, "DELETE", "/v1/tokens/gone", world.secrets["eve"])[0] == 200
    assert http(world, "GET", "/v1/whoami", secret)[0] == 401


def test_an_expired_token_is_refused(world: World) -> None:
    secret = world.add_token("late", VIEWER, expire_time=Timestamp(seconds=1))
    status, body, _ = http(world, "GET", "/v1/whoami", secret)
    assert status == 401
    assert "has expired" in json.loads(body)["message"]


def test_a_caller_cannot_say_who_it_is(world: World) -> None:
    method = METHODS["/pvc.gateway.v1.AccessService/WhoAmI"]
    with grpc.insecure_channel(world.grpc_address) as channel:
        stub = channel.unary_unary(method.path, response_deserializer=method.response.FromString)
        metadata = [
            ("authorization", f"Bearer {world.secrets['ann']}"),
            ("pvc-caller", "local root"),
            ("pvc-role", "3"),
        ]
        answer: Any = stub(b"", metadata=metadata, timeout=60)
    assert (answer.caller, answer.role) == ("token ann", VIEWER)

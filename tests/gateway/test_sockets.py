"""WebSockets on the paths of streams: who may open them, what goes through, how they end."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pvc.compute.v1 import vm_pb2
from services.state.store import Put
from tests.doors.world import ORIGIN, World, world_in

CONSOLE = "/v1/vms/web:console"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sockets")
    with world_in(folder) as world:
        world.store.commit([Put(vm_pb2.Vm(name="vms/web"))])
        yield world


def opened(
    world: World, target: str, protocols: Sequence[str] = (), as_: str = "eve", **how: Any
) -> ClientConnection:
    url = f"ws://127.0.0.1:{world.doors.rest_port}{target}"
    headers = {"authorization": f"Bearer {world.secrets[as_]}"} if as_ else {}
    return connect(url, additional_headers=headers, subprotocols=list(protocols) or None, **how)


def told(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(5))


def typed(text: bytes) -> str:
    return json.dumps({"data": base64.b64encode(text).decode()})


def test_a_console_in_json(world: World) -> None:
    with opened(world, CONSOLE, ["pvc.json"]) as socket:
        assert socket.subprotocol == "pvc.json"
        assert b"login:" in base64.b64decode(told(socket)["result"]["data"])
        socket.send(typed(b"root\r"))
        assert base64.b64decode(told(socket)["result"]["data"]) == b"ROOT\r"
        socket.send(typed(b"\x04"))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(5)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000


def test_a_console_in_bytes(world: World) -> None:
    """What a terminal in a browser speaks."""
    with opened(world, CONSOLE, ["pvc.bytes"]) as socket:
        assert b"login:" in socket.recv(5)  # type: ignore[operator]
        socket.send(b"ls\r")
        assert socket.recv(5) == b"LS\r"


def test_a_token_comes_as_a_subprotocol_and_is_not_told(world: World) -> None:
    """Browsers can send no other header."""
    protocols = ["pvc.json", f"pvc.bearer.{world.secrets['eve']}"]
    with opened(world, CONSOLE, protocols, as_="") as socket:
        assert socket.subprotocol == "pvc.json"
        assert "result" in told(socket)


@pytest.mark.parametrize(
    ("target", "as_", "protocols", "status", "reason"),
    [
        (CONSOLE, "", (), 401, "UNAUTHENTICATED"),
        (CONSOLE, "", ("pvc.bearer.eve~forged",), 401, "UNAUTHENTICATED"),
        (CONSOLE, "ann", (), 403, "PERMISSION_DENIED"),
        ("/v1/vms/web", "eve", (), 400, "NOT_SUPPORTED"),
        ("/v1/nothing", "eve", (), 404, "NOT_FOUND"),
        ("/v1/vms/%FF:console", "eve", (), 400, "INVALID_FIELD"),
    ],
)
def test_who_is_not_let_in_hears_it_before_it_opens(
    world: World, target: str, as_: str, protocols: Sequence[str], status: int, reason: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        opened(world, target, protocols, as_)
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body or b"")["details"][0]["reason"] == reason


def test_pages_of_other_origins_may_not(world: World) -> None:
    own = f"http://127.0.0.1:{world.doors.rest_port}"
    for origin in (own, ORIGIN):
        with opened(world, CONSOLE, origin=origin) as socket:
            assert "result" in told(socket)
    for origin in ("https://evil.example.org", "null", "http://127.0.0.1:1"):
        with pytest.raises(InvalidStatus) as refused:
            opened(world, CONSOLE, origin=origin)
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("target", "frame", "code", "reason"),
    [
        ("/v1/vms/nowhere:console", None, 4404, "NOT_FOUND"),
        (CONSOLE, '{"dat":""}', 4400, "INVALID_FIELD"),
        (CONSOLE, "{", 4400, "INVALID_FIELD"),
        (CONSOLE, b"bytes", 4400, "INVALID_FIELD"),
        ("/v1/vms:watch?filter=(", None, 4400, "INVALID_QUERY"),
        ("/v1/vms:watch?nothing=1", None, 4400, "INVALID_FIELD"),
    ],
)
def test_what_goes_wrong_is_told_in_a_frame_and_in_the_code(
    world: World, target: str, frame: Any, code: int, reason: str
) -> None:
    with opened(world, target) as socket:
        if frame is not None:
            told(socket)
            socket.send(frame)
        assert told(socket)["error"]["details"][0]["reason"] == reason
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(5)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == code


def test_a_watch(world: World) -> None:
    with opened(world, "/v1/vms:watch?filter=name%3Dvms/web") as socket:
        kinds = [told(socket)["result"]["kind"] for _ in range(2)]
        assert kinds == ["CHANGE_KIND_PRESENT", "CHANGE_KIND_BOOKMARK"]


def test_a_file_ends_with_an_empty_frame(world: World) -> None:
    with opened(world, "/v1/files:upload?sizeBytes=10") as socket:
        for frame in (typed(b"hello"), typed(b"world"), ""):
            socket.send(frame)
        assert told(socket)["result"]["sizeBytes"] == "10"


def test_a_caller_who_leaves_ends_the_call(world: World) -> None:
    from tests.gateway.test_rest_streams import soon

    door = world.doors._door
    with opened(world, CONSOLE) as console, opened(world, "/v1/vms:watch") as watch:
        told(console), told(watch)
        assert len(door._streams._open) >= 2
    assert soon(lambda: not door._streams._open)


def test_a_door_that_closes_says_so(world: World) -> None:
    with opened(world, "/v1/vms:watch?filter=name%3Dvms/none") as socket:
        told(socket)
        world.run(_drained(world))
        assert told(socket)["error"]["details"][0]["reason"] == "UNREACHABLE"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(5)
        world.doors._door._closing = False
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4503


async def _drained(world: World) -> None:
    world.doors._door.drain()


def test_a_frame_without_end_is_refused(world: World) -> None:
    with opened(world, CONSOLE) as socket, pytest.raises(ConnectionClosed) as closed:
        told(socket)
        socket.send("x" * 5_000_000)
        socket.recv(5)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009

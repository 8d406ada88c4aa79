"""Streams over HTTP: files as they are and in lines, a console both ways, events that resume,
streams that break off."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import queue
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1.operation_pb2 import Operation
from services.gateway import incoming, streams
from services.gateway.packing import takes_gzip
from services.state.store import Put
from tests.doors.world import World, world_in
from tests.gateway.asking import ask, asked

CONTENT = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("streams")) as world:
        world.store.commit([Put(vm_pb2.Vm(name="vms/web")), Put(vm_pb2.Vm(name="vms/silent"))])
        yield world


def in_lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in messages)


def test_a_file_goes_up_and_comes_down_as_it_is(world: World) -> None:
    """What curl -T and curl -o do."""
    sent = ask(world, "PUT", "/v1/files/disk.img", CONTENT, headers={"content-type": "image/raw"})
    assert (sent.status, sent.json["sizeBytes"]) == (200, str(len(CONTENT)))
    assert sent.json["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    got = ask(world, "GET", "/v1/files/f1")
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.body == CONTENT
    assert ask(world, "GET", "/v1/files/f1?offset=255999").body == CONTENT[-1:]
    assert ask(world, "GET", "/v1/files/nowhere").status == 404


def test_a_file_is_checked_against_the_digest_in_its_headers(world: World) -> None:
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    good = {"content-digest": f"sha-256=:{digest}:"}
    assert ask(world, "PUT", "/v1/files/a", CONTENT, headers=good).status == 200
    damaged = ask(world, "PUT", "/v1/files/a", CONTENT[:-1] + b"x", headers=good)
    assert (damaged.status, damaged.reason) == (400, "INVALID_CONTENT")
    broken = ask(world, "PUT", "/v1/files/a", b"x", headers={"content-digest": "sha-256=:AAA:"})
    assert (broken.status, broken.field) == (400, "sha256")


def test_a_file_without_a_length_says_it_in_the_query(world: World) -> None:
    pieces = [CONTENT[:1000], CONTENT[1000:]]
    target = f"/v1/files/a?sizeBytes={len(CONTENT)}"
    assert ask(world, "PUT", target, iter(pieces)).status == 200
    assert ask(world, "PUT", "/v1/files/a", iter(pieces)).status == 400


def test_a_file_in_lines(world: World) -> None:
    data = base64.b64encode(b"hello").decode()
    sent = ask(
        world, "POST", "/v1/files:upload", in_lines({"sizeBytes": "10"}, *[{"data": data}] * 2)
    )
    assert sent.json["sizeBytes"] == "10"
    body = in_lines({"data": data}).rstrip()  # the last line need not end
    assert ask(world, "POST", "/v1/files:upload?sizeBytes=5", body).status == 200


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (in_lines({"sizeBytes": 1}) + b"{\n", "", "not JSON"),
        (in_lines({"sizeBytes": 1}, {"dat": ""}), "dat", "did you mean data"),
        (in_lines({"sizeBytes": 1}, {"data": "?"}), "data", "base64"),
    ],
)
def test_a_broken_line_names_the_field(world: World, body: bytes, field: str, words: str) -> None:
    refused = ask(world, "POST", "/v1/files:upload", body)
    assert (refused.status, refused.reason) == (400, "INVALID_FIELD")
    assert words in refused.json["message"]
    assert not field or refused.field == field


def test_a_line_without_end_is_refused(world: World) -> None:
    refused = ask(world, "POST", "/v1/files:upload", b'{"data":"' + b"A" * 5_000_000)
    assert (refused.status, refused.reason) == (413, "TOO_LARGE")


def test_nobody_sends_without_a_token(world: World) -> None:
    """The door is asked before the body: it is not even read."""
    assert ask(world, "PUT", "/v1/files/a", CONTENT, as_="").status == 401
    assert ask(world, "PUT", "/v1/files/a", CONTENT, as_="ann").status == 403
    assert ask(world, "POST", "/v1/vms/web:console", b"", as_="ann").status == 403


class Duplex:
    """A POST whose body is still being written while its answer is read."""

    def __init__(self, world: World, target: str) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self.connection = socket.create_connection(("127.0.0.1", world.doors.rest_port), 10)
        token = world.secrets["eve"]
        self.connection.sendall(
            f"POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        self.response: http.client.HTTPResponse | None = None

    def send(self, content: bytes) -> None:
        self.connection.sendall(b"%x\r\n%b\r\n" % (len(content), content))

    def line(self) -> Any:
        if self.response is None:
            self.response = http.client.HTTPResponse(self.connection)
            self.response.begin()
        return json.loads(self.response.readline())


def typed(text: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(text).decode()}


def test_a_console_both_ways(world: World) -> None:
    console = Duplex(world, "/v1/vms/web:console")
    assert b"login:" in base64.b64decode(console.line()["result"]["data"]), "before a key is hit"
    for text in (b"root\r", b"ls\r"):
        console.send(in_lines(typed(text)))
        assert base64.b64decode(console.line()["result"]["data"]) == text.upper()
    console.send(in_lines(typed(b"x"))[:5])
    console.send(in_lines(typed(b"x"))[5:])
    assert console.line()["result"] == typed(b"X")
    console.send(in_lines(typed(b"\x04")))
    assert console.response is not None and console.response.read() == b"", "it has ended"
    console.connection.close()


def test_a_mistake_in_the_middle_of_a_console_is_told_in_it(world: World) -> None:
    console = Duplex(world, "/v1/vms/web:console")
    assert "result" in console.line()
    console.send(in_lines({"dta": "x"}))
    error = console.line()["error"]
    assert (error["code"], error["message"]) == (
        3, "dta: AttachConsoleRequest has no such field; did you mean data?",
    )  # fmt: skip
    console.connection.close()


def test_a_console_of_nothing_is_a_status(world: World) -> None:
    refused = ask(world, "POST", "/v1/vms/nowhere:console", b"")
    assert (refused.status, refused.reason) == (404, "NOT_FOUND")


def test_a_caller_who_leaves_ends_the_call(world: World) -> None:
    door = world.doors._door
    before = len(door._streams._open)
    console = Duplex(world, "/v1/vms/web:console")
    console.line()
    with asked(world, "GET", "/v1/vms:watch", headers={"accept": "text/event-stream"}) as watch:
        watch.readline()
        assert len(door._streams._open) == before + 2
    console.connection.shutdown(socket.SHUT_RDWR)
    assert soon(lambda: len(door._streams._open) <= before), "nobody listens: nothing goes on"


def test_a_caller_who_leaves_ends_a_long_wait(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.commit([Put(Operation(name="operations/long", state=Operation.STATE_RUNNING))])
    port, before = world.doors.rest_port, len(world.peers.asked)
    with caplog.at_level(logging.DEBUG, "pvc.calls"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"authorization": f"Bearer {world.secrets['eve']}"}
        connection.request("POST", "/v1/operations/long:wait", '{"timeout":"60s"}', headers)
        assert soon(lambda: len(world.peers.asked) > before), "it is on its way"
        connection.close()
        assert soon(lambda: "WaitOperation by token eve: ended by the caller" in caplog.text)


def soon(is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[int, Any]]:
    """Id and object of each event."""
    seen = 0
    while line := response.readline():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "id":
            seen = int(value)
        elif name == "data":
            yield seen, json.loads(value)


def test_a_browser_resumes_its_events(world: World) -> None:
    target = "/v1/vms:watch?filter=name%3D%22vms/sse%22"
    accept = {"accept": "text/event-stream"}
    with asked(world, "GET", target, headers=accept) as watch:
        id_, first = next(events(watch))
        assert first["result"]["kind"] == "CHANGE_KIND_BOOKMARK" and id_
    world.store.commit([Put(vm_pb2.Vm(name="vms/sse"))])
    for where, extra in ((target, id_), (f"{target}&fromRevision=1", id_)):
        with asked(world, "GET", where, headers=accept | {"last-event-id": str(extra)}) as watch:
            seen, change = next(events(watch))
            assert change["result"]["kind"] == "CHANGE_KIND_ADDED" and seen > id_
    refused = ask(world, "GET", target, headers=accept | {"last-event-id": "x"})
    assert (refused.status, refused.field) == (400, "from_revision")


def test_silence_is_told_from_death(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.Events, "quiet_s", 0.05)
    monkeypatch.setattr(streams, "START_S", 0.05)
    accept = {"accept": "text/event-stream"}
    with asked(world, "GET", "/v1/vms/silent:consoleLog", headers=accept) as log:
        assert [log.readline() for _ in range(4)] == [b"retry: 1000\n", b"\n", b": quiet\n", b"\n"]


def test_a_console_log_as_text(world: World) -> None:
    log = ask(world, "GET", "/v1/vms/web:consoleLog?lines=2", headers={"accept": "text/plain"})
    assert log.headers["content-type"].startswith("text/plain")
    assert log.body == b"[    4.0] line 4\r\n[    5.0] line 5\r\n"
    lines = ask(world, "GET", "/v1/vms/web:consoleLog", headers={"accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"


def test_a_packed_watch_comes_message_by_message(world: World) -> None:
    headers = {"accept-encoding": "gzip"}
    with asked(world, "GET", "/v1/vms:watch?filter=name%3Dvms/web", headers=headers) as watch:
        assert watch.headers["content-encoding"] == "gzip"
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        text = b""
        while text.count(b"\n") < 2:
            text += unpack.decompress(watch.read1(65536))
    assert [json.loads(line)["result"]["kind"] for line in text.splitlines()] == [
        "CHANGE_KIND_PRESENT", "CHANGE_KIND_BOOKMARK",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "takes"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("*", True), ("", False), ("br", False),
     ("gzip;q=0", False), ("*, gzip;q=0", False), ("gzip;q=x.", False), (";;", False)],
)  # fmt: skip
def test_who_takes_gzip(header: str, takes: bool) -> None:
    assert takes_gzip(header) is takes


def test_streams_that_break_off_say_why(world: World) -> None:
    """In lines and in events by an object; a file is cut, so that it is not taken for whole."""
    for accept, begin in (("*/*", ""), ("text/event-stream", "data: ")):
        with asked(world, "GET", "/v1/vms:watch", headers={"accept": accept}) as watch:
            watch.readline()
            world.run(_drain(world))
            *_, last = [line for line in watch.read().decode().splitlines() if line]
            world.doors._door._closing = False
            error = json.loads(last.removeprefix(begin))["error"]
            assert error["code"] == 14 and error["details"][0]["reason"] == "UNREACHABLE"


async def _drain(world: World) -> None:
    world.doors._door.drain()


def test_a_file_that_breaks_off_is_cut(world: World) -> None:
    ask(world, "PUT", "/v1/files/big", bytes(50_000_000))
    with asked(world, "GET", "/v1/files/f1") as file:
        file.read(10)
        world.run(_drain(world))
        with pytest.raises(http.client.IncompleteRead):
            file.read()
        world.doors._door._closing = False


def test_whoever_is_slow_with_a_body_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "BODY_S", 0.1)
    monkeypatch.setattr(incoming, "SILENCE_S", 0.1)
    for target in ("/v1/vms", "/v1/files:upload"):
        slow = Duplex(world, target)
        slow.send(b'{"sizeBytes":')
        answer = slow.line()
        assert slow.response is not None
        assert (slow.response.status, answer["details"][0]["reason"]) == (408, "DEADLINE")
        slow.connection.close()

"""Logs: one line for each record, whatever is in it, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pvc.compute.v1 import vm_service_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2
from pvc.gateway.v1 import access_service_pb2, token_pb2
from services.mesh.log import bound, configure, safe
from services.mesh.loop import Loop
from services.state.memory import MemoryStore
from tests.mesh.contracts import hostile, requests
from tests.mesh.serving import on_socket, served
from tests.mesh.vms import vm


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_logfmt(stream: io.StringIO) -> None:
    configure("info", "logfmt", service="coordinator", node="n1", stream=stream)
    log = logging.getLogger("pvc.x")
    with bound(operation="operations/a"):
        log.info("vm web n3 → n2 (n3 is fenced)")
    log.debug("not this")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("time=2") and "Z level=info service=coordinator node=n1 " in line
    assert line.endswith('operation=operations/a message="vm web n3 → n2 (n3 is fenced)"')


def test_records_of_a_call_and_of_a_loop_name_their_service(
    stream: io.StringIO, tmp_path: Path
) -> None:
    configure("debug", "logfmt", service="pvcd", node="n1", stream=stream)
    log, done = logging.getLogger("pvc.x"), threading.Event()

    def step() -> None:
        log.info("round")
        done.set()

    loop = Loop("network-agent", step, 60)
    loop.start()
    assert done.wait(60) and loop.stop(60)
    with (
        served(MemoryStore(), on_socket(tmp_path)) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        api_grpc.NodeServiceStub(channel).ListNodes(api.ListNodesRequest())
    lines = stream.getvalue().splitlines()
    assert any("service=network-agent" in line and "message=round" in line for line in lines)
    assert any("service=coordinator" in line and "NodeService/ListNodes" in line for line in lines)


def test_json_and_exceptions_stay_on_one_line(stream: io.StringIO) -> None:
    configure("debug", "json", service="pvcd", node="n1", stream=stream)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logging.getLogger("pvc.x").exception("it %s", "failed\nbadly")
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields["message"] == "it failed\nbadly" and fields["level"] == "error"
    assert fields["service"] == "pvcd" and "ValueError: bad\nthing" in fields["trace"]


def test_nobody_can_forge_a_line_or_upset_a_terminal(stream: io.StringIO) -> None:
    configure("info", "logfmt", service="x", node="n1", stream=stream)
    logging.getLogger().info("a\nlevel=error message=forged\x1b[2J\u202e")
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable() and 'message="a\\nlevel' in line


def test_safe_shows_a_request_on_one_line() -> None:
    request = vm_service_pb2.CreateVmRequest(vm_id="web", vm=vm("x", 512, ("a", "b"), owner="ann"))
    request.start = True
    text = safe(request)
    assert text.startswith('vm_id="web" vm{name="vms/x" meta{')
    assert 'labels{"owner":"ann"}' in text and "state=RUNNING" in text and "start=true" in text
    assert 'tags["a" "b"]' in text and "create_time=2026-03-01T12:00:00Z" in text


def test_safe_never_shows_secrets_or_bytes() -> None:
    answer = access_service_pb2.CreateTokenResponse(secret="hunter2")
    answer.token.CopyFrom(token_pb2.Token(name="tokens/a", secret_hash=b"hunter3"))
    operation = operation_pb2.Operation(name="operations/a")
    operation.request.Pack(answer)
    typed = vm_service_pb2.AttachConsoleRequest(data=b"hunter4")
    text = " ".join(map(safe, (answer, operation, typed)))
    assert "hunter" not in text
    assert "secret=(secret)" in text and "data(7 bytes)" in text.replace("=", "")
    assert "request(pvc.gateway.v1.CreateTokenResponse)" in text.replace("{", "").replace("}", "")


def test_safe_takes_anything() -> None:
    for kind in requests():
        for seed in range(5):
            text = safe(hostile(kind, random.Random(seed)))
            assert text.isprintable() and len(text) <= 600

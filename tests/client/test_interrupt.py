"""Ctrl-C in a program that waits: the call ends on the wire, and what goes on is said."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.core.v1.operation_pb2 import Operation
from tests.client.servers import Scripted

ROOT = Path(__file__).parent.parent.parent
BLOCKING = """
import sys
from pvc_client import Cluster
Cluster(sys.argv[1]).vms.start("web", request_id="r1").result()
"""
ASYNCIO = """
import asyncio, sys
from pvc_client import AsyncCluster
async def main():
    async with AsyncCluster(sys.argv[1]) as cluster:
        await (await cluster.vms.start("web", request_id="r1")).result()
asyncio.run(main())
"""
STARTED = Operation(
    name="operations/1", method="pvc.compute.v1.VmService/StartVm", target="vms/web",
    state=Operation.STATE_RUNNING,
)  # fmt: skip


@pytest.mark.parametrize("program", [BLOCKING, ASYNCIO], ids=["blocking", "asyncio"])
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("WaitOperation", "operations/1 goes on: pvc.compute.v1.VmService/StartVm of vms/web"),
        ("StartVm", "VmService/StartVm was on its way and may be done; the same with"),
    ],
)
def test_ctrl_c_in_the_middle(program: str, where: str, words: str) -> None:
    reached, ended = threading.Event(), threading.Event()

    def stays(request: Any, context: grpc.ServicerContext) -> Operation:
        context.add_callback(ended.set)
        reached.set()
        ended.wait(20)
        return STARTED

    script = {"StartVm": lambda request, context: STARTED, where: stays}
    with Scripted(script) as server:
        running = subprocess.Popen(
            [sys.executable, "-c", program, server.address], stderr=subprocess.PIPE, text=True,
            env={"PYTHONPATH": f"{ROOT}/clients/python/src:{ROOT}/clients/python/gen"},
        )  # fmt: skip
        assert reached.wait(20)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert ended.wait(60), "the call went on"
    assert "KeyboardInterrupt" in said and words in said

"""Connections on which nothing is said for long, and connections whose other end is silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1.vm_pb2 import VmSpec
from pvc_client import Cluster, errors
from tests.client.blocking import blocking
from tests.doors.servicers import BANNER
from tests.doors.world import world_in

HALVES = pytest.mark.parametrize("connect", [Cluster, blocking], ids=["blocking", "asyncio"])


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class Cable:
    """A port that leads to another one, until it is cut: then nothing comes through any more, and
    nobody is told."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while received := source.recv(65536):
                if not self.cut.is_set():
                    target.sendall(received)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other direction has ended

    def close(self) -> None:
        self._listener.close()


def test_a_console_may_be_quiet_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvc_client.addresses.KEEPALIVE_MS", 100)
    monkeypatch.setattr("services.gateway.doors.PINGED_MS", 50)
    with world_in(tmp_path) as world, ExitStack() as stack:
        consoles = []
        for vm, connect in (("quiet", Cluster), ("silent", blocking)):
            cluster: Any = connect(world.grpc_address, token=world.secrets["eve"])
            cluster = stack.enter_context(cluster)
            cluster.vms.create(vm, VmSpec()).result(60)
            consoles.append(stack.enter_context(cluster.vms.console(vm)))
            assert consoles[-1].read() == BANNER
        time.sleep(4.0)  # grpc asks once a second at most, and gave up after the third time
        for console in consoles:
            console.write(b"x")
            assert console.read() == b"X"


@HALVES
def test_an_address_that_never_answers_is_passed_over(
    connect: Any, silent: str, tmp_path: Path
) -> None:
    with world_in(tmp_path) as world:
        addresses = f"{silent},{world.grpc_address}"
        with connect(addresses, token=world.secrets["eve"]) as cluster:
            assert cluster.whoami().caller == "token eve"
            assert cluster.transport.address == world.grpc_address
            assert cluster.whoami().caller == "token eve"
            assert cluster.transport.address == world.grpc_address, "it stays where it is answered"


@HALVES
def test_alone_it_says_that_it_does_not_answer(connect: Any, silent: str) -> None:
    with connect(silent, timeout_s=0.3) as cluster, pytest.raises(errors.Deadline) as late:
        cluster.whoami()
    assert silent in late.value.message


@HALVES
def test_a_connection_that_is_cut_without_a_word_is_noticed(
    connect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc_client.addresses.KEEPALIVE_MS", 200)
    monkeypatch.setattr("pvc_client.addresses.PING_TIMEOUT_MS", 200)
    monkeypatch.setattr("services.gateway.doors.PINGED_MS", 100)
    with world_in(tmp_path) as world:
        cable = Cable(world.grpc_address)
        addresses = [cable.address, world.grpc_address]
        with connect(addresses, token=world.secrets["eve"]) as cluster:
            changes = cluster.vms.watch()
            assert next(changes).resource is None, "there is nothing but the bookmark"
            cable.cut.set()
            with connect(world.grpc_address, token=world.secrets["eve"]) as other:
                other.vms.create("meanwhile", VmSpec())
            assert next(changes).resource.name == "vms/meanwhile"
            assert cluster.transport.address == world.grpc_address
        cable.close()


@HALVES
def test_an_address_that_took_too_long_is_left(connect: Any, silent: str, tmp_path: Path) -> None:
    with (
        world_in(tmp_path) as world,
        connect([silent, world.grpc_address], token=world.secrets["eve"], timeout_s=1) as cluster,
    ):
        with pytest.raises(errors.Deadline):
            cluster.whoami()
        assert cluster.transport.address == world.grpc_address

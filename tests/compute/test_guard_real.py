"""A guarded node as a process of its own, a real ZooKeeper, and a watchdog outside: whatever is
done to the node, it is gone when the cluster may take it for gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.chassis.watchdog import WatchdogServer, WatchdogTimer
from pvc.coordinator.v1 import cluster_pb2
from services.state.store import Put
from tests.compute.scripts import guarded_node
from tests.compute.scripts.guarded_node import NODE, SESSION_S
from tests.state.places import ZookeeperPlace, eventually
from tests.state.wire import Wire
from tests.state.zookeeper_server import ZookeeperServer, missing

pytestmark = pytest.mark.real

WATCHDOG_S = SESSION_S / 2
SLACK_S = 1.0
"""What a busy machine may be late with."""


class Machine:
    """The node's machine, its watchdog, and the cluster that looks on."""

    def __init__(self, folder: Path, server: ZookeeperServer) -> None:
        self.wire = Wire(server.address)
        self.place = ZookeeperPlace(server)
        self.cluster = self.place.open()
        self.cluster.commit([Put(cluster_pb2.Node(name=NODE))])
        self.socket, self.output = folder / "watchdog", folder / "output"
        self.process: subprocess.Popen[bytes] | None = None
        self.all: list[subprocess.Popen[bytes]] = []
        self.reset_at = 0.0
        self.watchdog = WatchdogServer(self.socket, WatchdogTimer(self.reset))
        self.watchdog.start()

    def start(self) -> None:
        self.process = self.prepared()
        self.begin()

    def begin(self) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def prepared(self) -> subprocess.Popen[bytes]:
        """A process of the node's that has yet to begin."""
        command = [sys.executable, guarded_node.__file__, self.wire.address, self.place.root]
        paths = os.pathsep.join([".", "clients/python/src", "clients/python/gen"])
        with self.output.open("ab") as output:
            made = subprocess.Popen(
                [*command, str(self.socket)],
                stdin=subprocess.PIPE, stdout=output, stderr=output,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        self.all.append(made)
        return made

    def reset(self) -> None:
        assert self.process is not None
        self.reset_at = time.monotonic()
        self.process.kill()

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def wait(self) -> None:
        assert self.process is not None
        self.process.wait(60)

    @property
    def row(self) -> cluster_pb2.Node:
        row = self.cluster.snapshot().find(cluster_pb2.Node, NODE)
        assert row is not None
        return row

    def promised(self) -> bool:
        """It promised for the session that it holds."""
        told = self.row.status.watchdog
        there = NODE in self.cluster.snapshot().leases
        return there and told.armed and told.session == self.row.status.session

    def session_ended(self) -> float:
        """Waits until the cluster sees that; when it did."""
        eventually(lambda: NODE not in self.cluster.snapshot().leases)
        return time.monotonic()

    def close(self) -> None:
        self.watchdog.stop()
        for process in self.all:
            process.kill()
            process.communicate()
        self.place.close()
        self.wire.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    if why := missing():
        pytest.skip(why)
    made = ZookeeperServer(tmp_path_factory.mktemp("zookeeper"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def machine(tmp_path: Path, server: ZookeeperServer) -> Iterator[Machine]:
    """One that works, and has promised."""
    made = Machine(tmp_path, server)
    try:
        made.start()
        eventually(made.promised)
        time.sleep(0.5)
        yield made
    finally:
        made.close()


def test_a_frozen_node_is_reset_in_time(machine: Machine) -> None:
    frozen_at = time.monotonic()
    machine.send(signal.SIGSTOP)
    ended_at = machine.session_ended()
    machine.wait()
    assert frozen_at < machine.reset_at <= ended_at + WATCHDOG_S + SLACK_S


def test_a_node_that_is_cut_off_ends_its_vms_and_is_reset(machine: Machine) -> None:
    machine.wire.stall()
    ended_at = machine.session_ended()
    machine.wait()
    assert machine.reset_at <= ended_at + SLACK_S < ended_at + WATCHDOG_S, "it knew"
    assert "the VMs end" in machine.output.read_text()


def test_a_gap_in_the_contact_is_no_reason(machine: Machine) -> None:
    time.sleep(WATCHDOG_S)
    machine.wire.stall()
    time.sleep(1.0)
    machine.wire.flow()
    time.sleep(SESSION_S)
    assert machine.promised() and not machine.reset_at
    assert "the VMs end" not in machine.output.read_text()


def test_an_agent_that_dies_and_is_back_soon_keeps_its_machine(machine: Machine) -> None:
    """Its session of before goes on for a while, and it may not act for that."""
    before, heir = machine.row.status.session, machine.prepared()
    time.sleep(WATCHDOG_S)
    machine.send(signal.SIGKILL)
    machine.wait()
    machine.process = heir
    machine.begin()
    eventually(lambda: not machine.row.status.watchdog.armed)
    eventually(lambda: machine.promised() and machine.row.status.session != before)
    time.sleep(WATCHDOG_S + SLACK_S)
    assert not machine.reset_at


def test_an_agent_that_ends_on_purpose_says_so(machine: Machine) -> None:
    machine.send(signal.SIGTERM)
    machine.wait()
    ended_at = machine.session_ended()
    assert machine.row.status.restarting and not machine.row.status.watchdog.armed
    time.sleep(max(0.0, ended_at + WATCHDOG_S + SLACK_S - time.monotonic()))
    assert not machine.reset_at

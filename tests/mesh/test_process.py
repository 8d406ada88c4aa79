"""Processes: what is started in order is ended in the opposite order, and a mistake is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import event_pb2
from pvc.gateway.v1 import token_pb2
from services.mesh import config, identity, process
from services.mesh.channel import peers_of
from services.mesh.desk import Desk
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground, woken
from services.mesh.renewal import Renewal
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.mesh.serving import CLOCK, Nodes, at


def settings(tmp_path: Path) -> config.Config:
    text = f"[node]\nname = 'n1'\nstate_dir = '{tmp_path}'\nrun_dir = '{tmp_path}/run'"
    return config.parse(text, "x")


class Story:
    """A service that notes what happens to it."""

    def __init__(self) -> None:
        self.notes = list[str]()
        self.nodes: Any = None

    def build(self, ground: Ground) -> Parts:
        self.nodes = Nodes(Desk(ground.store, ground.clock, "nodes/n1"))
        ground.store.commit([Put(cluster_pb2.Node(name="nodes/slow"))])
        return Parts(
            servicers=((api_grpc.add_NodeServiceServicer_to_server, self.nodes),),
            loops=(Loop("story", lambda: self.notes.append("step"), 60),),
            close=(lambda: self.notes.append("first"), lambda: self.notes.append("last")),
        )


@contextmanager
def restored_signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, action in kept.items():
            signal.signal(number, action)


def test_sigterm_ends_in_order_and_lets_calls_finish(tmp_path: Path) -> None:
    one, story, answers = settings(tmp_path), Story(), list[Any]()
    identity.create_cluster(one.tls_dir, "pvc", "n1", [], CLOCK.now())

    def call() -> None:
        with grpc.insecure_channel(one.addresses()["coordinator"]) as channel:
            slow = api_grpc.NodeServiceStub(channel).GetNode.future(
                api.GetNodeRequest(name="nodes/slow"), timeout=60
            )
            assert story.nodes.begun.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Timer(0.3, story.nodes.go_on.set).start()
            answers.append(slow.result().name)

    caller = threading.Thread(target=call)
    with restored_signals():
        asyncio.run(process.serve({"coordinator": story.build}, one, CLOCK, caller.start))
    caller.join(60)
    assert answers == ["nodes/slow"]
    assert story.notes[0] == "step" and story.notes[-2:] == ["last", "first"]
    assert not one.socket("coordinator").exists()


def test_a_certificate_that_grows_old_is_renewed_at_start(tmp_path: Path) -> None:
    one, story = settings(tmp_path), Story()
    now = CLOCK.now()
    begin = at("2000-01-01T00:00:00Z")
    begin.seconds = now.seconds - 300 * 86_400
    identity.create_cluster(one.tls_dir, "pvc", "n1", [], begin)
    before = (one.tls_dir / "node.crt").read_bytes()
    with restored_signals():
        stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        asyncio.run(process.serve({"coordinator": story.build}, one, CLOCK, stop))
    assert (one.tls_dir / "node.crt").read_bytes() != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[nod]", 'did you mean "node"?'),
        ("[node]\nname='n1'\nstate_dir='{}'\nrun_dir='{}/run'", "node.crt"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    words: str,
) -> None:
    monkeypatch.setattr(process.mesh_log, "configure", lambda *levels, **fields: None)
    file = tmp_path / "pvc.toml"
    file.write_text(text.replace("{}", str(tmp_path)))
    with restored_signals():
        assert process.main({"coordinator": Story().build}, ["--config", str(file)]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("coordinator: ") and words in told[-1]


def test_a_certificate_that_another_process_renewed_is_shown_too(tmp_path: Path) -> None:
    text = f"[node]\nname = 'n1'\nstate_dir = '{tmp_path}'\n[mesh]\nlisten = '127.0.0.1'"
    one, store = config.parse(text, "x"), MemoryStore()
    identity.create_cluster(one.tls_dir, "pvc", "n1", ["127.0.0.1"], CLOCK.now())
    peers = peers_of(one, store, CLOCK.now())
    renewal, before = Renewal(one, store, CLOCK, peers), peers._credentials
    renewal.step()
    assert peers._credentials is before
    (one.tls_dir / "node.crt").unlink()
    identity.create_cluster(one.tls_dir, "pvc", "n1", ["127.0.0.1"], CLOCK.now())
    renewal.step()
    assert peers._credentials is not before


STUCK = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from services.mesh.parts import Parts
from services.mesh.process import Ground, program

def build(ground: Ground) -> Parts:
    print("built", flush=True)
    ThreadPoolExecutor(1, thread_name_prefix="copy").submit(time.sleep, 60)
    return Parts()

program({"coordinator": build}, leave_s=0.5)
"""


def test_work_that_does_not_end_keeps_no_program(tmp_path: Path) -> None:
    """It is begun again by the next one."""
    one = settings(tmp_path)
    identity.create_cluster(one.tls_dir, "pvc", "n1", [], CLOCK.now())
    (tmp_path / "pvc.toml").write_text(
        f"[node]\nname = 'n1'\nstate_dir = '{tmp_path}'\nrun_dir = '{tmp_path}/run'"
    )
    begun = subprocess.Popen(
        [sys.executable, "-c", STUCK, "--config", str(tmp_path / "pvc.toml")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with begun:
        assert begun.stdout is not None and begun.stderr is not None
        assert begun.stdout.readline() == "built\n"
        assert any("ready" in line for line in begun.stderr)
        begun.terminate()
        _, told = begun.communicate(timeout=60)
    assert begun.returncode == 0 and "still waited for" in told and "copy_0" in told


def test_a_loop_is_woken_by_what_it_reads_alone() -> None:
    store = MemoryStore()
    wakes: dict[str, int] = {"vms": 0, "all": 0, "none": 0}

    class Counting(Loop):
        def wake(self) -> None:
            wakes[self.name] += 1

    for name, reads in (("vms", ("vms", "nodes")), ("all", None), ("none", ())):
        woken(store, Counting(name, lambda: None, 60, reads))
    store.commit([Put(event_pb2.Event(name="events/a"))])
    assert wakes == {"vms": 0, "all": 1, "none": 0}
    store.commit([Put(vm_pb2.Vm(name="vms/a"))])
    assert wakes == {"vms": 1, "all": 2, "none": 0}
    assert store.acquire("leader", "nodes/n1")
    assert wakes == {"vms": 2, "all": 3, "none": 0}
    forget = woken(store, Counting("vms", lambda: None, 60, ("tokens",)))
    forget()
    store.commit([Put(token_pb2.Token(name="tokens/a"))])
    assert wakes == {"vms": 2, "all": 4, "none": 0}


def test_help_says_what_the_process_does_and_a_wrong_word_is_refused(capsys: Any) -> None:
    for words, code in ((["--help"], 0), (["-h"], 0), (["--nope"], 2), (["--config"], 2)):
        with pytest.raises(SystemExit) as ended:
            process.main({"coordinator": Story().build}, words)
        assert ended.value.code == code
        told = capsys.readouterr()
        said = told.err if code else told.out
        assert said.startswith("usage: coordinator [--config FILE]\n") and "pvc.toml" in said
        assert "the coordinator service" in said

"""A caller whose machine went without a word leaves nothing at the door."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.doors.world import world_in
from tests.routing.far import ROOT

WATCHING = """\
import sys
from pvc_client import Cluster
with Cluster(sys.argv[1], token=sys.stdin.readline().strip()) as cluster:
    for change in cluster.vms.watch():
        print(change.revision, flush=True)
"""


def test_a_caller_who_is_not_heard_of_any_more_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.doors.PING_MS", 500)
    monkeypatch.setattr("services.gateway.doors.PING_TIMEOUT_MS", 500)
    with world_in(tmp_path) as world:
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        watching = subprocess.Popen(
            [sys.executable, "-c", WATCHING, world.grpc_address],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert watching.stdin is not None and watching.stdout is not None
            watching.stdin.write(world.secrets["ann"] + "\n")
            watching.stdin.flush()
            assert watching.stdout.readline()
            streams = world.doors._door._streams._open
            watching.send_signal(signal.SIGSTOP)
            end = time.monotonic() + 60
            while streams:
                assert time.monotonic() < end, "it is still waited for"
                time.sleep(0.02)
            # It was only asleep: it finds that it was cut off, and goes on where it was.
            watching.send_signal(signal.SIGCONT)
            end = time.monotonic() + 60
            while not streams:
                assert time.monotonic() < end, "it does not come back"
                time.sleep(0.02)
        finally:
            watching.kill()
            watching.communicate(timeout=60)

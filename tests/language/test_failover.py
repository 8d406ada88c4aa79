"""A shell on a cluster of three nodes: the one it talks to dies in the middle of a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from shell.connections import Connection, Connections
from shell.language.runner import Runner
from shell.session import Session
from tests.contract.three import NODES, three_running


@pytest.mark.timeout(100)
def test_lines_go_on_through_the_next_address(tmp_path: Path, own_files: Path, capfd: Any) -> None:
    with three_running(tmp_path) as three:
        with three.client("n2") as cluster:
            cluster.vms.create("web", vm_pb2.VmSpec()).result(20)
        addresses = tuple(f"127.0.0.1:{three[name].doors.grpc_port}" for name in NODES)
        Connections().add(Connection("prod", addresses, token=three["n1"].secrets["eve"]), use=True)
        runner = Runner(Session(), interactive=True)
        assert runner.run_line("use vm web; info -f name") == 0
        assert runner.session.cluster.transport.address == addresses[0]
        three.kill("n1")
        assert runner.run_line("info -f name; list | count; token create x --role viewer") == 0
        assert runner.context == "vm/web"
        assert runner.run_line("token list | where name=x | name") == 0
        runner.session.close()
    first, *lines = capfd.readouterr().out.splitlines()
    assert (first, lines[:2], lines[-1]) == ("web", ["web", "1"], "x")

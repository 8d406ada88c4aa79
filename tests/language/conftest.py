"""A whole PVC for lines to talk to, and a shell that has no files of anybody's but its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shell.language.runner import Runner
from shell.session import Session
from tests.contract.whole import Whole, running


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("language")) as whole:
        with whole.client() as cluster:
            from pvc.compute.v1 import vm_pb2

            for name, mib, cpus in (("db", 4096, 4), ("old", 512, 1), ("web", 1024, 2)):
                spec = vm_pb2.VmSpec()
                spec.memory.memory_mib, spec.cpu.vcpus = mib, cpus
                spec.tags.extend(["prod"] if name != "old" else [])
                cluster.vms.create(name, spec).result(20)
            cluster.vms.start("web").result(20)
        yield whole


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("PVC_CONFIG_DIR", str(folder))
    for name in ("PVC_CONNECTION", "PVC_TOKEN", "PVC_CA"):
        monkeypatch.delenv(name, raising=False)
    return folder


class Said:
    """What came of a line."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Say = Callable[[str], Said]


@pytest.fixture
def runner(whole: Whole) -> Iterator[Runner]:
    session = Session(f"unix:{whole.folder}/run/pvc.sock")
    yield Runner(session, interactive=True)
    session.close()


@pytest.fixture
def say(runner: Runner, capfd: Any) -> Say:
    def call(line: str) -> Said:
        capfd.readouterr()
        code = runner.run_line(line)
        return Said(code, *capfd.readouterr())

    return call

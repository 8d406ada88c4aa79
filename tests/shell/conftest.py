"""What tests of commands against a whole PVC share: the PVC, what is made in it, a `pvc` to call,
and what that asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from shell import main
from tests.contract.stage import Stage
from tests.contract.whole import Whole, running


class Recording:
    """A channel that remembers which methods were called, and with which requests."""

    def __init__(self, channel: Any, seen: list[tuple[str, Any]]) -> None:
        self._channel, self._seen = channel, seen

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        if not name.endswith(("_unary", "_stream")):
            return found

        def make(path: str, serialize: Any, *more: Any, **named: Any) -> Any:
            def kept(request: Any) -> bytes:
                self._seen.append((path.rpartition("/")[2], request))
                return bytes(serialize(request))

            return found(path, kept, *more, **named)

        return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("pvc")) as whole:
        yield whole


@pytest.fixture(scope="module")
def stage(whole: Whole) -> Iterator[Stage]:
    with whole.client() as cluster:
        yield Stage(whole, cluster)


@pytest.fixture
def seen(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What the commands of a test ask for; the stage's own channel is open by now."""
    found: list[tuple[str, Any]] = []
    real = grpc.insecure_channel
    monkeypatch.setattr(grpc, "insecure_channel", lambda *a, **k: Recording(real(*a, **k), found))
    return found


@pytest.fixture
def pvc(whole: Whole, capfd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("PVC_CONNECTION", f"127.0.0.1:{whole.doors.grpc_port}")
    monkeypatch.setenv("PVC_TOKEN", whole.secrets["eve"])
    monkeypatch.setenv("EDITOR", str(editor(tmp_path)))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "s3cr3t\n")

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        got = main.run(arguments)
        out, err = capfd.readouterr()
        assert got == code, f"pvc {' '.join(arguments)} ended with {got}: {out}{err}"
        return out, err

    return call


def editor(folder: Path) -> Path:
    """An editor that writes a description."""
    path = folder / "editor"
    path.write_text(
        '#!/bin/sh\nsed -i "s/^  # description:.*/  description: edited/;'
        ' s/^  description:.*/  description: edited/" "$1"\n'
    )
    path.chmod(0o755)
    return path

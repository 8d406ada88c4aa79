"""What an operation is told of its image build, and what becomes of the build's failures."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.core.v1 import reason_pb2
from pvc.core.v1.operation_pb2 import Operation
from services.mesh import rows
from services.mesh.desk import Call
from services.mesh.errors import PvcError
from services.mesh.jobs import Task
from services.provisioner import builder
from services.provisioner.build import BuildProgress, BuildSettings, builtin_recipes
from services.provisioner.cache import ImageCache
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import parse_recipe
from services.provisioner.drivers.child import ChildCancelled, ChildFailed
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.provisioner.worlds import build
from tests.storage.worlds import StillClock

Build = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Build], Operation]:
    """Has an operation's image built by `Build`; the operation after it."""
    store, clock = MemoryStore(), StillClock()
    call = Call(clock.now(), "ann", "nodes/n1", clock.new_id)
    row = rows.new_operation(call, build(), method="x/BuildImage", target="images/a", service="x")
    row.worker = store.session()
    store.commit([Put(row)])

    def cancel() -> None:
        after = rows.copied(store.snapshot().find(Operation, row.name) or row)
        after.cancel_requested = True
        store.commit([Put(after)])

    def go(made: Build) -> Operation:
        def build_image(recipe: Any, target: Path, settings: Any, **how: Any) -> None:
            made(**how, cancel=cancel)

        monkeypatch.setattr(builder, "build_image", build_image)
        recipe = parse_recipe(builtin_recipes()["debian-12"])
        task = Task(store, clock, row)
        builder.ImageBuilder(BuildSettings(tmp_path, tmp_path)).build(recipe, tmp_path, task, 50)
        return store.snapshot().find(Operation, row.name) or row

    return go


FAILURES: dict[str, tuple[Exception, str]] = {
    "a step": (ChildFailed("mkfs.ext4 ended with status 1"), "BUILD_FAILED"),
    "the size": (FieldProblem("size_mib", "is too small"), "INVALID_CONTENT"),
    "no room": (OSError(errno.ENOSPC, "No space left on device"), "OUT_OF_SPACE"),
    "no root": (PermissionError(errno.EPERM, "Operation not permitted"), "BUILD_FAILED"),
    "stopped": (ChildCancelled(), "CANCELLED"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_failures_get_a_reason(run: Callable[[Build], Operation], what: str) -> None:
    failure, reason = FAILURES[what]

    def fail(**how: Any) -> None:
        raise failure

    with pytest.raises(PvcError) as caught:
        run(fail)
    assert caught.value.reason_name == reason
    assert str(failure) in caught.value.message


def test_stages_and_percent_reach_the_operation(run: Callable[[Build], Operation]) -> None:
    def made(on_progress: Any, cancelled: Any, cancel: Any) -> None:
        on_progress(BuildProgress("packages", 1))
        for percent in range(2, 80):
            on_progress(BuildProgress("packages", percent, f"Unpacking package {percent}"))
        on_progress(BuildProgress("image", 90))
        on_progress(BuildProgress("done", 100))

    operation = run(made)
    said = [line.text for line in operation.log]
    assert said[0] == "installing packages" and said[-1] == "packing the image"
    assert operation.percent == 45, "the build is the first half"
    lines = [text for text in said if text.startswith("Unpacking")]
    assert 3 <= len(lines) < 60, "some lines, not all"


def test_a_cancel_stops_the_build(run: Callable[[Build], Operation]) -> None:
    def made(on_progress: Any, cancelled: Any, cancel: Any) -> None:
        assert not cancelled()
        cancel()
        assert cancelled()
        raise ChildCancelled

    with pytest.raises(PvcError) as caught:
        run(made)
    assert caught.value.reason_name == "CANCELLED"


def test_one_image_is_built_at_a_time_and_waiting_can_end(tmp_path: Path) -> None:
    cache, began, go = ImageCache(tmp_path, StillClock()), threading.Event(), threading.Event()

    def slow(target: Path) -> None:
        began.set()
        assert go.wait(60)
        target.write_bytes(b"image")

    def first() -> None:
        with cache.image("a", slow, lambda: None):
            pass

    def cancelled() -> None:
        raise PvcError(reason_pb2.REASON_CANCELLED, "cancelled by request")

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(60)
    for key in ("a", "b"):
        with pytest.raises(PvcError, match="cancelled"), cache.image(key, slow, cancelled):
            pytest.fail("two builds at a time")
    go.set()
    thread.join(60)
    with cache.image("a", slow, cancelled) as there:
        assert there.was_there and there.path.read_bytes() == b"image"


def test_an_image_that_is_held_is_not_pruned(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, StillClock())

    def make(target: Path) -> None:
        target.write_bytes(b"image")

    with cache.image("held", make, lambda: None) as held:
        for key in ("a", "b", "c", "d"):
            with cache.image(key, make, lambda: None):
                assert held.path.exists()
    with cache.image("e", make, lambda: None):
        assert not held.path.exists()

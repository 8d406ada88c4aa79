"""Loops: woken, never overlapping, backing off, stopping."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from pvc.core.v1 import reason_pb2
from services.mesh import loop as loops
from services.mesh.errors import PvcError
from services.mesh.loop import Loop


def eventually(fact: object, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not fact():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.002)


def test_steps_at_once_on_wake_and_after_the_period() -> None:
    steps = list[float]()
    loop = Loop("x", lambda: steps.append(time.monotonic()), 0.05)
    loop.start()
    eventually(lambda: len(steps) >= 3)
    assert steps[2] - steps[0] >= 0.08
    assert loop.stop(60)
    count = len(steps)
    slow = Loop("y", lambda: steps.append(time.monotonic()), 60)
    slow.start()
    eventually(lambda: len(steps) == count + 1)
    slow.wake()
    eventually(lambda: len(steps) == count + 2)
    assert slow.stop(60)


def test_steps_never_overlap_and_many_wakes_make_one_more_step() -> None:
    going, most, steps = [0], [0], [0]
    hold = threading.Event()

    def step() -> None:
        going[0] += 1
        most[0] = max(most[0], going[0])
        hold.wait(60)
        steps[0] += 1
        going[0] -= 1

    loop = Loop("x", step, 60)
    loop.start()
    eventually(lambda: going[0] == 1)
    for _ in range(100):
        loop.wake()
    hold.set()
    eventually(lambda: steps[0] == 2)
    time.sleep(0.05)
    assert (steps[0], most[0]) == (2, 1)
    assert loop.stop(60)


def test_failures_are_repeated_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "BACKOFF_FIRST_S", 0.02)
    tries = list[float]()

    def step() -> None:
        tries.append(time.monotonic())
        if len(tries) < 5:
            raise ValueError("not yet")

    loop = Loop("x", step, 3600)
    loop.start()
    for _ in range(100):
        loop.wake()
        time.sleep(0.005)
    eventually(lambda: len(tries) >= 5)
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert all(pause >= 0.02 * 2**n for n, pause in enumerate(pauses[:4]))
    assert loop.stop(60)


def test_a_stuck_step_is_told() -> None:
    begun, hold = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        hold.wait(60)

    loop = Loop("x", step, 60)
    loop.start()
    assert begun.wait(60)
    assert not loop.stop(0.05)
    hold.set()
    assert loop.stop(60)


def test_what_is_away_is_told_without_a_trace_and_a_mistake_with_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loops, "BACKOFF_FIRST_S", 0.001)
    for error, traced in (
        (PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "away"), False),
        (ValueError("mistaken"), True),
    ):
        caplog.clear()

        def step(error: Exception = error) -> None:
            raise error

        loop = Loop("x", step, 60)
        loop.start()
        eventually(lambda: bool(caplog.records))
        assert loop.stop(60)
        assert str(error) in caplog.records[0].message
        assert bool(caplog.records[0].exc_info) is traced


def test_it_goes_on_however_long_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night without the store is more than a thousand failures in a row."""
    monkeypatch.setattr(loops, "BACKOFF_FIRST_S", 0.0)
    monkeypatch.setattr(loops.log, "error", lambda *words, **more: None)
    steps = itertools.count()

    def step() -> None:
        next(steps)
        raise RuntimeError("the store is away")

    loop = Loop("x", step, 60)
    loop.start()
    eventually(lambda: next(steps) > 4000)
    assert loop.stop(60)


def test_a_loop_that_is_woken_without_end_leaves_others_most_of_the_time() -> None:
    """Its processor time, of a while in which it always has something to do."""
    worked: list[float] = []

    def step() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.01:
            continue
        worked.append(time.thread_time() - began)
        loop.wake()

    loop = Loop("busy", step, 60.0)
    began = time.monotonic()
    loop.start()
    eventually(lambda: len(worked) >= 20)
    took_s = time.monotonic() - began
    assert loop.stop(60)
    assert sum(worked[:20]) < 0.45 * took_s

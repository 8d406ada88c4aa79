"""Fixtures: each test has a bench of its own, taken away whatever becomes of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.benches import Bench, FakeBench, RealBench


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The same test on the fake fabric and on the real one."""
    made = FakeBench(tmp_path) if request.param == "fake" else RealBench()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def real() -> Iterator[RealBench]:
    """A real fabric. Mark the test as real."""
    made = RealBench()
    try:
        yield made
    finally:
        made.close()

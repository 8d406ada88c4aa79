"""How busy a node is, as it tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.compute.core.busyness import NodeLoad, rounded, to_tell
from services.compute.presence import read_load


def test_it_is_rounded() -> None:
    assert rounded(1.2345, 1000) == NodeLoad(load_percent=120, available_memory_mib=960)


def test_the_first_is_told() -> None:
    now = rounded(0.0, 4096)
    assert to_tell(None, now) == now


@pytest.mark.parametrize(
    ("load", "memory", "tells"),
    [
        (2.4, 4096, False),
        (2.6, 4096, True),
        (1.4, 4096, True),
        (2.0, 3500, False),
        (2.0, 2900, True),
        (2.0, 5200, True),
    ],
)
def test_only_a_large_change_is_told(load: float, memory: int, tells: bool) -> None:
    told, now = rounded(2.0, 4096), rounded(load, memory)
    assert to_tell(told, now) == (now if tells else told)


def test_small_changes_add_up() -> None:
    told = rounded(2.0, 4096)
    for tenth in range(20, 31):
        told = to_tell(told, rounded(tenth / 10, 4096))
    assert told.load_percent > 200


def test_the_kernel_is_asked(tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.52 0.58 0.59 1/467 12345\n")
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable:    2097152 kB\n")
    assert read_load(tmp_path) == NodeLoad(load_percent=50, available_memory_mib=2048)

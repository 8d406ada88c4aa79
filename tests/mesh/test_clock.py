"""Ids: unique, and in the order in which they were made."""

from __future__ import annotations

import re
import threading

from services.mesh.clock import SystemClock, sortable_id


def test_ids_made_later_sort_after_earlier_ones() -> None:
    clock = SystemClock()
    ids = [clock.new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch("[0-9a-z]{26}", one) for one in ids)


def test_ids_of_many_threads_are_unique() -> None:
    clock, ids = SystemClock(), list[str]()
    threads = [
        threading.Thread(target=lambda: ids.extend(clock.new_id() for _ in range(500)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 4000


def test_a_sortable_id_is_its_time_first() -> None:
    assert sortable_id(1, 0) > sortable_id(0, (1 << 80) - 1)
    assert sortable_id(0, 0) == "0" * 26


def test_the_time_of_day_is_a_valid_timestamp() -> None:
    assert SystemClock().now().ToJsonString().startswith("2")
    assert SystemClock().now().nanos % 1000 == 0

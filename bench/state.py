"""How fast the state is in memory, in SQLite and in a real ZooKeeper: `python -m bench.state`.

A row is a VM of typical size. All of it happens on this machine, the server included.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import meta_pb2
from services.state.ensemble import Ensemble
from services.state.memory import MemoryCluster, MemoryStore
from services.state.sqlite import SqliteStore
from services.state.store import ANY_VERSION, Put, Store
from services.state.zookeeper import ZookeeperStore
from tests.state.zookeeper_server import ZookeeperServer, missing

ROWS = 5_000
ROWS_PER_FILL = 200
MEASURE_S = 1.0
LATENCIES = 200


@dataclass(frozen=True, slots=True)
class Subject:
    """An implementation. open: a further process's store; reopen: one that loads everything, None
    where nothing outlives the process."""

    name: str
    store: Store
    other: Store
    reopen: Callable[[], Store] | None


def row(number: int, text: str = "") -> vm_pb2.Vm:
    """A VM with two disks and a network interface."""
    name = f"vm-{number:05}"
    spec = vm_pb2.VmSpec(
        description=(text or f"the machine {number}") + " of somebody" * 30,
        tags=["web", "production"],
    )
    for disk in ("root", "data"):
        spec.disks.add(id=disk, volume=f"pools/fast/volumes/{name}-{disk}", discard=True)
    spec.nics.add(id="net0", network="networks/default", mac=f"52:54:00:12:{number % 100:02}:56")
    spec.cpu.vcpus, spec.memory.memory_mib = 4, 8192
    meta = meta_pb2.Meta(uid=f"{number:026}", etag=ANY_VERSION, generation=1)
    return vm_pb2.Vm(name=f"vms/{name}", meta=meta, spec=spec)


def per_second(step: Callable[[int], object], batch: int = 1) -> float:
    """How often a step can be done, over about MEASURE_S."""
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < MEASURE_S:
        for _ in range(batch):
            step(done)
            done += 1
    return done / spent


def fill(store: Store) -> float:
    """Seconds to write all rows."""
    began = time.perf_counter()
    for first in range(0, ROWS, ROWS_PER_FILL):
        store.commit([Put(row(number)) for number in range(first, first + ROWS_PER_FILL)])
    return time.perf_counter() - began


def latencies_ms(subject: Subject) -> tuple[float, float]:
    """Median and 99th percentile from the call of commit until another's watch has it."""
    subject.other.wait(subject.store.snapshot().revision, 30)
    watch = subject.other.watch(subject.store.snapshot().revision)
    seen: list[float] = []

    def follow() -> None:
        for _ in range(LATENCIES):
            assert watch.next(10) is not None
            seen.append(time.perf_counter())

    reader = threading.Thread(target=follow)
    reader.start()
    began: list[float] = []
    for number in range(LATENCIES):
        began.append(time.perf_counter())
        subject.store.commit([Put(row(number, f"seen {number}"))])
        time.sleep(0.002)
    reader.join()
    took = sorted((after - before) * 1000 for before, after in zip(began, seen, strict=True))
    return statistics.median(took), took[int(len(took) * 0.99)]


def load_s(subject: Subject) -> str:
    """Seconds for a new process to have all rows."""
    if subject.reopen is None:
        return "-"
    began = time.perf_counter()
    store = subject.reopen()
    took = time.perf_counter() - began
    assert sum(1 for _ in store.snapshot().rows(vm_pb2.Vm)) == ROWS
    store.close()
    return f"{took:.2f}"


def measure(subject: Subject) -> list[str]:
    """One line of the table."""
    store = subject.store
    filled = fill(store)
    loaded = load_s(subject)
    find = per_second(
        lambda n: store.snapshot().find(vm_pb2.Vm, f"vms/vm-{n % ROWS:05}"), batch=1000
    )
    listed = per_second(lambda n: list(store.snapshot().rows(vm_pb2.Vm)))
    one = per_second(lambda n: store.commit([Put(row(n % ROWS, f"text {n}"))]))
    ten = per_second(lambda n: store.commit([Put(row(i, f"text {n}")) for i in range(10)]))
    median, worst = latencies_ms(subject)
    return [
        subject.name, f"{find:,.0f}", f"{1000 / listed:.1f}", f"{one:,.0f}", f"{ten:,.0f}",
        f"{median:.2f}", f"{worst:.2f}", f"{filled:.2f}", loaded,
    ]  # fmt: skip


HEADINGS = [
    "state in", "find/s", "list 5,000 ms", "commits/s", "of 10 rows/s", "seen ms", "p99 ms",
    "fill 5,000 s", "load 5,000 s",
]  # fmt: skip


def in_memory() -> list[str]:
    """Of a MemoryStore: the floor, with what checking and copying costs."""
    cluster = MemoryCluster()
    return measure(Subject("memory", MemoryStore(cluster), MemoryStore(cluster), None))


def in_sqlite(folder: Path) -> list[str]:
    """Of a SqliteStore; one process has it, so it is closed to be loaded."""
    path = folder / "state.db"
    first = SqliteStore(path)
    fill(first)
    first.close()
    began = time.perf_counter()
    store = SqliteStore(path)
    loaded = time.perf_counter() - began
    line = measure(Subject("SQLite", store, store, None))
    store.close()
    return [*line[:-1], f"{loaded:.2f}"]


def in_zookeeper(folder: Path) -> list[str]:
    """Of a ZookeeperStore with one server; the watch is of a second store."""
    if why := missing():
        return ["ZooKeeper", why]
    server = ZookeeperServer(folder / "zookeeper")
    server.start()
    try:
        reopen = partial(ZookeeperStore, Ensemble(server.address))
        store, other = reopen(), reopen()
        line = measure(Subject("ZooKeeper", store, other, reopen))
        store.close()
        other.close()
        return line
    finally:
        server.stop()


def environment() -> str:
    """The machine, in one line."""
    return (
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"row {row(1).ByteSize()} bytes, state folder {tempfile.gettempdir()}"
    )


def main() -> int:
    """Prints the table."""
    print(environment())
    with tempfile.TemporaryDirectory(prefix="pvc-bench-") as folder:
        lines = [HEADINGS, in_memory(), in_sqlite(Path(folder)), in_zookeeper(Path(folder))]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(HEADINGS))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fills a small file system of its own until the state refuses, then frees it: see test_sqlite.py.

Runs in a mount namespace of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

from services.mesh.errors import PvcError
from services.state.sqlite import SqliteStore
from services.state.store import Put
from tests.state.places import described, texts, vm

disk = Path(sys.argv[1])
disk.mkdir()
subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True, timeout=10
)
store = SqliteStore(disk / "state.db")
store.commit([Put(vm("web", "0"))])
ballast = disk / "ballast"
ballast.write_bytes(b"x" * 3 * 1024 * 1024)


def fill() -> str:
    """The reason of the first refusal."""
    for number in range(10_000):
        before = store.snapshot()
        try:
            store.commit([described(store, "web", os.urandom(2000).hex()), Put(vm(f"x{number}"))])
        except PvcError as error:
            assert store.snapshot() is before
            return error.reason_name
    raise AssertionError("it never filled")


print(fill())
try:
    store.commit([described(store, "web", os.urandom(200_000).hex())])
except PvcError as error:
    print("still full:", error.reason_name)
ballast.unlink()
store.commit([described(store, "web", os.urandom(100_000).hex())])
print("works")
expected, revision = texts(store), store.snapshot().revision
store.close()
again = SqliteStore(disk / "state.db")
assert (texts(again), again.snapshot().revision) == (expected, revision)
again.close()
print("whole")

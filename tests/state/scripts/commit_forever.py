"""Commits two rows that agree, for ever, saying each acknowledged revision: killed by its test."""

import itertools
import os
import sys
from pathlib import Path

from services.state.sqlite import SqliteStore
from services.state.store import ANY_VERSION, Put
from tests.state.places import vm

store = SqliteStore(Path(sys.argv[1]))
os.write(1, b"ready\n")
for number in itertools.count(store.snapshot().revision + 1):
    changes = [Put(vm(name, str(number), ANY_VERSION)) for name in ("a", "b")]
    assert store.commit(changes) == number
    os.write(1, f"{number}\n".encode())

"""Has the kernel refuse writes until the state refuses, then lifts the limit (test_sqlite.py)."""

import os
import resource
import signal
import sys
from pathlib import Path

from services.mesh.errors import PvcError
from services.state.sqlite import SqliteStore
from services.state.store import Put
from tests.state.places import described, texts, vm

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
store = SqliteStore(path)
store.commit([Put(vm("web", "one"))])
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("state.db-wal").stat().st_size, most))
before = store.snapshot()
try:
    store.commit([described(store, "web", os.urandom(50_000).hex())])
except PvcError as error:
    print(error.reason_name)
assert store.snapshot() is before
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
assert store.commit([described(store, "web", "two")]) == 2
print("works")
store.close()
again = SqliteStore(path)
assert texts(again) == {"vms/web": "two"}
again.close()
print("whole")

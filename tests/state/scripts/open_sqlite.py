"""Opens a SQLite state and says what happened: run as a second process by test_sqlite.py."""

import sys
from pathlib import Path

from services.mesh.errors import PvcError
from services.state.sqlite import SqliteStore

try:
    store = SqliteStore(Path(sys.argv[1]))
except PvcError as error:
    print(error.reason_name, error.metadata["pid"])
else:
    print("opened", store.snapshot().revision)
    store.close()

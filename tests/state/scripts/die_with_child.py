"""Opens an SQLite state and dies, leaving its lock to a child, whose number it prints."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from services.state.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], pass_fds=[store._owned], stdout=subprocess.DEVNULL)
os.write(1, f"{child.pid}\n".encode())
os.kill(os.getpid(), signal.SIGKILL)

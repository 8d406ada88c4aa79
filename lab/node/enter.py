"""Puts itself into a control group and becomes another program there. A program of its own, because
the group must be entered before the namespaces are made."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    os.execvp(sys.argv[2], sys.argv[2:])

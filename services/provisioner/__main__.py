"""The provisioner service of a node as a process of its own."""

from __future__ import annotations

import sys

from services.mesh.process import main
from services.provisioner.main import build_on

if __name__ == "__main__":
    sys.exit(main({"provisioner": build_on}))

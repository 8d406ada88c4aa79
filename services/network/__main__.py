"""The network service of a node as a process of its own."""

from __future__ import annotations

import sys

from services.mesh.process import main
from services.network.main import build_on

if __name__ == "__main__":
    sys.exit(main({"network": build_on}))

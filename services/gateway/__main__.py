"""The gateway service of a node as a process of its own."""

from __future__ import annotations

import sys

from services.gateway.main import build_on
from services.mesh.process import main

if __name__ == "__main__":
    sys.exit(main({"gateway": build_on}))

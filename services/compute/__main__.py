"""The compute service of a node as a process of its own."""

from __future__ import annotations

import sys

from services.compute.main import build_on
from services.mesh.process import main

if __name__ == "__main__":
    sys.exit(main({"compute": build_on}))

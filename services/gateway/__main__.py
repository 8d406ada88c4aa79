"""The gateway service of a node as a process of its own."""

from __future__ import annotations

from services.gateway.main import build_on
from services.mesh.process import program

if __name__ == "__main__":
    program({"gateway": build_on})

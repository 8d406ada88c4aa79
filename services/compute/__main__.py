"""The compute service of a node as a process of its own."""

from __future__ import annotations

from services.compute.main import build_on
from services.mesh.process import program

if __name__ == "__main__":
    program({"compute": build_on})

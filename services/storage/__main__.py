"""The storage service of a node as a process of its own."""

from __future__ import annotations

from services.mesh.process import program
from services.storage.main import build_on

if __name__ == "__main__":
    program({"storage": build_on})

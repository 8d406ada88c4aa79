"""Compares a text with its golden file; PVC_WRITE_GOLDENS=1 writes the files anew."""

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("goldens")


def check_golden(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("PVC_WRITE_GOLDENS") == "1":
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; PVC_WRITE_GOLDENS=1 accepts the new text"

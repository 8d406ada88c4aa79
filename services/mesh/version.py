"""The version of this PVC."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("pvc")

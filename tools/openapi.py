"""Completes an OpenAPI 2.0 file that was generated from the contracts with what their own options
say. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def completed(document: dict[str, Any], services: Sequence[Any]) -> dict[str, Any]:
    return document

"""What the contracts say in words about messages, fields, values and methods: the comments of the
contract files, generated beside the messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

FILE = "texts.json"


@cache
def texts() -> Mapping[str, str]:
    """Full name → text."""
    import pvc

    for folder in map(Path, pvc.__path__):
        if (folder / FILE).exists():
            found: Mapping[str, str] = json.loads((folder / FILE).read_text())
            return found
    return {}


def text_of(thing: Any) -> str:
    """What a message, a field, a service, a method or an enum is; "" when nothing is said."""
    return texts().get(thing.full_name, "")


def first_sentence(field: FieldDescriptor) -> str:
    """The beginning of what is said about a field."""
    head, end, _ = text_of(field).partition(". ")
    return head + end.strip()


def value_text(kind: EnumDescriptor, name: str) -> str:
    """What one value of an enum means."""
    return texts().get(f"{kind.full_name}.{name}", "")

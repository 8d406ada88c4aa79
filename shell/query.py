"""Filters of the contract's language as commands put them together. What people type in its place
is `filters`' matter.
"""

from __future__ import annotations

from typing import Any


def quoted(text: str) -> str:
    """A text as filters have it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def before(session: Any, seconds: int) -> str:
    """A moment so many seconds ago, in RFC 3339."""
    from google.protobuf.timestamp_pb2 import Timestamp

    return str(Timestamp(seconds=int(session.now()) - seconds).ToJsonString())


def filter_of(path: str, pattern: str | None, *terms: str) -> str:
    """The filter of a list command: a pattern for the last id, and further terms.

    path: what names begin with, "vms" or "pools/*/volumes". Quotes in a pattern stay text.
    """
    named = [f"name = {quoted(f'{path}/{pattern}')}"] if pattern else []
    return " AND ".join([*named, *(f"({term})" for term in terms if term)])

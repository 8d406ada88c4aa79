"""Filters of the contract's language as commands put them together. What people type in its place
is `filters`' matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def quoted(text: str) -> str:
    """A text as filters have it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def before(session: Any, seconds: int) -> str:
    """A moment so many seconds ago, in RFC 3339."""
    from google.protobuf.timestamp_pb2 import Timestamp

    return str(Timestamp(seconds=int(session.now()) - seconds).ToJsonString())


def filter_of(path: str, patterns: Sequence[str], *terms: str) -> str:
    """The filter of a list command: patterns of which one must fit the name, and further terms.

    path: what names begin with, "vms" or "pools/*/volumes"; a pattern is for the last id, or for
    all of them: "local/web-*". Quotes in a pattern stay text.
    """
    named = [f"name = {quoted(_full(path, one))}" for one in patterns]
    any_of = [f"({' OR '.join(named)})"] if len(named) > 1 else named
    return " AND ".join([*any_of, *(f"({term})" for term in terms if term)])


def _full(path: str, pattern: str) -> str:
    """The pattern of a whole name: "local/*" is "pools/local/volumes/*"."""
    kinds, ids = path.split("/")[::2], pattern.split("/")
    if len(ids) > 1 and ids[::2] == kinds:
        return pattern
    if len(ids) == len(kinds):
        return "/".join(f"{kind}/{one}" for kind, one in zip(kinds, ids, strict=True))
    return f"{path}/{pattern}"

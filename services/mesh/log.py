"""Logs: one line for each record, as logfmt or JSON, with service, node and operation as fields.

Secrets are never written: messages go through `safe`.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, TypeAlias

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.mesh.contract import is_map, rules
from services.mesh.errors import shown
from services.mesh.filters import enum_prefix

Form: TypeAlias = Literal["logfmt", "json"]
SAFE_MAX = 600
"""Longest rendering of a message."""

_bound: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default={})  # noqa: B039


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Records written inside carry these fields: service, operation, …"""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(**fields: str) -> None:
    """As `bound`, for all of what the running task or thread is yet to do."""
    _bound.set({**_bound.get(), **fields})


def configure(
    level: str, form: Form, *, service: str, node: str, stream: TextIO | None = None
) -> None:
    """Has everything that is logged in this process written to `stream` (standard error)."""
    target = logging.StreamHandler(stream or sys.stderr)
    target.setFormatter(LineFormatter(form, {"service": service, "node": node}))
    root = logging.getLogger()
    root.handlers[:] = [target]
    root.setLevel(level.upper())
    for library in ("grpc", "asyncio", "kazoo", "uvicorn"):
        # What they say below a warning is about themselves, several lines for each call.
        logging.getLogger(library).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """A record as one line."""

    def __init__(self, form: Form, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._line = _json_line if form == "json" else _logfmt_line
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **self._fields,
            **_bound.get(),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["trace"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return self._line(fields)


def _json_line(fields: Mapping[str, str]) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _logfmt_line(fields: Mapping[str, str]) -> str:
    return " ".join(f"{key}={_logfmt_value(value)}" for key, value in fields.items() if value)


def _logfmt_value(value: str) -> str:
    plain = value.isprintable() and not any(character in ' "=\\' for character in value)
    return value if plain else shown(value, len(value))


def safe(message: Message, limit: int = SAFE_MAX) -> str:
    """A message on one line without secrets and bytes: `vm_id="web" vm{spec{cpu{vcpus=2}}}`."""
    text = " ".join(_fields_of(message))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _fields_of(message: Message) -> Iterator[str]:
    if isinstance(message, AnyMessage):
        yield f"({message.TypeName()})"
        return
    for field, value in message.ListFields():
        if rules(field).secret:
            yield f"{field.name}=(secret)"
        elif is_map(field):
            entries = (f"{shown(key)}:{_one(field, value[key])}" for key in sorted(value))
            yield f"{field.name}{{{' '.join(entries)}}}"
        elif field.is_repeated:
            yield f"{field.name}[{' '.join(_one(field, item) for item in value)}]"
        else:
            yield f"{field.name}{'' if field.message_type else '='}{_one(field, value)}"


def _one(field: Any, value: Any) -> str:
    if isinstance(value, Timestamp | Duration):
        return f"={_moment(value)}"
    if isinstance(value, Message):
        return f"{{{' '.join(_fields_of(value))}}}"
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, str):
        return shown(value)
    if field.enum_type is not None and value in field.enum_type.values_by_number:
        name = field.enum_type.values_by_number[value].name
        return str(name.removeprefix(enum_prefix(field.enum_type)))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _moment(value: Timestamp | Duration) -> str:
    try:
        return value.ToJsonString()
    except ValueError:
        return "(no time)"

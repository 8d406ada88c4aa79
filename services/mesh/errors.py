"""How PVC says no: a reason for programs, a sentence for people, and the field at fault.

`PvcError` is raised anywhere, becomes a google.rpc.Status at the server's edge, is kept in failed
operations as the same Status, and comes out of a channel as a `PvcError` again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pvc.core.v1 import options_pb2, reason_pb2

DOMAIN = "pvc"
_PREFIX = "REASON_"
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


class PvcError(Exception):
    """A refusal or failure, for the caller to act on.

    reason: which case it is. message: what, why, and what to do next. field: path of the field
    at fault, "" for none. metadata: further facts for programs. retry_after_s: not to be asked
    again before that time, where it is known.
    """

    def __init__(
        self,
        reason: reason_pb2.Reason.ValueType,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    @property
    def reason_name(self) -> str:
        """The reason without its prefix: "NOT_FOUND"."""
        return reason_pb2.Reason.Name(self.reason).removeprefix(_PREFIX)

    @property
    def code(self) -> int:
        """The google.rpc.Code that goes with the reason."""
        value = reason_pb2.Reason.DESCRIPTOR.values_by_number[self.reason]
        return int(value.GetOptions().Extensions[options_pb2.code])

    def to_status(self) -> status_pb2.Status:
        """The error as it is sent and stored."""
        status = status_pb2.Status(code=self.code, message=self.message)
        _pack(
            status,
            error_details_pb2.ErrorInfo(
                reason=self.reason_name, domain=DOMAIN, metadata=self.metadata
            ),
        )
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            _pack(status, error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s:
            pause = error_details_pb2.RetryInfo()
            pause.retry_delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            _pack(status, pause)
        return status

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> PvcError:
        """The error that a Status stands for, also one that PVC did not make."""
        reason = reason_pb2.REASON_INTERNAL
        if status.code == code_pb2.UNAVAILABLE:
            reason = reason_pb2.REASON_UNREACHABLE
        elif status.code == code_pb2.DEADLINE_EXCEEDED:
            reason = reason_pb2.REASON_DEADLINE
        field, metadata = "", {}
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if (
                detail.Unpack(info)
                and _PREFIX + info.reason in reason_pb2.Reason.DESCRIPTOR.values_by_name
            ):
                reason, metadata = reason_pb2.Reason.Value(_PREFIX + info.reason), info.metadata
            elif detail.Unpack(bad) and bad.field_violations:
                field = bad.field_violations[0].field
        return cls(reason, status.message, field=field, metadata=dict(metadata))

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """The status code as grpc spells it."""
        return _GRPC_CODES[self.code]


def _pack(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def refuse(reason: reason_pb2.Reason.ValueType, message: str, field: str = "") -> NoReturn:
    """Raises PvcError; reads better than `raise` where a check is one line."""
    raise PvcError(reason, message, field=field)


def not_found(name: str, field: str = "name") -> PvcError:
    """The named resource does not exist."""
    return PvcError(reason_pb2.REASON_NOT_FOUND, f"{name} does not exist", field=field)


def shown(value: object, limit: int = 60) -> str:
    """A value that somebody sent, safe to print: quoted, escaped, cut."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    cut = text[:limit]
    safe = "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in cut)
    return f'"{safe}"' + ("…" if len(text) > limit else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say after an unknown word: `; did you mean "memory"?`, or what there is."""
    there = sorted(known)
    close = difflib.get_close_matches(word, there, 1, 0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; there are: {', '.join(there[:20])}{', …' if len(there) > 20 else ''}"


def _escaped(character: str) -> str:
    return f"\\{character}" if character in '"\\' else ascii(character)[1:-1]

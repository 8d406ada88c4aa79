"""Refusals and failures as HTTP has them: a status, the error as JSON, and the headers that belong
to it. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2
from starlette.responses import Response

from pvc.core.v1 import reason_pb2
from services.gateway.door import UNEXPLAINED, status_error
from services.gateway.json_answers import dumped, to_json
from services.gateway.proxy import DETAILS
from services.gateway.transcode import HTTP_STATUS
from services.mesh.errors import PvcError

JSON = "application/json"


class Refused(PvcError):
    """A refusal that HTTP has a status of its own for."""

    def __init__(
        self, http_status: int, reason: reason_pb2.Reason.ValueType, message: str, field: str = ""
    ) -> None:
        super().__init__(reason, message, field=field)
        self.http_status = http_status


def refusal(error: PvcError, headers: Mapping[str, str] | None = None) -> Response:
    """An error of ours as HTTP has it."""
    http_status = error.http_status if isinstance(error, Refused) else None
    return failure(error.to_status(), headers, http_status)


def failure(
    status: status_pb2.Status,
    headers: Mapping[str, str] | None = None,
    http_status: int | None = None,
) -> Response:
    """A status as HTTP has it."""
    code = http_status or HTTP_STATUS.get(status.code, 500)
    told = dict(headers or {})
    if code == 401:
        told["www-authenticate"] = "Bearer"
    if code in (429, 503):
        told["retry-after"] = str(_pause_s(status))
    return Response(dumped(to_json(status)), code, told, media_type=JSON)


def _pause_s(status: status_pb2.Status) -> int:
    """After how many seconds to ask again."""
    told = error_details_pb2.RetryInfo()
    pauses = [told.retry_delay.ToMilliseconds() for one in status.details if one.Unpack(told)]
    return math.ceil(max(pauses, default=1000) / 1000)


def status_of(error: grpc.aio.AioRpcError | PvcError) -> status_pb2.Status:
    """The Status that an error is, that a failed call carries, or one made from what it does
    carry."""
    if isinstance(error, PvcError):
        return error.to_status()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    if error.code() in UNEXPLAINED:
        return status_error(error).to_status()
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")


def reason_of(status: status_pb2.Status) -> str:
    """The reason that a Status carries: "NOT_FOUND"; "" for none."""
    told = error_details_pb2.ErrorInfo()
    return next((told.reason for detail in status.details if detail.Unpack(told)), "")

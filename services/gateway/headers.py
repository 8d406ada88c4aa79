"""What HTTP headers mean for a call: fields of its request, a deadline, a version that must be or
must not be the current one; and what an answer's headers say. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.gateway.failures import Refused
from services.gateway.json_form import invalid
from services.gateway.transcode import WHOLE, Route
from services.gateway.visit import Pair
from services.mesh.desk import MIN_REVISION, REVISION
from services.mesh.errors import PvcError, shown

PASSED = ("authorization", MIN_REVISION)
"""Headers that go through the door as metadata. Nothing else does."""
LAST_EVENT = "last-event-id"
"""What a browser sends when it opens a stream of events again."""
METADATA = "grpc-metadata-"
"""Before a header's name: it is metadata."""
TIMEOUT_MAX_S = 366 * 86400.0
"""More than gRPC can add to the time it is would be over at once."""
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")
JSON_TYPES = ("json", "x-www-form-urlencoded")
"""How types end that are taken for JSON. curl names the second one without being asked to."""


def metadata_of(headers: Iterable[tuple[str, str]]) -> Sequence[Pair]:
    """The metadata that goes through the door."""
    plain = [(name.lower().removeprefix(METADATA), value) for name, value in headers]
    return tuple((name, value) for name, value in plain if name in PASSED)


def timeout_of(header: str) -> float | None:
    """Seconds of a grpc-timeout header ("30S"), None when there is none. Raises INVALID_FIELD."""
    if not header:
        return None
    found = _TIMEOUT.fullmatch(header)
    if found is None:
        raise PvcError(
            reason_pb2.REASON_INVALID_FIELD,
            f"grpc-timeout is a number and one of H, M, S, m, u, n, like 30S, not {shown(header)}",
        )
    return min(int(found.group(1)) * _UNITS_S[found.group(2)], TIMEOUT_MAX_S)


def fill(message: Any, route: Route, headers: Mapping[str, str]) -> None:
    """Puts into a request what the headers say of it. Raises INVALID_FIELD when the request says
    something else."""
    if "if-match" in headers:
        _fill_etag(message, route, headers["if-match"])
    fields = message.DESCRIPTOR.fields_by_name
    if "request_id" in fields:
        _fill_request_id(message, headers)
    seen = headers.get(LAST_EVENT, "")
    if "from_revision" in fields and seen:
        message.from_revision = _revision(seen)  # newer than what the address says


def _revision(seen: str) -> int:
    if not (seen.isascii() and seen.isdigit() and len(seen) < 19):
        raise invalid("from_revision", f"in last-event-id is no id of our events: {shown(seen)}")
    return int(seen)


def fill_first(message: Any, headers: Mapping[str, str]) -> None:
    """Puts into the first request of a file's stream what the headers say of the file."""
    fields = message.DESCRIPTOR.fields_by_name
    length = headers.get("content-length", "")
    if "size_bytes" in fields and not message.size_bytes and length.isdigit():
        message.size_bytes = int(length)
    digest = _DIGEST.search(headers.get("content-digest", "") or headers.get("repr-digest", ""))
    if "sha256" in fields and not message.sha256 and digest is not None:
        try:
            message.sha256 = base64.b64decode(digest.group(1), validate=True).hex()
        except binascii.Error:
            raise invalid("sha256", "in the content-digest header is not base64") from None


def _fill_etag(message: Any, route: Route, header: str) -> None:
    if header.strip() == "*":
        return  # whatever there is: that there is something is asked of every change
    tags = _TAG.findall(header)
    holder = _etag_holder(message, route)
    if holder is None:
        raise invalid("", "takes no etag here: leave the if-match header out")
    if len(tags) != 1 or not _TAG.fullmatch(header.strip()):
        raise invalid("etag", f'is one etag in quotes in if-match, like "7", not {shown(header)}')
    if holder.etag and holder.etag != tags[0]:
        problem = f"is {shown(tags[0])} in if-match and {shown(holder.etag)} in the request"
        raise invalid("etag", problem)
    holder.etag = tags[0]


def _etag_holder(message: Any, route: Route) -> Any | None:
    """What has the field for the etag: the request itself, or the resource that its body is."""
    if "etag" in message.DESCRIPTOR.fields_by_name:
        return message
    if route.body in ("", WHOLE) or route.raw_body:
        return None
    resource = getattr(message, route.body)
    there = "meta" in resource.DESCRIPTOR.fields_by_name
    return resource.meta if there else None


def _fill_request_id(message: Any, headers: Mapping[str, str]) -> None:
    """An idempotency-key is the request's id; an x-request-id is when nothing else says one, for
    proxies set that by themselves."""
    key = headers.get("idempotency-key", "").strip().strip('"')
    if key and message.request_id and message.request_id != key:
        problem = (
            f"is {shown(key)} in idempotency-key and {shown(message.request_id)} in the request"
        )
        raise invalid("request_id", problem)
    message.request_id = message.request_id or key or headers.get("x-request-id", "")


def check_content_type(header: str, *, raw: bool) -> None:
    """Refuses a body of another type than the route takes, with 415. Raises Refused."""
    kind = header.partition(";")[0].strip().lower()
    if raw or not kind or kind.endswith(JSON_TYPES):
        return
    raise Refused(
        415,
        reason_pb2.REASON_NOT_SUPPORTED,
        f"the body is to be JSON, not {shown(kind)}: send it as content-type: application/json",
    )


def check_coding(header: str) -> None:
    """Refuses a body that is packed, with 415. Raises Refused."""
    if header.strip().lower() not in ("", "identity"):
        raise Refused(
            415,
            reason_pb2.REASON_NOT_SUPPORTED,
            f"the body is packed ({shown(header)}): send it as it is",
        )


def etag_of(message: Message) -> str:
    """The etag header of a resource: its etag in quotes; "" for what has none."""
    meta = getattr(message, "meta", None)
    etag = getattr(meta, "etag", "")
    return f'"{etag}"' if etag else ""


def is_known(etag: str, header: str) -> bool:
    """Whether the caller has this version already, as its if-none-match header says."""
    return bool(etag) and (header.strip() == "*" or etag.strip('"') in _TAG.findall(header))


def told(trailing: Sequence[Pair]) -> dict[str, str]:
    """What a service said beside its answer, as headers, also under grpc-gateway's name."""
    revision = {str(key): str(value) for key, value in trailing if key == REVISION}
    return revision | {f"{METADATA}{key}": value for key, value in revision.items()}

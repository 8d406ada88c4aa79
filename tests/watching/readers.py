"""The ways in which a watch can be read: gRPC as it is, the Python client, and REST as lines of
JSON or as server-sent events. All give the same Seen; a refusal is a Broken with its reason."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import grpc
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from pvc_client import Cluster
from pvc_client.errors import PvcError
from services.gateway.proxy import DETAILS
from services.mesh.desk import MIN_REVISION
from tests.watching.histories import Asked, Seen

TIMEOUT_S = 60.0
NOBODY = "UNREACHABLE"
"""What a reader makes of a door that is shut, where nobody is to say it."""


class Broken(Exception):
    """The stream ended with an error. status: its gRPC code or HTTP status where there is one."""

    def __init__(self, reason: str, message: str, status: object = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason, self.message, self.status = reason, message, status


class Stream(Protocol):
    """What comes, one by one. Raises Broken, StopIteration at an end without a word."""

    def __next__(self) -> Seen: ...

    def close(self) -> None: ...


class Place(Protocol):
    """Where the doors are."""

    @property
    def grpc_address(self) -> str: ...

    @property
    def rest_url(self) -> str: ...


class ByGrpc:
    """The generated stub, and nothing else."""

    def __init__(self, place: Place, token: str, asked: Asked) -> None:
        self._channel = grpc.insecure_channel(place.grpc_address)
        metadata = (("authorization", f"Bearer {token}"), (MIN_REVISION, str(asked.at_least)))
        stub = api_grpc.VmServiceStub(self._channel)
        self._call = stub.WatchVms(_request(asked), metadata=metadata, timeout=TIMEOUT_S)

    def __next__(self) -> Seen:
        try:
            return _seen(next(self._call))
        except grpc.RpcError as error:
            code: Any = error.code()  # type: ignore[attr-defined]
            if code == grpc.StatusCode.UNAVAILABLE and not _reason(self._call)[0]:
                raise Broken(NOBODY, self._call.details(), code) from None
            raise Broken(*_reason(self._call), code) from None

    def close(self) -> None:
        self._call.cancel()
        self._channel.close()


class ByClient:
    """The Python client, which takes broken streams up again by itself."""

    def __init__(self, place: Place, token: str, asked: Asked) -> None:
        self._cluster = Cluster(place.grpc_address, token=token)
        self._cluster.transport.saw(asked.at_least)
        self._changes = self._cluster.vms.watch(
            filter=asked.filter, read_mask=asked.mask, from_revision=asked.from_revision
        )

    def __next__(self) -> Seen:
        try:
            change = next(self._changes)
        except PvcError as error:
            raise Broken(error.reason, error.message) from None
        return Seen(change.kind, change.resource, change.revision)

    def close(self) -> None:
        self._changes.close()
        self._cluster.close()


class ByLines:
    """REST, a line for each change."""

    accept = "application/json"

    def __init__(self, place: Place, token: str, asked: Asked) -> None:
        host = place.rest_url.removeprefix("http://")
        self._connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
        headers = {"authorization": f"Bearer {token}", "accept": self.accept}
        headers[MIN_REVISION] = str(asked.at_least)
        try:
            self._connection.request("GET", f"/v1/vms:watch?{_query(asked)}", headers=headers)
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Broken(NOBODY, str(error)) from None
        if self._response.status != 200:
            status = self._response.status
            raise Broken(*_said(json.loads(self._response.read())), status)

    def __next__(self) -> Seen:
        line = self._line()
        if not line:
            raise StopIteration
        found = json.loads(line)
        if "error" in found:
            raise Broken(*_said(found["error"]), found["error"]["code"])
        answer: Any = json_format.ParseDict(found["result"], api.WatchVmsResponse())
        return _seen(answer)

    def _line(self) -> bytes:
        return self._response.readline()

    def close(self) -> None:
        self._connection.close()


class ByEvents(ByLines):
    """REST, as browsers have it."""

    accept = "text/event-stream"

    def _line(self) -> bytes:
        while line := self._response.readline():
            if line.startswith(b"data: "):
                return line.removeprefix(b"data: ")
        return b""


WAYS: Mapping[str, type[ByGrpc] | type[ByClient] | type[ByLines] | type[ByEvents]] = {
    "gRPC": ByGrpc,
    "client": ByClient,
    "NDJSON": ByLines,
    "SSE": ByEvents,
}


def _request(asked: Asked) -> api.WatchVmsRequest:
    mask = FieldMask(paths=asked.mask)
    return api.WatchVmsRequest(
        filter=asked.filter, read_mask=mask, from_revision=asked.from_revision
    )


def _query(asked: Asked) -> str:
    words = {"filter": asked.filter, "readMask": ",".join(asked.mask)}
    if asked.from_revision:
        words["fromRevision"] = str(asked.from_revision)
    return urlencode({key: value for key, value in words.items() if value})


def _seen(answer: Any) -> Seen:
    return Seen(answer.kind, answer.vm if answer.HasField("vm") else None, answer.revision)


def _reason(call: Any) -> tuple[str, str]:
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS:
            status = status_pb2.Status.FromString(value)
            told = error_details_pb2.ErrorInfo()
            for detail in status.details:
                if detail.Unpack(told):
                    return told.reason, status.message
    return "", call.details()


def _said(status: Any) -> tuple[str, str]:
    reasons = [detail["reason"] for detail in status.get("details", ()) if "reason" in detail]
    return (reasons or [""])[0], status["message"]


def everything(stream: Stream) -> Iterator[Seen]:
    """What comes until it breaks off."""
    while True:
        try:
            yield next(stream)
        except StopIteration:
            return

"""The ways into a PVC for any request of any method: gRPC, and REST as the contract's http rule has
it. Both give answers as messages and raise the client's errors."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import grpc
from google.protobuf import json_format
from google.rpc import status_pb2
from websockets.sync.client import connect

from pvc.core.v1.operation_pb2 import Operation
from pvc_client.errors import from_rpc, from_status
from services.gateway.methods import METHODS, Method
from tests.contract.whole import Whole

PUBLIC = {method.short: method for method in METHODS.values() if not method.internal}
"""Every method that the gateway lets in: "VmService/GetVm"."""
CALL_S = 60.0


def takes(method: Method, field: str) -> bool:
    """Whether requests of the method have a field of that name."""
    return field in method.request.DESCRIPTOR.fields_by_name


class Grpc:
    """The gRPC door, past the client's own verbs."""

    def __init__(self, whole: Whole, name: str = "eve") -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{whole.doors.grpc_port}")
        self._metadata = (("authorization", f"Bearer {whole.secrets[name]}"),)

    def __enter__(self) -> Grpc:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def ask(self, method: Method, request: Any) -> Any:
        """The answer; the answers as a list for a method that streams them, up to the first
        bookmark of a watch."""
        kind = f"{_streams(method.client_streaming)}_{_streams(method.server_streaming)}"
        call = getattr(self._channel, kind)(
            method.path, lambda asked: asked.SerializeToString(), method.response.FromString
        )
        leaving = threading.Event()
        stays = method.client_streaming and method.server_streaming
        asked = _sent(request, leaving if stays else None) if method.client_streaming else request
        try:
            answer = call(asked, timeout=CALL_S, metadata=self._metadata)
            if not method.server_streaming:
                return answer
            found = list(_until_bookmark(answer))
            answer.cancel()
            return found
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        finally:
            leaving.set()


class Rest:
    """The REST door."""

    def __init__(self, whole: Whole, name: str = "eve") -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", whole.doors.rest_port, timeout=CALL_S
        )
        self._token = whole.secrets[name]

    def __enter__(self) -> Rest:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def ask(self, method: Method, request: Any) -> Any:
        """As Grpc.ask."""
        if method.client_streaming and method.server_streaming:
            return list(_until_bookmark(self._talked(method, request)))
        if method.client_streaming:
            response = self.raw(*streamed_call(method, request))
        else:
            response = self.raw(*rest_call(method, request))
        if not method.server_streaming:
            return json_format.Parse(response.read(), method.response())
        found = list(_until_bookmark(_lines(response, method)))
        self._connection.close()
        return found

    def _talked(self, method: Method, requests: Any) -> Iterator[Any]:
        """Both ways at once: over a WebSocket."""
        _, path, body = streamed_call(method, requests)
        headers = {"authorization": f"Bearer {self._token}"}
        url = f"ws://127.0.0.1:{self._connection.port}{path}"
        with connect(url, additional_headers=headers) as socket:
            for line in str(body).splitlines():
                socket.send(line)
            yield from _told(socket, method)

    def raw(self, verb: str, path: str, body: str | None) -> http.client.HTTPResponse:
        """Any HTTP call's answer. Raises the error that a failed one carries."""
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        self._connection.request(verb, path, body, headers)
        response = self._connection.getresponse()
        if response.status >= 400:
            raise from_status(json_format.Parse(response.read(), status_pb2.Status()))
        return response


def rest_call(method: Method, request: Any) -> tuple[str, str, str | None]:
    """Verb, path with query, and body, which the http rule of the method makes of a request."""
    assert method.http is not None
    verb = str(method.http.WhichOneof("pattern"))
    fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    template = getattr(method.http, verb)
    path = re.sub(r"\{([\w.]+)(=[^}]*)?\}", lambda found: _taken(fields, found[1]), template)
    body: str | None = None
    if method.http.body == "*":
        body, fields = json.dumps(fields), {}
    elif method.http.body:
        body = json.dumps(fields.pop(method.http.body))
    query = urlencode(list(_flat(fields, "")))
    return verb.upper(), f"{path}?{query}" if query else path, body


def streamed_call(method: Method, requests: Any) -> tuple[str, str, str | None]:
    """As rest_call, of the requests of a stream: a JSON object a line. The first one is what the
    path says, and has the path's field empty."""
    first, *more = list(requests)
    verb, path, body = rest_call(method, first)
    lines = [json.dumps(json_format.MessageToDict(one)) for one in more]
    return verb, path, "\n".join([str(body), *lines])


def ended(whole: Whole, answer: Any) -> Any:
    """An answer that is an operation, once that has succeeded; any other at once."""
    if not isinstance(answer, Operation):
        return answer
    row = whole.ended(answer.name)
    assert row.state == Operation.STATE_SUCCEEDED, row.error
    return row


def _streams(yes: bool) -> str:
    return "stream" if yes else "unary"


def _sent(requests: Any, leaving: threading.Event | None) -> Iterator[Any]:
    """The requests of a stream, which stays open until the caller leaves."""
    yield from requests
    if leaving is not None:
        leaving.wait(CALL_S)


def _until_bookmark(answers: Iterator[Any]) -> Iterator[Any]:
    for answer in answers:
        yield answer
        if getattr(answer, "kind", 0) == 5:
            return
        if answer.DESCRIPTOR.name == "AttachConsoleResponse":
            return


def _lines(response: http.client.HTTPResponse, method: Method) -> Iterator[Any]:
    return _told(response, method)


def _told(lines: Any, method: Method) -> Iterator[Any]:
    for line in lines:
        told = json.loads(line)
        if "error" in told:
            raise from_status(json_format.ParseDict(told["error"], status_pb2.Status()))
        yield json_format.ParseDict(told["result"], method.response())


def _taken(fields: dict[str, Any], path: str) -> str:
    *outer, last = path.split(".")
    for step in outer:
        fields = fields[step]
    return quote(str(fields.pop(last)), safe="/")


def _flat(fields: dict[str, Any], inside: str) -> Iterator[tuple[str, str]]:
    for key, value in fields.items():
        match value:
            case dict():
                yield from _flat(value, f"{inside}{key}.")
            case list():
                yield from ((f"{inside}{key}", str(one)) for one in value)
            case bool():
                yield f"{inside}{key}", str(value).lower()
            case _:
                yield f"{inside}{key}", str(value)

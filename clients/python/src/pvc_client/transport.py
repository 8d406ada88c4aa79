"""One connection to a cluster: credentials, deadlines, safe retries, own writes read back, errors
as classes.

Knows nothing of what the calls mean.
"""

from __future__ import annotations

import ipaddress
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from pvc_client.errors import Unavailable, from_rpc

R = TypeVar("R", bound=Message)

TIMEOUT_S = 60.0
"""Deadline of a call that does not stream."""
TRIES = 5
RETRY_FIRST_S = 0.1
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
MIN_REVISION = "pvc-min-revision"
REVISION = "pvc-revision"


class Transport:
    """A channel and what goes with every call on it. May be used by several threads."""

    def __init__(
        self, address: str, token: str = "", ca: str | Path | None = None, timeout_s: float = 0
    ) -> None:
        """See Cluster."""
        self.address = address
        self.timeout_s = timeout_s or TIMEOUT_S
        self.channel = _channel(address, ca)
        self._token = token
        self._lock = threading.Lock()
        self._revision = 0

    def close(self) -> None:
        """Ends all calls."""
        self.channel.close()

    def unary(self, method: Any, request: Message, response: type[R], timeout_s: float = 0) -> R:
        """Asks once and gets one answer; asks again when that is safe and may help. Raises
        PvcError.

        Every request that changes something gets a request_id, so a repeated one is done once.
        """
        _give_request_id(request)
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        for attempt in range(1, TRIES + 1):
            left_s = deadline - time.monotonic()
            try:
                return self._once(method, request, response, left_s)
            except Unavailable:
                pause_s = RETRY_FIRST_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
                if attempt == TRIES or time.monotonic() + pause_s > deadline:
                    raise
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def stream(
        self,
        method: Any,
        request: Message | Iterator[Message],
        response: type[R],
        timeout_s: float | None = None,
    ) -> ReplyStream[R]:
        """The answers of a call that streams them, as they come."""
        call = method(request, timeout=timeout_s, metadata=self._metadata())
        return ReplyStream(call, self.address, response)

    def send(self, method: Any, requests: Iterator[Message], response: type[R]) -> R:
        """Sends many messages and gets one answer. Never repeated: the messages are spent."""
        try:
            answer, call = method.with_call(requests, metadata=self._metadata())
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from None
        self._note_revision(call.trailing_metadata())
        assert isinstance(answer, response)
        return answer

    def _once(self, method: Any, request: Message, response: type[R], left_s: float) -> R:
        try:
            answer, call = method.with_call(
                request, timeout=max(left_s, 0.001), metadata=self._metadata()
            )
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from None
        self._note_revision(call.trailing_metadata())
        assert isinstance(answer, response)
        return answer

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        entries = []
        if self._token:
            entries.append(("authorization", f"Bearer {self._token}"))
        if self._revision:
            entries.append((MIN_REVISION, str(self._revision)))
        return tuple(entries)

    def saw(self, revision: int) -> None:
        """No answer may be older from now on, whichever process of the cluster gives it."""
        with self._lock:
            self._revision = max(self._revision, revision)

    def _note_revision(self, metadata: Iterable[Any] | None) -> None:
        for key, value in metadata or ():
            if key == REVISION and str(value).isdigit():
                self.saw(int(value))


class ReplyStream(Iterator[R]):
    """The answers of one streaming call; iterate it, or cancel it from any thread. Raises
    PvcError."""

    def __init__(self, call: Any, address: str, response: type[R]) -> None:
        self._call = call
        self._address = address
        self._response = response
        self._cancelled = False

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        try:
            answer = next(self._call)
        except grpc.RpcError as error:
            if self._cancelled:
                raise StopIteration from None
            raise from_rpc(error, self._address) from None
        assert isinstance(answer, self._response)
        return answer

    def cancel(self) -> None:
        """Ends the call; whoever iterates sees the end."""
        self._cancelled = True
        self._call.cancel()


def _give_request_id(request: Any) -> None:
    if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
        request.request_id = uuid.uuid4().hex


def is_loopback(address: str) -> bool:
    """Whether the address cannot be reached from another machine."""
    host = address.removeprefix("ipv4:").rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _channel(address: str, ca: str | Path | None) -> grpc.Channel:
    """TLS, but for a local socket, and for the loopback address when no CA is named."""
    options = (
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.enable_http_proxy", 0),
    )
    if ca is None and is_loopback(address):
        return grpc.insecure_channel(address, options)
    roots = Path(ca).read_bytes() if ca is not None else None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)

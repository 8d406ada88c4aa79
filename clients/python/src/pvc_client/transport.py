# Made from aio/transport.py by tools/sync_client.py: change that one.
"""One connection to a cluster: credentials, deadlines, safe retries, the next address when one does
not answer, own writes read back, errors as classes.

Knows nothing of what the calls mean.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pvc_client import wire
from pvc_client.addresses import is_loopback, root_certificates, split
from pvc_client.contract import ACCESS, Call, Method, give_request_id
from pvc_client.errors import (
    AccessRefused,
    Deadline,
    PvcError,
    RateLimited,
    StoreUnavailable,
    Unavailable,
    Unreachable,
    from_rpc,
    mention,
)

TIMEOUT_S = 60.0
"""Deadline of a call that does not stream."""
TRIES = 5
"""How often each address is asked."""
RETRY_FIRST_S = 0.1
ELSEWHERE = (Deadline, StoreUnavailable, Unreachable)
"""What another node may not have to say."""
MIN_REVISION = "pvc-min-revision"
REVISION = "pvc-revision"


class Transport:
    """Channels to the cluster's addresses, one of which is in use, and what goes with every call.

    Made anywhere; opens a channel when that is first used."""

    def __init__(
        self,
        address: str | Sequence[str],
        token: str = "",
        ca: str | Path | None = None,
        timeout_s: float = 0,
    ) -> None:
        """See Cluster."""
        self.addresses = split(address)
        self.timeout_s = timeout_s or TIMEOUT_S
        self._token = token
        self._roots = root_certificates(ca)
        self._lock = threading.Lock()
        self._channels: dict[str, Any] = {}
        self._at = 0
        self._revision = 0
        self._closed = False
        self.on_call: Callable[[Call], None] | None = None
        """Is told of every call, if somebody wants to see them."""

    @property
    def address(self) -> str:
        """The one in use."""
        return self.addresses[self._at]

    @property
    def channel(self) -> Any:
        """The grpc channel in use."""
        return self.channel_to(self.address)

    def channel_to(self, address: str) -> Any:
        """The channel to one of the addresses."""
        with self._lock:
            if self._closed:
                raise ValueError("the connection to the cluster is closed")
            if address not in self._channels:
                self._channels[address] = wire.open_channel(
                    address,
                    plain=self._roots is None and is_loopback(address),
                    roots=self._roots,
                    alone=len(self.addresses) == 1,
                )
            return self._channels[address]

    def leave(self, address: str, error: PvcError) -> None:
        """Goes on with the next address, if this one is in use and the error is the node's."""
        with self._lock:
            if isinstance(error, ELSEWHERE) and self.address == address:
                self._at = (self._at + 1) % len(self.addresses)

    def close(self) -> None:
        """Ends all calls."""
        with self._lock:
            self._closed = True
            channels = list(self._channels.values())
        for channel in channels:
            wire.close_channel(channel)

    def unary(self, method: Method, request: Any, timeout_s: float = 0) -> Any:
        """Asks once and gets one answer; asks again, and elsewhere, when that is safe and may help.
        Raises PvcError.

        Every request that changes something gets a request_id, so a repeated one is done once.
        """
        give_request_id(request)
        if not method.repeatable:
            self.settle()
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        for attempt in range(1, self._attempts + 1):
            address, left_s = self.address, deadline - time.monotonic()
            try:
                return self._once(address, method, request, left_s)
            except PvcError as error:
                self.leave(address, error)
                pause_s = self.pause_s(error, method, attempt)
                if pause_s is None or time.monotonic() + pause_s > deadline:
                    raise
            wire.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def stream(self, method: Method, request: Any, timeout_s: float | None = None) -> ReplyStream:
        """The answers of a call that streams them, as they come."""
        return ReplyStream(self, method, request, timeout_s)

    def send(self, method: Method, requests: Iterator[Any]) -> Any:
        """Sends many messages and gets one answer. Never repeated: the messages are spent."""
        self.settle()
        address, began = self.address, time.monotonic()
        try:
            answer, ended = wire.send(self.channel_to(address), method, requests, self.metadata())
        except wire.RpcError as rpc:
            error = from_rpc(rpc, address)
            self.leave(address, error)
            self.tell(address, method, None, began, error)
            raise error from None
        self.tell(address, method, None, began)
        self._note_revision(ended)
        return answer

    def settle(self) -> None:
        """Finds an address that answers, before a call that cannot be repeated at another one."""
        if len(self.addresses) > 1:
            with suppress(AccessRefused):
                self.unary(ACCESS["WhoAmI"], ACCESS["WhoAmI"].request())

    def _once(self, address: str, method: Method, request: Any, left_s: float) -> Any:
        channel, left_s = self.channel_to(address), max(left_s, 0.001)
        began = time.monotonic()
        try:
            answer, ended = wire.ask(channel, method, request, left_s, self.metadata())
        except wire.RpcError as rpc:
            error = from_rpc(rpc, address)
            self.tell(address, method, request, began, error)
            raise error from None
        except wire.Interrupted as stop:
            if not method.reads:
                mention(stop, _on_its_way(method, request))
            raise
        self._note_revision(ended)
        self.tell(address, method, request, began)
        return answer

    def tell(
        self,
        address: str,
        method: Method,
        request: Any,
        began: float,
        error: PvcError | None = None,
    ) -> None:
        """Tells whoever wants to know of a call that has ended."""
        if self.on_call is not None:
            outcome = "OK" if error is None else error.reason or type(error).__name__
            request_id = getattr(request, "request_id", "")
            took_s = time.monotonic() - began
            self.on_call(Call(method.path, address, request_id, took_s, outcome))

    @property
    def _attempts(self) -> int:
        return TRIES * len(self.addresses)

    def pause_s(self, error: PvcError, method: Method, attempt: int) -> float | None:
        """How long to wait before asking again; None when that is not safe, or of no use."""
        if attempt >= self._attempts:
            return None
        if isinstance(error, RateLimited):
            return error.retry_after_s  # it was not even looked at
        if not (method.repeatable and isinstance(error, Unavailable)):
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s
        rounds, others_left = divmod(attempt, len(self.addresses))
        return 0.0 if others_left else RETRY_FIRST_S * 2 ** (rounds - 1) * _chance(0.5, 1.0)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
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


class ReplyStream(Iterator[Any]):
    """The answers of one streaming call; iterate it, or cancel it from elsewhere. Raises PvcError.

    A call that only reads is begun again, at the next address, until its first answer came; one
    that sends a stream never is.
    """

    def __init__(
        self, transport: Transport, method: Method, request: Any, timeout_s: float | None
    ) -> None:
        self._transport = transport
        self._method = method
        self._request = request
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._attempt = 0
        self._cancelled = False
        self._begin()

    def _begin(self) -> None:
        self._attempt += 1
        self._began = time.monotonic()
        self._address = self._transport.address
        self._stream = wire.Stream(
            self._transport.channel_to(self._address),
            self._method,
            self._request,
            None if self._deadline is None else max(self._deadline - time.monotonic(), 0.001),
            self._transport.metadata(),
        )

    def __iter__(self) -> ReplyStream:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                answer = self._stream.next()
            except wire.RpcError as rpc:
                pause_s = self._pause_s(from_rpc(rpc, self._address))
            else:
                if self._attempt:
                    self._tell()
                self._attempt = 0
                return answer
            wire.sleep(pause_s)
            if self._cancelled:
                raise StopIteration
            self._begin()

    def _pause_s(self, error: PvcError) -> float:
        """How long to wait before the call is begun again. Raises the error when it is not."""
        if not self._cancelled:
            self._tell(error)
        self._transport.leave(self._address, error)
        pause_s = None
        if self._attempt and not self._method.client_streaming:
            pause_s = self._transport.pause_s(error, self._method, self._attempt)
        if pause_s is None:
            raise error
        return pause_s

    def _tell(self, error: PvcError | None = None) -> None:
        self._transport.tell(self._address, self._method, self._request, self._began, error)

    def cancel(self) -> None:
        """Ends the call; whoever iterates sees the end."""
        self._cancelled = True
        self._stream.cancel()


def _on_its_way(method: Method, request: Any) -> str:
    """What to say of a call that nobody waits for any more."""
    told = f"{method.short} was on its way and may be done"
    request_id = getattr(request, "request_id", "")
    return f"{told}; the same with request_id={request_id!r} is done once" if request_id else told


def _chance(least: float, most: float) -> float:
    from random import uniform

    return uniform(least, most)

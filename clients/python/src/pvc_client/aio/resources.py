"""What every collection of the cluster has in common: get, list and watch, derived from the
contract's names."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from google.protobuf.message import Message

from pvc_client.aio import wire
from pvc_client.aio.transport import AsyncReplyStream, AsyncTransport
from pvc_client.contract import (
    Change,
    Method,
    Options,
    Service,
    differences,
    filled,
    mask,
    message_field,
    repeated_field,
)
from pvc_client.errors import EtagMismatch, Unavailable
from pvc_client.names import full_name

R = TypeVar("R", bound=Message)

__all__ = ["AsyncChanges", "AsyncPages", "AsyncResources", "Change", "Options"]

PAGE_SIZE = 500
RECONNECT_S = 60.0
"""How long a cluster that does not answer is asked again, by those who follow something."""
RECONNECT_PAUSE_S = 0.5
CHANGE_TRIES = 10
BOOKMARK = 5
"""meta_pb2.CHANGE_KIND_BOOKMARK."""


class AsyncPages(AsyncIterator[R]):
    """Iterates a list across its pages, asking for each when it is needed.

    total_size and revision are those of the newest page, 0 before the first one is fetched.
    """

    def __init__(self, transport: AsyncTransport, method: Method, request: Any) -> None:
        self._transport = transport
        self._method = method
        self._request = request
        self._rows: Iterator[R] = iter(())
        self._last = False
        self.total_size = 0
        self.revision = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while True:
            for row in self._rows:
                return row
            if self._last:
                raise StopAsyncIteration
            await self._fetch()

    async def _fetch(self) -> None:
        page = await self._transport.unary(self._method, self._request)
        self._rows = iter(getattr(page, repeated_field(self._method.response)))
        self.total_size, self.revision = page.total_size, page.revision
        self._request.page_token = page.next_page_token
        self._last = not page.next_page_token


Mark = tuple[int, str, str]
"""Kind, name and etag of a change."""


class AsyncChanges(AsyncIterator[Change[R]]):
    """The stream of a watch: ordered, each change once. close() it from anywhere to end it, or use
    it as a context.

    Once the first bookmark has come, a broken stream is taken up where it broke off, for as long
    as RECONNECT_S without a word. Raises PvcError otherwise.
    """

    def __init__(
        self,
        open: Callable[[int], AsyncReplyStream],
        field: str,
        start: int,
        saw: Callable[[int], None],
    ) -> None:
        """open: begins a stream after a revision. start: where to begin, 0 with all there is. saw:
        is told of every revision that comes."""
        self._open = open
        self._saw = saw
        self._field = field
        self._stream = open(start)
        self._revision = 0
        """The newest revision seen; 0 while the stream could only be begun anew."""
        self._seen: set[Mark] = set()
        """What came at that revision: it may be a part of the commit after it."""
        self._told: set[Mark] = set()
        """What came before a break, and may come again after it."""
        self._complete = start > 0
        """What there was in the beginning has come."""
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[R]:
        while True:
            change = await self._next()
            mark = _mark(change)
            if mark in self._told:
                continue
            if change.revision > self._revision:
                self._revision, self._seen = change.revision, set()
            if mark is None:
                self._complete, self._told = True, set()
            elif mark[2]:
                self._seen.add(mark)
            return change

    async def _next(self) -> Change[R]:
        silent_since = time.monotonic()
        while True:
            try:
                answer = await anext(self._stream)
            except Unavailable:
                silent_s = time.monotonic() - silent_since
                if not self._complete or not self._revision or silent_s > RECONNECT_S:
                    raise
                await wire.sleep(RECONNECT_PAUSE_S)
                self._reopen()
                continue
            self._saw(answer.revision)
            resource = getattr(answer, self._field) if answer.HasField(self._field) else None
            return Change(answer.kind, resource, answer.revision)

    def _reopen(self) -> None:
        """From the newest revision: a commit of which a part came begins once more."""
        if not self._closed:
            self._told |= self._seen
            self._stream = self._open(self._revision)

    def close(self) -> None:
        """Ends the stream."""
        self._closed = True
        self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _mark(change: Change[Any]) -> Mark | None:
    """What tells a change from every other one of its stream, as long as the read_mask leaves the
    etag in: no row is changed twice at one version. None for a bookmark."""
    row: Any = change.resource
    return None if change.kind == BOOKMARK else (change.kind, row.name, row.meta.etag)


class AsyncResources(Generic[R]):
    """One collection. `path` are its collections: "vms", "pools/volumes"."""

    def __init__(
        self,
        transport: AsyncTransport,
        service: Service,
        kind: type[R],
        path: str,
        plural: str = "",
    ) -> None:
        self.transport = transport
        self.kind = kind
        self.path = path
        self._service = service
        self._one = kind.DESCRIPTOR.name
        self._many = plural or f"{self._one}s"

    def name(self, short: str) -> str:
        """The full name of one of these."""
        return full_name(self.path, short)

    async def get(self, name: str, read_mask: Sequence[str] = ()) -> R:
        """One of them. Raises NotFound."""
        method = self._service[f"Get{self._one}"]
        found: R = await self._ask(method, name=self.name(name), read_mask=mask(read_mask))
        return found

    def list(
        self,
        *,
        parent: str = "",
        filter: str = "",
        order_by: str = "",
        read_mask: Sequence[str] = (),
        page_size: int = PAGE_SIZE,
    ) -> AsyncPages[R]:
        """Those that match, fetched page by page while iterating. parent: for those inside
        others."""
        method = self._service[f"List{self._many}"]
        request = self._asking(method, parent, filter, read_mask)
        request.page_size, request.order_by = page_size, order_by
        return AsyncPages(self.transport, method, request)

    def watch(
        self,
        *,
        parent: str = "",
        filter: str = "",
        from_revision: int = 0,
        read_mask: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> AsyncChanges[R]:
        """Those that match as they are, then every change; with from_revision only what came after
        it."""
        method = self._service[f"Watch{self._many}"]
        request = self._asking(method, parent, filter, read_mask)

        def open(after: int) -> AsyncReplyStream:
            request.from_revision = after
            return self.transport.stream(method, request, timeout_s)

        field = message_field(method.response)
        return AsyncChanges(open, field, from_revision, self.transport.saw)

    async def _ask(self, method: Method, options: Options | None = None, /, **fields: Any) -> Any:
        """The answer to a request of these fields; those that are None stay unset."""
        return await self.transport.unary(method, filled(method.request(**fields), options or {}))

    def _asking(self, method: Method, parent: str, filter: str, read_mask: Sequence[str]) -> Any:
        request = method.request(filter=filter, read_mask=mask(read_mask))
        if "parent" in request.DESCRIPTOR.fields_by_name:
            outer = self.path.rpartition("/")[0]
            request.parent = full_name(outer, parent or "/".join("-" for _ in outer.split("/")))
        return request

    async def _changed(self, name: str, change: Callable[[R], object], update: Any) -> Any:
        """What `update` gives for a resource that was read and changed, and for one that was read
        again when somebody else was quicker."""
        for attempt in range(1, CHANGE_TRIES + 1):
            read = await self.get(name)
            wanted = type(read)()
            wanted.CopyFrom(read)
            change(wanted)
            paths = tuple(differences(read, wanted)) or ("meta.labels",)  # which are as they were
            try:
                return await update(wanted, paths)
            except EtagMismatch:
                if attempt == CHANGE_TRIES:
                    raise
        raise AssertionError("the last try returns or raises")

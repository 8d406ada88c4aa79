"""What every collection of the cluster has in common: get, list and watch, derived from the
contract's names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypedDict, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.core.v1 import meta_pb2
from pvc_client.errors import Unavailable
from pvc_client.names import full_name
from pvc_client.transport import ReplyStream, Transport

R = TypeVar("R", bound=Message)

PAGE_SIZE = 500
RECONNECT_S = 60.0
"""How long a cluster that does not answer is asked again, by those who follow something."""
RECONNECT_PAUSE_S = 0.5


class Options(TypedDict, total=False):
    """What every change may be given."""

    etag: str
    """Only if the resource is still as it was read with this etag."""
    request_id: str
    """Made by the client unless given; the same one twice is done once."""
    validate_only: bool
    """Check everything, change nothing."""


@dataclass(frozen=True, slots=True)
class Change(Generic[R]):
    """What a watch tells."""

    kind: meta_pb2.ChangeKind.ValueType
    resource: R | None
    """As it is after the change, as it last was when it was deleted; None in a bookmark."""
    revision: int
    """Resume after this one."""


class Pages(Iterator[R]):
    """Iterates a list across its pages, asking for each when it is needed.

    total_size and revision are those of the newest page, 0 before the first one is fetched.
    """

    def __init__(
        self, transport: Transport, method: Any, request: Any, response: type[Any]
    ) -> None:
        self._transport = transport
        self._method = method
        self._request = request
        self._response = response
        self._rows: Iterator[R] = iter(())
        self._last = False
        self.total_size = 0
        self.revision = 0

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        while True:
            for row in self._rows:
                return row
            if self._last:
                raise StopIteration
            self._fetch()

    def _fetch(self) -> None:
        page = self._transport.unary(self._method, self._request, self._response)
        self._rows = iter(getattr(page, repeated_field(self._response)))
        self.total_size, self.revision = page.total_size, page.revision
        self._request.page_token = page.next_page_token
        self._last = not page.next_page_token


Mark = tuple[int, str, str]
"""Kind, name and etag of a change."""


class Changes(Iterator[Change[R]]):
    """The stream of a watch: ordered, each change once. close() it from any thread to end it.

    Once the first bookmark has come, a broken stream is taken up where it broke off, for as long
    as RECONNECT_S without a word. Raises PvcError otherwise.
    """

    def __init__(
        self,
        open: Callable[[int], ReplyStream[Any]],
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

    def __iter__(self) -> Iterator[Change[R]]:
        return self

    def __next__(self) -> Change[R]:
        while True:
            change = self._next()
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

    def _next(self) -> Change[R]:
        silent_since = time.monotonic()
        while True:
            try:
                answer = next(self._stream)
            except Unavailable:
                silent_s = time.monotonic() - silent_since
                if not self._complete or not self._revision or silent_s > RECONNECT_S:
                    raise
                time.sleep(RECONNECT_PAUSE_S)
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


def _mark(change: Change[Any]) -> Mark | None:
    """What tells a change from every other one of its stream, as long as the read_mask leaves the
    etag in: no row is changed twice at one version. None for a bookmark."""
    row: Any = change.resource
    if change.kind == meta_pb2.CHANGE_KIND_BOOKMARK:
        return None
    return change.kind, row.name, row.meta.etag


class Resources(Generic[R]):
    """One collection. `path` are its collections: "vms", "pools/volumes"."""

    def __init__(
        self,
        transport: Transport,
        stub: Any,
        messages: ModuleType,
        kind: type[R],
        path: str,
        plural: str = "",
    ) -> None:
        self.transport = transport
        self.kind = kind
        self.path = path
        self._stub = stub
        self._messages = messages
        self._one = kind.DESCRIPTOR.name
        self._many = plural or f"{self._one}s"

    def name(self, short: str) -> str:
        """The full name of one of these."""
        return full_name(self.path, short)

    def get(self, name: str, read_mask: Sequence[str] = ()) -> R:
        """One of them. Raises NotFound."""
        request = self._message(f"Get{self._one}Request")(name=self.name(name))
        request.read_mask.CopyFrom(FieldMask(paths=read_mask))
        return self.transport.unary(getattr(self._stub, f"Get{self._one}"), request, self.kind)

    def list(
        self,
        *,
        parent: str = "",
        filter: str = "",
        order_by: str = "",
        read_mask: Sequence[str] = (),
        page_size: int = PAGE_SIZE,
    ) -> Pages[R]:
        """Those that match, fetched page by page while iterating. parent: for those inside
        others."""
        request = self._asking("List", parent, filter, read_mask)
        request.page_size, request.order_by = page_size, order_by
        response = self._message(f"List{self._many}Response")
        return Pages(self.transport, getattr(self._stub, f"List{self._many}"), request, response)

    def watch(
        self,
        *,
        parent: str = "",
        filter: str = "",
        from_revision: int = 0,
        read_mask: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> Changes[R]:
        """Those that match as they are, then every change; with from_revision only what came after
        it."""
        request = self._asking("Watch", parent, filter, read_mask)
        response = self._message(f"Watch{self._many}Response")
        method = getattr(self._stub, f"Watch{self._many}")

        def open(after: int) -> ReplyStream[Any]:
            request.from_revision = after
            return self.transport.stream(method, request, response, timeout_s)

        field = next(f.name for f in response.DESCRIPTOR.fields if f.message_type)
        return Changes(open, field, from_revision, self.transport.saw)

    def _asking(self, verb: str, parent: str, filter: str, read_mask: Sequence[str]) -> Any:
        request = self._message(f"{verb}{self._many}Request")(filter=filter)
        if "parent" in request.DESCRIPTOR.fields_by_name:
            outer = self.path.rpartition("/")[0]
            request.parent = full_name(outer, parent or "/".join("-" for _ in outer.split("/")))
        request.read_mask.CopyFrom(FieldMask(paths=read_mask))
        return request

    def _message(self, name: str) -> Any:
        return getattr(self._messages, name)


def repeated_field(response: type[Message]) -> str:
    """The name of the list in a List answer."""
    return next(f.name for f in response.DESCRIPTOR.fields if f.is_repeated)


def filled(request: R, options: Options) -> R:
    """The request with the options that were given. Raises TypeError for one that it does not
    have."""
    for key, value in options.items():
        if key not in request.DESCRIPTOR.fields_by_name:
            raise TypeError(f"{request.DESCRIPTOR.name} has no {key}")
        setattr(request, key, value)
    return request

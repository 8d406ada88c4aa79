# Made from aio/console.py by tools/sync_client.py: change that one.
"""A VM's serial console as an object: read, write, close."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pvc_client import wire
from pvc_client.contract import Method
from pvc_client.transport import ReplyStream, Transport

WRITE_BYTES_MAX = 65536


class Console:
    """Attached from the first read or write on, or where the context begins, until close. One may
    read while another writes."""

    def __init__(self, transport: Transport, method: Method, vm: str, *, force: bool) -> None:
        self._transport = transport
        self._method = method
        self._first = method.request(name=vm, force=force)
        self._typed: wire.Queue[bytes | None] = wire.Queue()
        self._answers: ReplyStream | None = None
        self._closed = False

    def read(self) -> bytes:
        """What the guest wrote, as soon as there is something; b"" once the console is closed.

        Raises PvcError when it breaks off or another client took it over.
        """
        if self._answers is None:
            self._transport.settle()
        for answer in self._attached():
            if answer.data:
                return bytes(answer.data)
        return b""

    def write(self, typed: bytes) -> None:
        """Sends what is typed. Does not wait."""
        for start in range(0, len(typed), WRITE_BYTES_MAX):
            self._typed.put(typed[start : start + WRITE_BYTES_MAX])
        self._attached()

    def close(self) -> None:
        """Detaches; a reader sees the end. May be called again, from anywhere."""
        self._closed = True
        self._typed.put(None)
        if self._answers is not None:
            self._answers.cancel()

    def _attached(self) -> ReplyStream:
        if self._answers is None:
            self._answers = self._transport.stream(self._method, self._requests())
            if self._closed:
                self._answers.cancel()
        return self._answers

    def _requests(self) -> Iterator[Any]:
        yield self._first
        while (typed := self._typed.get()) is not None:
            yield self._method.request(data=typed)

    def __enter__(self) -> Self:
        self._transport.settle()
        self._attached()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

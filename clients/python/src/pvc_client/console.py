"""A VM's serial console as an object: read, write, close."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pvc.compute.v1 import vm_service_pb2 as pb
from pvc_client.transport import Transport

WRITE_BYTES_MAX = 65536


class Console:
    """Attached from the first read or write on until close. One thread may read while another
    writes."""

    def __init__(self, transport: Transport, method: Any, vm: str, *, force: bool) -> None:
        self._typed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        first = pb.AttachConsoleRequest(name=vm, force=force)
        self._answers = transport.stream(method, self._requests(first), pb.AttachConsoleResponse)

    def read(self) -> bytes:
        """What the guest wrote, as soon as there is something; b"" once the console is closed.

        Raises PvcError when it breaks off or another client took it over.
        """
        for answer in self._answers:
            if answer.data:
                return bytes(answer.data)
        return b""

    def write(self, typed: bytes) -> None:
        """Sends what is typed. Does not wait."""
        for start in range(0, len(typed), WRITE_BYTES_MAX):
            self._typed.put(typed[start : start + WRITE_BYTES_MAX])

    def close(self) -> None:
        """Detaches; a reader sees the end. May be called again, from any thread."""
        self._typed.put(None)
        self._answers.cancel()

    def _requests(self, first: pb.AttachConsoleRequest) -> Iterator[pb.AttachConsoleRequest]:
        yield first
        while (typed := self._typed.get()) is not None:
            yield pb.AttachConsoleRequest(data=typed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

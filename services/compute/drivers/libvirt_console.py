"""A serial console over libvirt's stream. It holds what the guest writes until somebody reads it,
and stops taking more when nobody does.
"""

from __future__ import annotations

import threading

import libvirt

from pvc.core.v1 import reason_pb2
from services.compute.drivers.libvirt_link import Link
from services.mesh.errors import PvcError

HELD_MAX_BYTES = 1 << 20
WRITE_DEADLINE_S = 10.0
CLOSE_DEADLINE_S = 5.0
_CHUNK_BYTES = 65536
_ENDS = libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR
_WOULD_BLOCK = -2


class StreamConsole:
    """Implements Console. One reader, one writer, from any threads."""

    def __init__(self, link: Link, stream: libvirt.virStream) -> None:
        self._link = link
        self._stream = stream
        self._changed = threading.Condition()
        self._held = bytearray()
        self._ended = False
        self._closed = False
        self._listening = libvirt.VIR_STREAM_EVENT_READABLE | _ENDS
        stream.eventAddCallback(self._listening, self._happened, None)
        link.on_loss(self._lost)

    def read(self, timeout_s: float) -> bytes | None:
        """See Console."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._ended, timeout_s)
            if not self._held:
                return None if self._ended else b""
            told = bytes(self._held)
            self._held.clear()
            self._listen(self._listening | libvirt.VIR_STREAM_EVENT_READABLE)
        return told

    def write(self, data: bytes) -> None:
        """See Console. Raises DEADLINE when the guest's port takes nothing for too long."""
        left = memoryview(data)
        while left:
            with self._changed:
                sent = self._send(bytes(left[:_CHUNK_BYTES]))
                if sent == _WOULD_BLOCK:
                    self._listen(self._listening | libvirt.VIR_STREAM_EVENT_WRITABLE)
                    if not self._changed.wait(WRITE_DEADLINE_S):
                        raise PvcError(
                            reason_pb2.REASON_DEADLINE, "the guest's console takes no input"
                        )
                    continue
            left = left[sent:]

    def close(self) -> None:
        """See Console."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            ended, self._ended = self._ended, True
            self._changed.notify_all()
        self._link.forget_loss_listener(self._lost)
        self._link.run("close a console", lambda: _leave(self._stream, ended), CLOSE_DEADLINE_S)

    def _send(self, data: bytes) -> int:
        if self._ended:
            raise PvcError(reason_pb2.REASON_WRONG_STATE, "the console has ended; open it again")
        try:
            return int(self._stream.send(data))
        except libvirt.libvirtError as error:
            self._end()
            raise PvcError(
                reason_pb2.REASON_WRONG_STATE, f"the console has ended: {error}"
            ) from error

    def _happened(self, stream: libvirt.virStream, events: int, opaque: object) -> None:
        """From libvirt's event thread."""
        with self._changed:
            if events & libvirt.VIR_STREAM_EVENT_WRITABLE:
                self._listen(self._listening & ~libvirt.VIR_STREAM_EVENT_WRITABLE)
            if events & libvirt.VIR_STREAM_EVENT_READABLE and not self._ended:
                self._receive()
            if events & _ENDS:
                self._end()
            self._changed.notify_all()

    def _lost(self) -> None:
        """The connection broke: libvirt does not tell the stream."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _receive(self) -> None:
        try:
            told = self._stream.recv(_CHUNK_BYTES)
        except libvirt.libvirtError:
            self._end()
            return
        if told == _WOULD_BLOCK:
            return
        if not told:
            self._end()
            return
        self._held += told
        if len(self._held) >= HELD_MAX_BYTES:
            self._listen(self._listening & ~libvirt.VIR_STREAM_EVENT_READABLE)

    def _end(self) -> None:
        """The other side ended: nothing more is to be heard."""
        if not self._ended:
            self._ended = True
            self._listening = 0
            self._stream.eventRemoveCallback()

    def _listen(self, events: int) -> None:
        if not self._ended and events != self._listening:
            self._listening = events
            self._stream.eventUpdateCallback(events)


def _leave(stream: libvirt.virStream, ended: bool) -> None:
    try:
        if not ended:
            stream.eventRemoveCallback()
        stream.abort()
    except libvirt.libvirtError:
        # It ended in the same moment, by itself or with the connection: as wished.
        return

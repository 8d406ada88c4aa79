"""A TCP relay between a store and ZooKeeper that can be cut at a chosen moment or made to stall."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from enum import Enum, auto

_MULTI = 14


class Cut(Enum):
    """Where the wire breaks at the next transaction."""

    BEFORE = auto()
    """The server never gets it."""
    AFTER = auto()
    """The server carries it out, and its answer is lost."""


class Wire:
    """Listens on `address` and relays to a server, one thread per direction and connection."""

    def __init__(self, server: str) -> None:
        host, port = server.split(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut: Cut | None = None
        self._stalls = False
        self._cuts = threading.Semaphore(0)
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._mute: socket.socket | None = None
        self._awaited = b""
        self._answered = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """What the store connects to."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def used(self) -> bool:
        """Somebody is connected by it."""
        return bool(self._open)

    def cut_at_next_transaction(self, cut: Cut, stall: bool = False) -> None:
        """Breaks the connection once, at the next multi that a client sends. stall: whoever
        connects anew hears nothing until `flow`."""
        self._stalls = stall
        self._cut = cut

    def wait_cut(self) -> None:
        """Returns when it was cut."""
        assert self._cuts.acquire(timeout=60)

    def stall(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._flowing.clear()

    def flow(self) -> None:
        """Ends a stall: what was held back passes now."""
        self._flowing.set()

    def close(self) -> None:
        """Ends all connections."""
        self._listener.close()
        self._flowing.set()
        for end in list(self._open):
            self._shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server, 5)
        except OSError:
            self._shut(client)
            return
        self._open |= {client, server}
        back = threading.Thread(target=self._relay_back, args=(server, client), daemon=True)
        back.start()
        try:
            while frame := _frame(client):
                self._flowing.wait()
                if _kind(frame) == _MULTI and self._cut is not None:
                    self._break(frame, server)
                    break
                server.sendall(frame)
        except OSError:
            pass  # One end closed: the other is closed below.
        finally:
            self._shut(client)
            self._shut(server)

    def _break(self, frame: bytes, server: socket.socket) -> None:
        cut, self._cut = self._cut, None
        if cut is Cut.AFTER:
            self._answered.clear()
            self._awaited = frame[4:8]
            self._mute = server
            server.sendall(frame)
            # The answer is read by the other direction and thrown away there.
            assert self._answered.wait(60)
        if self._stalls:
            self.stall()
        self._cuts.release()

    def _relay_back(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while frame := _frame(server):
                self._flowing.wait()
                if self._mute is server:
                    if frame[4:8] == self._awaited:
                        self._answered.set()
                    continue
                client.sendall(frame)
        except OSError:
            pass  # As above.
        finally:
            self._shut(client)

    def _shut(self, end: socket.socket) -> None:
        self._open.discard(end)
        with contextlib.suppress(OSError):  # It was closed already.
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _frame(source: socket.socket) -> bytes:
    """One message with its length in front, b"" at the end."""
    head = _exactly(source, 4)
    return head + _exactly(source, struct.unpack("!i", head)[0]) if head else b""


def _exactly(source: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = source.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return parts


def _kind(frame: bytes) -> int:
    """The type of a request: after the length and the number of the request."""
    return int(struct.unpack_from("!i", frame, 8)[0]) if len(frame) >= 12 else 0

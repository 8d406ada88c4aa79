"""Callers for the benches: they ask gRPC or REST as fast as answers come, one or many at once, and
do not look into the answers more than they must."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

Ask = Callable[[], Awaitable[bytes]]
"""One call, made and answered. Raises when the answer is an error."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where PVC, or what is measured beside it, is asked, and with which token."""

    grpc_address: str
    rest_port: int = 0
    token: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with a gRPC call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


class GrpcCaller:
    """Over one channel, as one program has it."""

    def __init__(self, door: Door) -> None:
        options = (("grpc.max_receive_message_length", 64 << 20),)
        self._channel = grpc.aio.insecure_channel(door.grpc_address, options=options)
        self._metadata = door.metadata

    def asker(self, method: str, requests: Iterator[bytes]) -> Ask:
        """Asks a method for one thing after another; answers stay bytes."""
        call: Any = self._channel.unary_unary(method)

        async def ask() -> bytes:
            answer: bytes = await call(next(requests), metadata=self._metadata)
            return answer

        return ask

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()


class RestCaller:
    """Over connections that are kept, one for each call at the same time."""

    def __init__(self, door: Door) -> None:
        self._port, self._token = door.rest_port, door.token
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def asker(self, requests: Iterator[tuple[str, str, bytes]]) -> Ask:
        """Asks for one thing after another: verb, path, body."""

        async def ask() -> bytes:
            return await self.ask(*next(requests))

        return ask

    async def ask(self, verb: str, path: str, body: bytes = b"") -> bytes:
        """The body of the answer."""
        reader, writer = self._idle.pop() if self._idle else await self._connected()
        head = (
            f"{verb} {path} HTTP/1.1\r\nHost: pvc\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        content = await reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise AssertionError(f"{verb} {path}: {answer[:15]!r} {content[:300]!r}")
        self._idle.append((reader, writer))
        return content

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)

    async def close(self) -> None:
        """Ends the connections."""
        for _, writer in self._idle:
            writer.close()


async def latencies_ms(ask: Ask, runs: int) -> tuple[float, ...]:
    """How long each of some calls takes, one after the other; the first does not count."""
    taken = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - began) * 1000)
    return tuple(taken[1:])


async def per_second(ask: Ask, at_once: int, window_s: float) -> float:
    """Calls answered a second, with so many under way all the time."""
    end = time.perf_counter() + window_s
    answered = itertools.count()

    async def caller() -> None:
        while time.perf_counter() < end:
            await ask()
            next(answered)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return next(answered) / (time.perf_counter() - began)


async def by_turns(
    asks: Sequence[Ask], at_once: int, window_s: float, turns: int
) -> list[tuple[float, ...]]:
    """per_second of each, by turns, so that what else the machine does falls on all alike."""
    found: list[list[float]] = [[] for _ in asks]
    for ask in asks:
        await per_second(ask, at_once, window_s / 4)
    for _ in range(turns):
        for samples, ask in zip(found, asks, strict=True):
            samples.append(await per_second(ask, at_once, window_s))
    return [tuple(samples) for samples in found]

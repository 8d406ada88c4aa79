"""Many who watch the same thing, and how soon each hears of a change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from bench.callers import Door
from bench.figures import Figure
from bench.ground import name_of
from pvc.compute.v1 import vm_service_pb2 as api

CHANGES = 12
HEARD_S = 20.0
CHANNELS = 4
VM_SERVICE = "/pvc.compute.v1.VmService"


async def heard(door: Door, count: int, change: Callable[[str], bytes]) -> tuple[Figure, Figure]:
    """Milliseconds from a change's request to the last who is told of it, one sample a change; and
    to each of them. change: a request that changes the VM of that name."""
    channels = [grpc.aio.insecure_channel(door.grpc_address) for _ in range(min(CHANNELS, count))]
    listing: Any = channels[0].unary_unary(f"{VM_SERVICE}/ListVms")
    asked = api.ListVmsRequest(page_size=1).SerializeToString()
    answer = await listing(asked, metadata=door.metadata)
    revision = api.ListVmsResponse.FromString(answer).revision
    streams = [_watch(channels[number % len(channels)], door, revision) for number in range(count)]
    for stream in streams:
        await _until(stream, "")  # its first bookmark: it has come to now
    update: Any = channels[0].unary_unary(f"{VM_SERVICE}/UpdateVm")
    last, each = [], []
    for number in range(CHANGES):
        name = name_of(number + 1)
        hearing = [asyncio.ensure_future(_until(stream, f"vms/{name}")) for stream in streams]
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        await update(change(name), metadata=door.metadata)
        async with asyncio.timeout(HEARD_S):
            times = [(at - began) * 1000 for at in await asyncio.gather(*hearing)]
        last.append(max(times))
        each += times
    for channel in channels:
        await channel.close()
    return Figure(tuple(last[2:])), Figure(tuple(each[2 * count :]))


def _watch(channel: grpc.aio.Channel, door: Door, revision: int) -> Any:
    """A stream of what comes after a revision."""
    asked = api.WatchVmsRequest(from_revision=revision).SerializeToString()
    watching: Any = channel.unary_stream(f"{VM_SERVICE}/WatchVms")
    return watching(asked, metadata=door.metadata)


async def _until(stream: Any, name: str) -> float:
    """When the change of that VM came; "" for a bookmark."""
    while True:
        answer = await stream.read()
        at = time.perf_counter()
        if api.WatchVmsResponse.FromString(answer).vm.name == name:
            return at

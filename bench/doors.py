"""How fast the doors are: lists, single calls, changes and watches through gRPC and REST, beside
a gRPC service with nothing in it; `python -m bench.doors`."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc

from bench.callers import Ask, Door, GrpcCaller, RestCaller, by_turns, latencies_ms
from bench.figures import Figure, Line, check
from bench.ground import CROWD, Ground, name_of
from bench.programs import alone
from bench.watchers import heard
from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2 as operations
from tests.ports import free_port
from tests.system.rig import Rig

LISTS = 60
WINDOW_S, TURNS = 0.7, 3
AT_ONCE = (1, 100)
SIZES = (100, CROWD, 10_000)
WATCHERS = (1, 10, 100)
VM_SERVICE = "/pvc.compute.v1.VmService"
OPERATIONS = "/pvc.coordinator.v1.OperationService/ListOperations"
BARE = "bare grpc.aio, gets"
CALM_S = 60.0
READY_S = 10.0


def measure(ground: Ground) -> list[Line]:
    """Everything on a thousand VMs; lists with fewer and with more too."""
    lines: list[Line] = []
    for vms in SIZES:
        door = door_of(ground.pvc(vms))
        lines += asyncio.run(lists(door, vms))
        if vms == CROWD:
            with bare() as beside:
                lines += asyncio.run(rates(door, beside))
            asyncio.run(calm(door))
            lines += asyncio.run(watches(door))
    return lines


def door_of(rig: Rig) -> Door:
    """As a program elsewhere reaches it."""
    token = (rig.base / "state" / "admin.token").read_text().strip()
    return Door(f"127.0.0.1:{rig.grpc_port}", rig.rest_port, token)


@contextmanager
def bare() -> Iterator[Door]:
    """The service with nothing in it."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.bare", str(port)])
    try:
        door = Door(f"127.0.0.1:{port}")
        with grpc.insecure_channel(door.grpc_address) as channel:
            grpc.channel_ready_future(channel).result(READY_S)
        yield door
    finally:
        process.kill()
        process.wait()


async def lists(door: Door, vms: int) -> list[Line]:
    """A list of all, in pages of a thousand, which is the most that one answer has."""
    rest, plain = RestCaller(door), GrpcCaller(door)
    size = min(vms, 1000)
    page = itertools.repeat(("GET", f"/v1/vms?pageSize={size}", b""))
    first = json.loads(await rest.ask("GET", f"/v1/vms?pageSize={size}"))
    check(len(first["vms"]) == size and first["totalSize"] >= vms, "not all VMs are listed")
    request = api.ListVmsRequest(page_size=size).SerializeToString()
    by_rest = await latencies_ms(rest.asker(page), LISTS)
    by_grpc = await latencies_ms(
        plain.asker(f"{VM_SERVICE}/ListVms", itertools.repeat(request)), LISTS
    )
    await rest.close()
    await plain.close()
    what = f"list {size:,} of {vms:,} VMs"
    aim = "<= 40" if vms == CROWD else ""
    return [
        Line(f"{what}, REST, unread, p50", "ms", middle(by_rest), "gRPC", middle(by_grpc), aim),
        Line(f"{what}, REST, unread, p99", "ms", late(by_rest), "gRPC", late(by_grpc)),
    ]


def middle(samples: tuple[float, ...]) -> Figure:
    """The median alone: the range has a line of its own."""
    return Figure((statistics.median(samples),))


def late(samples: tuple[float, ...]) -> Figure:
    """What one in a hundred takes, or more."""
    return Figure((statistics.quantiles(samples, n=100, method="inclusive")[98],))


async def rates(door: Door, beside: Door) -> list[Line]:
    """Gets a second, then changes a second, each through both doors."""
    rest, plain, other = RestCaller(door), GrpcCaller(door), GrpcCaller(beside)
    names = itertools.cycle([name_of(number) for number in range(CROWD)])
    get, update = f"{VM_SERVICE}/GetVm", f"{VM_SERVICE}/UpdateVm"
    nothing = other.asker(get, map(got, names))
    gets = {
        "get a VM, gRPC": plain.asker(get, map(got, names)),
        "get a VM, REST": rest.asker(("GET", f"/v1/vms/{name}", b"") for name in names),
    }
    changes = {
        "change a description, gRPC": plain.asker(update, map(described, names)),
        "change a description, REST": rest.asker(map(patch, names)),
    }
    lines = []
    for asks in (gets, changes):
        for at_once in AT_ONCE:
            lines += await compared(asks, nothing, at_once)
    for caller in (rest, plain, other):
        await caller.close()
    return lines


async def compared(asks: Mapping[str, Ask], nothing: Ask, at_once: int) -> list[Line]:
    """Each beside the service with nothing in it."""
    *ours, theirs = await by_turns([*asks.values(), nothing], at_once, WINDOW_S, TURNS)
    return [
        Line(f"{what}, {at_once} at once", "1/s", Figure(samples), BARE, Figure(theirs))
        for what, samples in zip(asks, ours, strict=True)
    ]


async def calm(door: Door) -> None:
    """Returns when no operation goes on: the changes were accepted, and the agents do them."""
    plain = GrpcCaller(door)
    request = operations.ListOperationsRequest(
        filter="state = STATE_PENDING OR state = STATE_RUNNING", page_size=1
    )
    ask = plain.asker(OPERATIONS, itertools.repeat(request.SerializeToString()))
    async with asyncio.timeout(CALM_S):
        while operations.ListOperationsResponse.FromString(await ask()).operations:
            await asyncio.sleep(0.2)
    await plain.close()


def got(name: str) -> bytes:
    """A request for a VM."""
    return api.GetVmRequest(name=f"vms/{name}").SerializeToString()


_texts = itertools.count()


def described(name: str) -> bytes:
    """A request for another description, as it never was before."""
    vm = vm_pb2.Vm(name=f"vms/{name}")
    vm.spec.description = f"text {next(_texts)}"
    request = api.UpdateVmRequest(vm=vm, request_id=f"bench-{next(_texts)}")
    request.update_mask.paths.append("spec.description")
    return request.SerializeToString()


def patch(name: str) -> tuple[str, str, bytes]:
    """The same through REST."""
    words = f"updateMask=spec.description&requestId=bench-{next(_texts)}"
    body = json.dumps({"spec": {"description": f"text {next(_texts)}"}}).encode()
    return "PATCH", f"/v1/vms/{name}?{words}", body


async def watches(door: Door) -> list[Line]:
    """From a change's request to the last of so many who are told of it."""
    lines = []
    for count in WATCHERS:
        last, each = await heard(door, count, described)
        what = f"{count} watching a change, the last of them"
        lines.append(Line(what, "ms", last, "all of them", each, "<= 100" if count == 100 else ""))
    return lines


if __name__ == "__main__":
    sys.exit(alone(measure))

"""How fast the doors are: lists, single calls, changes and watches through gRPC and REST, beside
a gRPC service with nothing in it; `python -m bench.doors`."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from bench.callers import Door, GrpcCaller, RestCaller, by_turns, latencies_ms
from bench.figures import Figure, Line, check
from bench.ground import CROWD, Ground, name_of
from bench.programs import alone
from bench.watchers import heard
from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from tests.ports import free_port
from tests.system.rig import Rig

LISTS = 60
WINDOW_S, TURNS = 0.7, 3
AT_ONCE = (1, 100)
SIZES = (100, CROWD, 10_000)
WATCHERS = (1, 10, 100)
VM_SERVICE = "/pvc.compute.v1.VmService"
BARE = "bare grpc.aio, gets"
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
        Line(
            f"{what}, REST at the server, p50", "ms", middle(by_rest), "gRPC", middle(by_grpc), aim
        ),
        Line(f"{what}, REST at the server, p99", "ms", late(by_rest), "gRPC", late(by_grpc)),
    ]


def middle(samples: tuple[float, ...]) -> Figure:
    """The median alone: the range has a line of its own."""
    return Figure((statistics.median(samples),))


def late(samples: tuple[float, ...]) -> Figure:
    """What one in a hundred takes, or more."""
    return Figure((statistics.quantiles(samples, n=100, method="inclusive")[98],))


async def rates(door: Door, beside: Door) -> list[Line]:
    """Gets and changes a second, each through both doors."""
    rest, plain, other = RestCaller(door), GrpcCaller(door), GrpcCaller(beside)
    names = itertools.cycle([name_of(number) for number in range(CROWD)])
    get, update = f"{VM_SERVICE}/GetVm", f"{VM_SERVICE}/UpdateVm"
    asks = {
        "get a VM, gRPC": plain.asker(get, map(got, names)),
        "get a VM, REST": rest.asker(("GET", f"/v1/vms/{name}", b"") for name in names),
        "change a description, gRPC": plain.asker(update, map(described, names)),
        "change a description, REST": rest.asker(map(patch, names)),
        "": other.asker(get, map(got, names)),
    }
    lines = []
    for at_once in AT_ONCE:
        *ours, theirs = await by_turns(list(asks.values()), at_once, WINDOW_S, TURNS)
        for what, samples in zip(asks, ours, strict=False):
            name = f"{what}, {at_once} at once"
            lines.append(Line(name, "1/s", Figure(samples), BARE, Figure(theirs)))
    for caller in (rest, plain, other):
        await caller.close()
    return lines


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

"""How long it takes to be told everything about a thousand VMs: `python -m bench.list_vms`."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc

from bench.figures import Figure, Line, check, program, seconds, side_by_side
from bench.ground import CROWD, Ground, connected
from bench.programs import alone, pvc
from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from services.mesh.config import load
from services.mesh.opening import open_store
from services.mesh.query import page
from tests.system.rig import Rig

RUNS = 9
RUNS_SLOW = 5
MESSAGE_BYTES_MAX = 64 << 20
REQUEST = api.ListVmsRequest(page_size=CROWD)
BY_LIBVIRT = "listAllDomains + XMLDesc of each"
BY_VIRSH = "virsh list --all"


def measure(ground: Ground) -> list[Line]:
    """The calls of a program that stays connected, then whole commands."""
    rig = ground.pvc(CROWD)
    uri = ground.plain_libvirt(CROWD).uri
    lines: list[Line] = []
    with connected(uri) as connection:

        def by_libvirt() -> None:
            found = [domain.XMLDesc(0) for domain in connection.listAllDomains(0)]
            check(len(found) == CROWD, f"libvirt lists {len(found)} domains")

        for what, ask in calls(rig).items():
            ours, theirs = side_by_side(ask, by_libvirt, RUNS)
            lines.append(Line(what, "ms", ours, BY_LIBVIRT, theirs))
    lines += commands(rig, uri)
    lines.append(at_the_server(rig))
    return lines


def calls(rig: Rig) -> dict[str, Callable[[], None]]:
    """Ways to ask, over connections that are kept."""
    options = (("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),)
    mesh = grpc.insecure_channel(f"unix:{rig.base}/run/mesh/compute.sock", options)
    door = grpc.insecure_channel(f"unix:{rig.base}/run/pvc.sock", options)
    raw: Any = mesh.unary_unary(
        "/pvc.compute.v1.VmService/ListVms", api.ListVmsRequest.SerializeToString
    )
    return {
        "list 1,000 VMs, gRPC on the mesh, unread": lambda: whole(len(raw(REQUEST)) > 100 * CROWD),
        "list 1,000 VMs, gRPC on the mesh": lambda: listed(api_grpc.VmServiceStub(mesh)),
        "list 1,000 VMs, gRPC through the door": lambda: listed(api_grpc.VmServiceStub(door)),
        "list 1,000 VMs, REST": lambda: by_rest(rig),
    }


def listed(stub: Any) -> None:
    """Asks, and looks at what came."""
    answer = stub.ListVms(REQUEST)
    whole(len(answer.vms) == CROWD and len(answer.vms[-1].spec.disks) == 2)


def by_rest(rig: Rig) -> None:
    """With a token, as curl would."""
    token = (rig.base / "state" / "admin.token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{rig.rest_port}/v1/vms?pageSize={CROWD}",
        headers={"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        whole(len(json.load(answer)["vms"]) == CROWD)


def whole(true: bool) -> None:
    """Nothing may be missing."""
    check(true, "the list is not whole")


def commands(rig: Rig, uri: str) -> list[Line]:
    """What one types: a table to look at, and everything there is, for a script."""
    socket = f"unix:{rig.base}/run/pvc.sock"

    def table() -> None:
        whole(pvc("-c", socket, "vm", "list").count("vm-") >= CROWD)

    def everything() -> None:
        whole(len(json.loads(pvc("-c", socket, "vm", "list", "-f", "json"))) == CROWD)

    def virsh_table() -> None:
        whole(program("virsh", "-c", uri, "list", "--all").count("vm-") == CROWD)

    def virsh_everything() -> None:
        names = program("virsh", "-c", uri, "list", "--all", "--name").split()
        dumps = "".join(f"dumpxml {name}\n" for name in names)
        whole(program("virsh", "-c", uri, text=dumps).count("</domain>") == CROWD)

    def virsh_stats() -> None:
        whole(program("virsh", "-c", uri, "domstats").count("Domain:") == CROWD)

    shown, virsh_shown = side_by_side(table, virsh_table, RUNS_SLOW)
    full, virsh_full = side_by_side(everything, virsh_everything, RUNS_SLOW)
    _, stats = side_by_side(lambda: None, virsh_stats, 3)
    return [
        Line("pvc vm list, 1,000 VMs", "ms", shown, BY_VIRSH, virsh_shown),
        Line("pvc vm list -f json", "ms", full, "virsh dumpxml of each, one virsh", virsh_full),
        Line("pvc vm list -f json", "ms", full, "virsh domstats", stats),
    ]


def at_the_server(rig: Rig) -> Line:
    """What the server itself spends on the answer, with nothing between: chosen and encoded."""
    rig.stop()
    store = open_store(load(rig.config))
    try:
        snapshot = store.snapshot()

        def answer() -> None:
            made = page(snapshot, vm_pb2.Vm, REQUEST, api.ListVmsResponse)
            whole(len(made.SerializeToString()) > 100 * CROWD)

        answer()
        took = Figure(tuple(seconds(answer) * 1000 for _ in range(RUNS)))
    finally:
        store.close()
    rig.start()
    return Line("list 1,000 VMs, the server's own work", "ms", took, aim="<= 10")


if __name__ == "__main__":
    sys.exit(alone(measure))

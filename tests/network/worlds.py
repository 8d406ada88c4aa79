"""Networks, VMs and a store for tests, in few words."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1.vm_pb2 import Vm
from pvc.network.v1.network_pb2 import Network
from services.mesh.desk import Call
from services.network.core.desired import Place
from services.network.core.spec import filled

PLACE = Place("pvc-test", "/run/pvc/network-pvc-test/servers")
GOLDEN = Path(__file__).parent / "golden"


class TestClock:
    """A second passes with every question; ids count."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 1_700_000_000
        self.ids = 0

    def now(self) -> Timestamp:
        self.seconds += 1
        return Timestamp(seconds=self.seconds)

    def monotonic(self) -> float:
        return float(self.seconds)

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:026d}"


def call(clock: TestClock | None = None) -> Call:
    clock = clock or TestClock()
    return Call(clock.now(), "token test", "nodes/n1", clock.new_id)


def network(name: str = "default", cidr: str = "10.64.0.0/24", nat: bool = True) -> Network:
    row = Network(name=f"networks/{name}")
    row.meta.generation = 1
    row.spec.nat = nat
    if cidr:
        row.spec.ipv4.cidr = cidr
    row.spec.CopyFrom(filled(name, row.spec))
    return row


def vm(name: str, *nics: str) -> Vm:
    """nics: "52:54:00:00:00:01@default"; the network may be left out."""
    row = Vm(name=f"vms/{name}")
    for count, text in enumerate(nics):
        mac, _, on = text.partition("@")
        row.spec.nics.add(id=f"net{count}", network=f"networks/{on or 'default'}", mac=mac)
    return row


def mac(number: int) -> str:
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3))


def ip(text: str) -> IPv4Address:
    return IPv4Address(text)


def check_golden(name: str, text: str) -> None:
    """The text as it is kept in golden/. PVC_GOLDEN=write keeps it anew, for a person to review."""
    path = GOLDEN / name
    if os.environ.get("PVC_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()

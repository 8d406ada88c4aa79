"""VMs for the lab: the tiny guest, up in seconds, made by the released client from a disk that is
uploaded once for each pool."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lab.cluster.founding import client
from lab.cluster.site import Lab, LabError, Node
from pvc.compute.v1 import vm_pb2
from pvc_client import Cluster
from pvc_client.errors import AlreadyExists, NotFound
from tests.guests.tiny import READY, tiny_disk

BASE = "tiny"
"""The volume of each pool that the guests' disks are copies of."""
MEMORY_MIB = 96
TIMEOUT_S = 240.0
BOOT_TIMEOUT_S = 240.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Guests:
    """Makes them. cluster: a connection to any node's door."""

    lab: Lab
    cluster: Cluster
    disk: Path

    @classmethod
    def on(cls, lab: Lab, cluster: Cluster) -> Guests:
        """With the tiny guest's disk, made if it is not there."""
        return cls(lab, cluster, tiny_disk())

    def make(self, vm: str, pool: str, node: Node | None = None, network: str = "default") -> None:
        """A VM that runs. node: whose door takes the disk that is uploaded: one that has the
        pool."""
        self.prepare(pool, node or self.lab.nodes[0])
        volume = f"pools/{pool}/volumes/{vm}"
        self.cluster.volumes.clone(f"{pool}/{BASE}", f"{pool}/{vm}").result(TIMEOUT_S)
        spec = vm_pb2.VmSpec(disks=[vm_pb2.DiskSpec(id="root", volume=volume)])
        spec.memory.memory_mib = MEMORY_MIB
        if network:
            spec.nics.append(vm_pb2.NicSpec(id="net0", network=f"networks/{network}"))
        self.cluster.vms.create(vm, spec, start=True).result(TIMEOUT_S)

    def prepare(self, pool: str, node: Node) -> None:
        """Uploads the disk, if the pool has none yet."""
        try:
            self.cluster.volumes.get(f"{pool}/{BASE}")
        except NotFound:
            with client(node) as door:
                file = door.files.upload(self.disk)
            try:
                self.cluster.volumes.import_file(f"{pool}/{BASE}", file.name).result(TIMEOUT_S)
            except AlreadyExists:
                return  # another was quicker

    def remove(self, vm: str) -> None:
        """A VM and its disk, if it is there."""
        try:
            self.cluster.vms.delete(vm, delete_volumes=True, force=True).result(TIMEOUT_S)
        except NotFound:
            return

    def node_of(self, vm: str) -> str:
        """Where it runs: "n1"; "" when it does not."""
        row = self.cluster.vms.get(vm)
        runs = row.status.state == vm_pb2.VM_STATE_RUNNING
        return row.status.node.removeprefix("nodes/") if runs else ""

    def await_node(self, vm: str, node: str, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Until it runs on that node, as the node itself says. Raises LabError."""
        end = time.monotonic() + timeout_s
        while (here := self.node_of(vm)) != node:
            if time.monotonic() > end:
                raise LabError(f"{vm} does not run on {node}, but on {here or 'no node'}")
            time.sleep(_LOOK_S)

    def address_of(self, vm: str, network: str = "default") -> str:
        """The address that a network has for it. Raises LabError."""
        for given in self.cluster.networks.get(network).status.addresses:
            if given.vm == f"vms/{vm}":
                return str(given.address)
        raise LabError(f"{network} has no address for {vm}")

    def await_ready(self, vm: str, times: int = 1, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Until its guest has said so often that it is up. Raises LabError."""
        end = time.monotonic() + timeout_s
        while (seen := self.console(vm)).count(READY) < times:
            if time.monotonic() > end:
                raise LabError(f"{vm} is not up after {timeout_s:g} s: {seen[-500:]!r}")
            time.sleep(_LOOK_S)

    def console(self, vm: str) -> str:
        """What the guest printed, as far as its node keeps it."""
        return b"".join(self.cluster.vms.console_log(vm)).decode(errors="replace")

    def type(self, vm: str, line: str) -> None:
        """Types a line at its console; returns when the guest has echoed it."""
        with self.cluster.vms.console(vm, force=True) as console:
            console.write(f"\n{line}\n".encode())
            seen = b""
            while line.split()[-1].encode() not in seen:
                piece = console.read()
                if not piece:
                    raise LabError(f"the console of {vm} was closed: {seen!r}")
                seen += piece

"""Makes the things that requests are about, each under a name of its own, through the client."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator
from pvc.core.v1 import options_pb2
from pvc.gateway.v1 import audit_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from pvc_client import Cluster
from services.coordinator.core.world import WORKING
from services.coordinator.drivers.fake import FakeController
from services.coordinator.letting_in import read_token
from services.mesh.amend import amend
from services.mesh.desk import Call
from services.mesh.enrolment import request_for
from services.mesh.rows import new_meta
from services.state.store import Put
from tests.contract.whole import MIB, REDFISH, Whole
from tests.provisioner.worlds import qcow2

WAIT_S = 60.0
VOLUME_BYTES = 2 * MIB
AUDITED = "vms/audited"

_numbers = itertools.count(1)


class Stage:
    """What a case needs to be there before it begins."""

    def __init__(self, whole: Whole, cluster: Cluster) -> None:
        self.whole, self.cluster = whole, cluster
        self._small_node = ""
        self._audited: list[str] = []

    def fresh(self, what: str = "x") -> str:
        """An id that nothing has yet."""
        return f"{what}-{next(_numbers)}"

    def vm(self, *, on: bool = False, **spec: Any) -> str:
        """A VM's id; it runs if `on`."""
        vm_id = self.fresh("vm")
        self.cluster.vms.create(vm_id, vm_pb2.VmSpec(**spec), start=on).result(WAIT_S)
        return vm_id

    def vm_with_disk(self, *, on: bool = False) -> str:
        """A VM's id; its volume is "data"."""
        disk = vm_pb2.DiskSpec(id="data", volume=self.volume())
        return self.vm(on=on, disks=[disk])

    def vm_with_nic(self) -> str:
        """A VM's id; its interface is "net0"."""
        return self.vm(nics=[vm_pb2.NicSpec(id="net0", network="networks/default")])

    def paused_vm(self) -> str:
        """A VM's id."""
        vm_id = self.vm(on=True)
        self.cluster.vms.pause(vm_id).result(WAIT_S)
        return vm_id

    def vm_snapshot(self) -> str:
        """A VM snapshot's name."""
        name = f"{self.vm_with_disk()}/{self.fresh('snapshot')}"
        return str(self.cluster.vms.snapshots.create(name).result(WAIT_S).name)

    def volume(self, **spec: Any) -> str:
        """A volume's name."""
        spec = spec or {"size_bytes": VOLUME_BYTES}
        volume = storage_pb2.VolumeSpec(**spec)
        name = f"local/{self.fresh('volume')}"
        return str(self.cluster.volumes.create(name, volume).result(WAIT_S).name)

    def snapshot(self) -> str:
        """A volume snapshot's name."""
        name = f"{self.volume()}/snapshots/{self.fresh('snapshot')}"
        return str(self.cluster.volumes.snapshots.create(name).result(WAIT_S).name)

    def pool(self) -> str:
        """A pool's name."""
        spec = storage_pb2.PoolSpec(node="nodes/n1")
        pool_id = self.fresh("pool")
        spec.directory.path = f"/{pool_id}"
        return str(self.cluster.pools.create(pool_id, spec).result(WAIT_S).name)

    def subnet(self) -> str:
        """A network's addresses that no other has."""
        number = next(_numbers)
        return f"10.{100 + number // 250}.{number % 250}.0/24"

    def network(self) -> str:
        """A network's name."""
        spec = network_pb2.NetworkSpec()
        spec.ipv4.cidr = self.subnet()
        return str(self.cluster.networks.create(self.fresh("net"), spec).result(WAIT_S).name)

    def image(self) -> str:
        """An image's name."""
        built = self.cluster.images.build(self.fresh("image"), pool="local", recipe_id="debian-12")
        return str(built.result(WAIT_S).name)

    def node(self, state: int = cluster_pb2.NODE_STATE_ONLINE, memory_mib: int = 0) -> str:
        """The name of a node without an agent, written past the API; it holds a session where it
        works. memory_mib: for VMs; too little for most."""
        name, clock = f"nodes/{self.fresh('node')}", self.whole.clock
        call = Call(clock.now(), "test", name, clock.new_id)
        row = cluster_pb2.Node(name=name, meta=new_meta(call))
        row.spec.address, row.spec.coordinator = f"10.9.0.{next(_numbers) % 250}", True
        row.decision.state, row.decision.why = state, "the test says so"  # type: ignore[assignment]
        if state in WORKING:
            self.whole.store.acquire(name, name)
            row.status.session = self.whole.store.session()
        else:
            row.status.session = row.decision.lost_session = "gone"
        row.status.memory_for_vms_mib, row.status.cpus = memory_mib, 1
        row.status.accelerator = "tcg"
        self.whole.store.commit([Put(row)])
        return name

    def controlled_node(self, **controller: Any) -> str:
        """The name of a node whose power is in the hands of a controller."""
        there = self.cluster.nodes.get(self.node())
        address = f"http://{self.fresh('bmc')}"
        self.whole.power.controllers[address] = FakeController("s3cr3t", **controller)
        control = there.spec.power_control
        control.protocol, control.address, control.password = REDFISH, address, "s3cr3t"
        there.meta.etag = ""
        return str(self.cluster.nodes.update(there, ["spec.power_control"]).name)

    def small_vm(self) -> str:
        """The name of a VM that is off and fits on small nodes, of which there is one."""
        name = f"vms/{self.vm(memory=vm_pb2.MemorySpec(memory_mib=64))}"
        if not self._small_node:
            self._small_node = self.node(memory_mib=512)
        wait_until(lambda: bool(self.cluster.vms.get(name).decision.node))
        return name

    def moved_vm(self) -> str:
        """The name of a small VM that is not at home."""
        name = self.small_vm()
        there = self.cluster.vms.get(name).decision.node
        target = self._small_node if there != self._small_node else "nodes/n1"
        self.cluster.vms.migrate(name, to=target).result(WAIT_S)

        def seen(vm: vm_pb2.Vm) -> None:  # as the agent would that the small node does not have
            vm.status.node, vm.status.power_request = vm.decision.node, vm.decision.power_request

        amend(self.whole.store, vm_pb2.Vm, name, seen)
        return name

    def added_node(self) -> coordinator.AddNodeResponse:
        """A node that is expected, with its token."""
        number = next(_numbers)
        return self.cluster.nodes.add(self.fresh("node"), f"10.8.{number // 250}.{number % 250}")

    def joining(self) -> coordinator.JoinNodeRequest:
        """What a machine asks that is expected."""
        added = self.added_node()
        key = ec.generate_private_key(ec.SECP256R1())
        return coordinator.JoinNodeRequest(
            name=added.node.name,
            secret=read_token(added.token).secret,
            certificate_request=request_for(key, added.node.name.removeprefix("nodes/")),
            version="2.0",
        )

    def token(self) -> str:
        """A token's name."""
        answer = self.cluster.tokens.create(self.fresh("token"), options_pb2.ROLE_VIEWER)
        return str(answer.token.name)

    def audit_entry(self) -> str:
        """An audit entry's name."""
        entry = audit_pb2.AuditEntry(name=f"auditEntries/{self.whole.clock.new_id()}", count=1)
        entry.target = AUDITED
        self.whole.store.commit([Put(entry)])
        return entry.name

    def audited(self) -> str:
        """What two audit entries are about."""
        if not self._audited:
            self._audited = [self.audit_entry(), self.audit_entry()]
        return AUDITED

    def uploading(self) -> list[storage.UploadFileRequest]:
        """The messages that upload a disk image."""
        content = qcow2()
        digest = hashlib.sha256(content).hexdigest()
        return [
            storage.UploadFileRequest(
                size_bytes=len(content), sha256=digest, source_name="disk.qcow2"
            ),
            storage.UploadFileRequest(data=content),
        ]

    def file(self) -> str:
        """An uploaded file's name."""
        path = self.whole.folder / "disk.qcow2"
        path.write_bytes(qcow2())
        return str(self.cluster.files.upload(path).name)

    def operation(self) -> str:
        """The name of an operation that has ended."""
        pending = self.cluster.vms.create(self.fresh("vm"), vm_pb2.VmSpec())
        pending.result(WAIT_S)
        return pending.name


def wait_until(true: Callable[[], bool]) -> None:
    """Returns once it is so."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)

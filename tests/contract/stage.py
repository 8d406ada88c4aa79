"""Makes the things that requests are about, each under a name of its own, through the client."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import options_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from pvc_client import Cluster
from tests.contract.whole import MIB, Whole
from tests.provisioner.worlds import qcow2

WAIT_S = 20
VOLUME_BYTES = 2 * MIB

_numbers = itertools.count(1)


class Stage:
    """What a case needs to be there before it begins."""

    def __init__(self, whole: Whole, cluster: Cluster) -> None:
        self.whole, self.cluster = whole, cluster

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

    def token(self) -> str:
        """A token's name."""
        answer = self.cluster.tokens.create(self.fresh("token"), options_pb2.ROLE_VIEWER)
        return str(answer.token.name)

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

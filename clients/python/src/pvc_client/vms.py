"""Virtual machines: their whole life, their snapshots and their consoles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as pb
from pvc.compute.v1 import vm_service_pb2_grpc as grpc_pb
from pvc.coordinator.v1 import coordinator_service_pb2 as place_pb
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as place_grpc_pb
from pvc.core.v1 import operation_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as provision_pb
from pvc.provisioner.v1 import provisioner_service_pb2_grpc as provision_grpc_pb
from pvc_client.console import Console
from pvc_client.names import full_name
from pvc_client.operations import Operations, Pending
from pvc_client.resources import Options, Pages, Resources, filled
from pvc_client.transport import Transport

Vm = vm_pb2.Vm
VmSpec = vm_pb2.VmSpec
VmSnapshot = vm_pb2.VmSnapshot
Operation = operation_pb2.Operation
Method: TypeAlias = "vm_pb2.MigrationMethod.ValueType"
METHOD = vm_pb2.MIGRATION_METHOD_UNSPECIFIED
"""As the VM's own spec says."""
R = TypeVar("R", bound=Message)


class VmSnapshots(Resources[VmSnapshot]):
    """Snapshots of whole VMs. One is named "web/before-upgrade"."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        stub = grpc_pb.VmServiceStub(transport.channel)
        super().__init__(transport, stub, pb, VmSnapshot, "vms/snapshots")
        self._vms = stub
        self._operations = operations

    def of(self, vm: str) -> Pages[VmSnapshot]:
        """The snapshots of one VM."""
        return self.list(parent=vm)

    def create(
        self, name: str, description: str = "", **options: Unpack[Options]
    ) -> Pending[VmSnapshot]:
        """Takes a snapshot of all writable volumes and the spec."""
        parent, _, snapshot_id = self.name(name).rpartition("/snapshots/")
        request = filled(
            pb.CreateVmSnapshotRequest(
                parent=parent, snapshot_id=snapshot_id, description=description
            ),
            options,
        )
        started = self.transport.unary(self._vms.CreateVmSnapshot, request, Operation)
        return Pending(self._operations, started, VmSnapshot)

    def delete(self, name: str, **options: Unpack[Options]) -> Pending[Message]:
        """Removes a snapshot."""
        request = filled(pb.DeleteVmSnapshotRequest(name=self.name(name)), options)
        started = self.transport.unary(self._vms.DeleteVmSnapshot, request, Operation)
        return Pending(self._operations, started, Message)

    def rollback(self, name: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Puts a VM that is off back to what it was; what it wrote since is lost."""
        request = filled(pb.RollbackVmSnapshotRequest(name=self.name(name)), options)
        started = self.transport.unary(self._vms.RollbackVmSnapshot, request, Operation)
        return Pending(self._operations, started, Vm)


class Vms(Resources[Vm]):
    """The cluster's virtual machines. What takes time answers with a Pending."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        stub = grpc_pb.VmServiceStub(transport.channel)
        super().__init__(transport, stub, pb, Vm, "vms")
        self._vms = stub
        self._placement = place_grpc_pb.PlacementServiceStub(transport.channel)
        self._provisioner = provision_grpc_pb.ProvisionerServiceStub(transport.channel)
        self._operations = operations
        self.snapshots = VmSnapshots(transport, operations)

    def create(
        self,
        vm_id: str,
        spec: VmSpec,
        *,
        start: bool = False,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> Pending[Vm]:
        """Defines a VM out of volumes and networks that exist."""
        request = pb.CreateVmRequest(vm_id=vm_id, vm=Vm(spec=spec), start=start)
        request.vm.meta.labels.update(labels or {})
        return self._begin(self._vms.CreateVm, filled(request, options), Vm)

    def provision(
        self,
        vm_id: str,
        image: str,
        *,
        spec: VmSpec | None = None,
        pool: str = "",
        root_size_bytes: int = 0,
        network: str = "",
        cloud_init: image_pb2.CloudInit | None = None,
        start: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Vm]:
        """Makes a VM from an image: volumes, cloud-init data and the VM itself, all or nothing."""
        request = provision_pb.ProvisionVmRequest(
            vm_id=vm_id,
            image=full_name("images", image, "image"),
            spec=spec,
            pool=full_name("pools", pool, "pool") if pool else "",
            root_size_bytes=root_size_bytes,
            network=full_name("networks", network, "network") if network else "",
            cloud_init=cloud_init,
            start=start,
        )
        return self._begin(self._provisioner.ProvisionVm, filled(request, options), Vm)

    def import_xml(
        self,
        xml: str,
        vm_id: str = "",
        *,
        volumes: Mapping[str, str] | None = None,
        networks: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> pb.ImportVmResponse:
        """Defines a VM from a libvirt domain; says what was left out.

        volumes: target ("vda") → volume. networks: name in the XML → network.
        """
        request = pb.ImportVmRequest(
            xml=xml,
            vm_id=vm_id,
            volumes={k: full_name("pools/volumes", v) for k, v in (volumes or {}).items()},
            networks={k: full_name("networks", v) for k, v in (networks or {}).items()},
        )
        method = self._vms.ImportVm
        return self.transport.unary(method, filled(request, options), pb.ImportVmResponse)

    def update(
        self, vm: Vm, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Pending[Vm]:
        """Takes over the fields of the mask ("spec.cpu.vcpus") from `vm`; all that are set without
        one."""
        request = pb.UpdateVmRequest(vm=vm, update_mask=FieldMask(paths=update_mask))
        return self._begin(self._vms.UpdateVm, filled(request, options), Vm)

    def delete(
        self,
        vm: str,
        *,
        delete_volumes: bool = False,
        force: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Message]:
        """Removes a VM. force: switch it off first."""
        request = pb.DeleteVmRequest(name=self.name(vm), delete_volumes=delete_volumes, force=force)
        return self._begin(self._vms.DeleteVm, filled(request, options), Message)

    def start(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Switches it on; done when it runs."""
        request = pb.StartVmRequest(name=self.name(vm))
        return self._begin(self._vms.StartVm, filled(request, options), Vm)

    def shutdown(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Asks the guest to shut down, switches it off after its timeout."""
        request = pb.ShutdownVmRequest(name=self.name(vm))
        return self._begin(self._vms.ShutdownVm, filled(request, options), Vm)

    def stop(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Switches it off at once."""
        request = pb.StopVmRequest(name=self.name(vm))
        return self._begin(self._vms.StopVm, filled(request, options), Vm)

    def reboot(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Restarts the guest cleanly; changes that waited for it take effect."""
        request = pb.RebootVmRequest(name=self.name(vm))
        return self._begin(self._vms.RebootVm, filled(request, options), Vm)

    def reset(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Presses the reset button."""
        request = pb.ResetVmRequest(name=self.name(vm))
        return self._begin(self._vms.ResetVm, filled(request, options), Vm)

    def pause(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Halts its processors."""
        request = pb.PauseVmRequest(name=self.name(vm))
        return self._begin(self._vms.PauseVm, filled(request, options), Vm)

    def resume(self, vm: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Lets it go on."""
        request = pb.ResumeVmRequest(name=self.name(vm))
        return self._begin(self._vms.ResumeVm, filled(request, options), Vm)

    def rename(self, vm: str, new_vm_id: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Gives a VM that is off another name."""
        request = pb.RenameVmRequest(name=self.name(vm), new_vm_id=new_vm_id)
        return self._begin(self._vms.RenameVm, filled(request, options), Vm)

    def clone(
        self, vm: str, vm_id: str, *, start: bool = False, **options: Unpack[Options]
    ) -> Pending[Vm]:
        """Makes a new VM with copies of its volumes."""
        request = pb.CloneVmRequest(name=self.name(vm), vm_id=vm_id, start=start)
        return self._begin(self._vms.CloneVm, filled(request, options), Vm)

    def attach_disk(
        self, vm: str, disk: vm_pb2.DiskSpec, **options: Unpack[Options]
    ) -> Pending[Vm]:
        """Adds a drive, live when it runs."""
        request = pb.AttachDiskRequest(name=self.name(vm), disk=disk)
        return self._begin(self._vms.AttachDisk, filled(request, options), Vm)

    def detach_disk(self, vm: str, disk_id: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Takes a drive out; its volume stays."""
        request = pb.DetachDiskRequest(name=self.name(vm), disk_id=disk_id)
        return self._begin(self._vms.DetachDisk, filled(request, options), Vm)

    def attach_nic(self, vm: str, nic: vm_pb2.NicSpec, **options: Unpack[Options]) -> Pending[Vm]:
        """Adds a network interface, live when it runs."""
        request = pb.AttachNicRequest(name=self.name(vm), nic=nic)
        return self._begin(self._vms.AttachNic, filled(request, options), Vm)

    def detach_nic(self, vm: str, nic_id: str, **options: Unpack[Options]) -> Pending[Vm]:
        """Takes a network interface out."""
        request = pb.DetachNicRequest(name=self.name(vm), nic_id=nic_id)
        return self._begin(self._vms.DetachNic, filled(request, options), Vm)

    def migrate(
        self,
        vm: str,
        to: str = "",
        *,
        method: Method = METHOD,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Vm]:
        """Moves it to another node for a while; to the best when `to` is empty. copy_volumes: what
        cannot be opened there goes along."""
        request = place_pb.MigrateVmRequest(
            name=self.name(vm), node=_node(to), method=method, copy_volumes=copy_volumes
        )
        return self._begin(self._placement.MigrateVm, filled(request, options), Vm)

    def move(
        self,
        vm: str,
        to: str = "",
        *,
        method: Method = METHOD,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Vm]:
        """Moves it to another node for good; to the best when `to` is empty. copy_volumes: as
        in migrate."""
        request = place_pb.MoveVmRequest(
            name=self.name(vm), node=_node(to), method=method, copy_volumes=copy_volumes
        )
        return self._begin(self._placement.MoveVm, filled(request, options), Vm)

    def unmigrate(
        self,
        vm: str,
        *,
        method: Method = METHOD,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Vm]:
        """Brings it back to the node that it had to leave. copy_volumes: as in migrate."""
        request = place_pb.UnmigrateVmRequest(
            name=self.name(vm), method=method, copy_volumes=copy_volumes
        )
        return self._begin(self._placement.UnmigrateVm, filled(request, options), Vm)

    def explain(self, vm: str) -> place_pb.ExplainVmResponse:
        """Why it is where it is, and why not elsewhere."""
        request = place_pb.ExplainVmRequest(name=self.name(vm))
        return self.transport.unary(self._placement.ExplainVm, request, place_pb.ExplainVmResponse)

    def domain_xml(self, vm: str) -> str:
        """The libvirt domain that the VM is on its node."""
        request = pb.GetDomainXmlRequest(name=self.name(vm))
        answer = self.transport.unary(self._vms.GetDomainXml, request, pb.GetDomainXmlResponse)
        return str(answer.xml)

    def console(self, vm: str, *, force: bool = False) -> Console:
        """Attaches to the serial console. force: take it over from whoever has it."""
        return Console(self.transport, self._vms.AttachConsole, self.name(vm), force=force)

    def console_log(self, vm: str, lines: int = 1000, *, follow: bool = False) -> Iterator[bytes]:
        """What the guest wrote to its console, piece by piece; with follow it goes on."""
        request = pb.ReadConsoleLogRequest(name=self.name(vm), lines=lines, follow=follow)
        answers = self.transport.stream(
            self._vms.ReadConsoleLog, request, pb.ReadConsoleLogResponse
        )
        return (answer.data for answer in answers)

    def _begin(self, method: Any, request: Message, kind: type[R]) -> Pending[R]:
        return Pending(self._operations, self.transport.unary(method, request, Operation), kind)


def _node(name: str) -> str:
    return full_name("nodes", name, "node") if name else ""

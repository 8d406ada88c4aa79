"""Virtual machines: their whole life, their snapshots and their consoles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, Unpack

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc_client.aio.console import AsyncConsole
from pvc_client.aio.operations import AsyncPending, AsyncWorking
from pvc_client.aio.resources import AsyncPages
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import PLACEMENT, PROVISIONER, VMS, Options, mask
from pvc_client.names import full_name

if TYPE_CHECKING:
    from pvc.compute.v1 import vm_service_pb2 as pb
    from pvc.coordinator.v1 import coordinator_service_pb2 as place_pb
    from pvc.provisioner.v1 import image_pb2

Vm = vm_pb2.Vm
VmSpec = vm_pb2.VmSpec
VmSnapshot = vm_pb2.VmSnapshot
Method: TypeAlias = "vm_pb2.MigrationMethod.ValueType"
METHOD = vm_pb2.MIGRATION_METHOD_UNSPECIFIED
"""As the VM's own spec says."""


class AsyncVmSnapshots(AsyncWorking[VmSnapshot]):
    """Snapshots of whole VMs. One is named "web/before-upgrade"."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, VMS, VmSnapshot, "vms/snapshots")

    def of(self, vm: str) -> AsyncPages[VmSnapshot]:
        """The snapshots of one VM."""
        return self.list(parent=vm)

    async def create(
        self, name: str, description: str = "", **options: Unpack[Options]
    ) -> AsyncPending[VmSnapshot]:
        """Takes a snapshot of all writable volumes and the spec."""
        parent, _, snapshot_id = self.name(name).rpartition("/snapshots/")
        return await self._begin(
            VMS["CreateVmSnapshot"],
            VmSnapshot,
            options,
            parent=parent,
            snapshot_id=snapshot_id,
            description=description,
        )

    async def delete(self, name: str, **options: Unpack[Options]) -> AsyncPending[Message]:
        """Removes a snapshot."""
        method = VMS["DeleteVmSnapshot"]
        return await self._begin(method, Message, options, name=self.name(name))

    async def rollback(self, name: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Puts a VM that is off back to what it was; what it wrote since is lost."""
        method = VMS["RollbackVmSnapshot"]
        return await self._begin(method, Vm, options, name=self.name(name))


class AsyncVms(AsyncWorking[Vm]):
    """The cluster's virtual machines. What takes time answers with a handle to wait with."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, VMS, Vm, "vms")
        self.snapshots = AsyncVmSnapshots(transport)

    async def create(
        self,
        vm_id: str,
        spec: VmSpec,
        *,
        start: bool = False,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> AsyncPending[Vm]:
        """Defines a VM out of volumes and networks that exist."""
        vm = Vm(spec=spec)
        vm.meta.labels.update(labels or {})
        return await self._begin(VMS["CreateVm"], Vm, options, vm_id=vm_id, vm=vm, start=start)

    async def provision(
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
    ) -> AsyncPending[Vm]:
        """Makes a VM from an image: volumes, cloud-init data and the VM itself, all or nothing."""
        return await self._begin(
            PROVISIONER["ProvisionVm"],
            Vm,
            options,
            vm_id=vm_id,
            image=full_name("images", image, "image"),
            spec=spec,
            pool=full_name("pools", pool, "pool") if pool else "",
            root_size_bytes=root_size_bytes,
            network=full_name("networks", network, "network") if network else "",
            cloud_init=cloud_init,
            start=start,
        )

    async def import_xml(
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
        answer: pb.ImportVmResponse = await self._ask(
            VMS["ImportVm"],
            options,
            xml=xml,
            vm_id=vm_id,
            volumes={k: full_name("pools/volumes", v) for k, v in (volumes or {}).items()},
            networks={k: full_name("networks", v) for k, v in (networks or {}).items()},
        )
        return answer

    async def update(
        self, vm: Vm, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Takes over the fields of the mask ("spec.cpu.vcpus") from `vm`; all that are set without
        one."""
        method = VMS["UpdateVm"]
        return await self._begin(method, Vm, options, vm=vm, update_mask=mask(update_mask))

    async def change(
        self, vm: str, change: Callable[[Vm], object], **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        async def update(wanted: Vm, paths: Sequence[str]) -> AsyncPending[Vm]:
            return await self.update(wanted, paths, **options)

        begun: AsyncPending[Vm] = await self._changed(vm, change, update)
        return begun

    async def delete(
        self,
        vm: str,
        *,
        delete_volumes: bool = False,
        force: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Message]:
        """Removes a VM. force: switch it off first."""
        return await self._begin(
            VMS["DeleteVm"],
            Message,
            options,
            name=self.name(vm),
            delete_volumes=delete_volumes,
            force=force,
        )

    async def start(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Switches it on; done when it runs."""
        return await self._begin(VMS["StartVm"], Vm, options, name=self.name(vm))

    async def shutdown(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Asks the guest to shut down, switches it off after its timeout."""
        return await self._begin(VMS["ShutdownVm"], Vm, options, name=self.name(vm))

    async def stop(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Switches it off at once."""
        return await self._begin(VMS["StopVm"], Vm, options, name=self.name(vm))

    async def reboot(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Restarts the guest cleanly; changes that waited for it take effect."""
        return await self._begin(VMS["RebootVm"], Vm, options, name=self.name(vm))

    async def reset(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Presses the reset button."""
        return await self._begin(VMS["ResetVm"], Vm, options, name=self.name(vm))

    async def pause(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Halts its processors."""
        return await self._begin(VMS["PauseVm"], Vm, options, name=self.name(vm))

    async def resume(self, vm: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Lets it go on."""
        return await self._begin(VMS["ResumeVm"], Vm, options, name=self.name(vm))

    async def rename(self, vm: str, new_vm_id: str, **options: Unpack[Options]) -> AsyncPending[Vm]:
        """Gives a VM that is off another name."""
        method = VMS["RenameVm"]
        return await self._begin(method, Vm, options, name=self.name(vm), new_vm_id=new_vm_id)

    async def clone(
        self, vm: str, vm_id: str, *, start: bool = False, **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Makes a new VM with copies of its volumes."""
        method = VMS["CloneVm"]
        return await self._begin(method, Vm, options, name=self.name(vm), vm_id=vm_id, start=start)

    async def attach_disk(
        self, vm: str, disk: vm_pb2.DiskSpec, **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Adds a drive, live when it runs."""
        return await self._begin(VMS["AttachDisk"], Vm, options, name=self.name(vm), disk=disk)

    async def detach_disk(
        self, vm: str, disk_id: str, **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Takes a drive out; its volume stays."""
        method = VMS["DetachDisk"]
        return await self._begin(method, Vm, options, name=self.name(vm), disk_id=disk_id)

    async def attach_nic(
        self, vm: str, nic: vm_pb2.NicSpec, **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Adds a network interface, live when it runs."""
        return await self._begin(VMS["AttachNic"], Vm, options, name=self.name(vm), nic=nic)

    async def detach_nic(
        self, vm: str, nic_id: str, **options: Unpack[Options]
    ) -> AsyncPending[Vm]:
        """Takes a network interface out."""
        method = VMS["DetachNic"]
        return await self._begin(method, Vm, options, name=self.name(vm), nic_id=nic_id)

    async def migrate(
        self,
        vm: str,
        to: str = "",
        *,
        method: Method = METHOD,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Vm]:
        """Moves it to another node for a while; to the best when `to` is empty. copy_volumes: what
        cannot be opened there goes along."""
        return await self._begin(
            PLACEMENT["MigrateVm"],
            Vm,
            options,
            name=self.name(vm),
            node=_node(to),
            method=method,
            copy_volumes=copy_volumes,
        )

    async def move(
        self,
        vm: str,
        to: str = "",
        *,
        method: Method = METHOD,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Vm]:
        """Moves it to another node for good; to the best when `to` is empty. copy_volumes: as
        in migrate."""
        return await self._begin(
            PLACEMENT["MoveVm"],
            Vm,
            options,
            name=self.name(vm),
            node=_node(to),
            method=method,
            copy_volumes=copy_volumes,
        )

    async def unmigrate(
        self,
        vm: str,
        *,
        method: Method = METHOD,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Vm]:
        """Brings it back to the node that it had to leave. copy_volumes: as in migrate."""
        return await self._begin(
            PLACEMENT["UnmigrateVm"],
            Vm,
            options,
            name=self.name(vm),
            method=method,
            copy_volumes=copy_volumes,
        )

    async def explain(self, vm: str) -> place_pb.ExplainVmResponse:
        """Why it is where it is, and why not elsewhere."""
        method = PLACEMENT["ExplainVm"]
        answer: place_pb.ExplainVmResponse = await self._ask(method, name=self.name(vm))
        return answer

    async def domain_xml(self, vm: str) -> str:
        """The libvirt domain that the VM is on its node."""
        return str((await self._ask(VMS["GetDomainXml"], name=self.name(vm))).xml)

    def console(self, vm: str, *, force: bool = False) -> AsyncConsole:
        """Attaches to the serial console. force: take it over from whoever has it."""
        return AsyncConsole(self.transport, VMS["AttachConsole"], self.name(vm), force=force)

    def console_log(
        self, vm: str, lines: int = 1000, *, follow: bool = False
    ) -> AsyncIterator[bytes]:
        """What the guest wrote to its console, piece by piece; with follow it goes on."""
        method = VMS["ReadConsoleLog"]
        request = method.request(name=self.name(vm), lines=lines, follow=follow)
        return (answer.data async for answer in self.transport.stream(method, request))


def _node(name: str) -> str:
    return full_name("nodes", name, "node") if name else ""

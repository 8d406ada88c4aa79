"""Answers about virtual machines. Mutations are plans of the core; nothing is done here but what a
stream needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2
from services.compute import imports
from services.compute.consoles import Consoles
from services.compute.core import copies, edits, requests
from services.compute.drivers.domain_xml import domain_xml
from services.compute.machine import machine_for
from services.compute.settings import ComputeSettings
from services.mesh.desk import Context, Desk, Plan
from services.mesh.errors import not_found
from services.mesh.query import page
from services.state.store import Snapshot

Operation = operation_pb2.Operation


class VmService(api_grpc.VmServiceServicer):
    """See the contract."""

    def __init__(
        self, desk: Desk, settings: ComputeSettings, accelerator: str, consoles: Consoles
    ) -> None:
        self._desk = desk
        self._settings = settings
        self._accelerator = accelerator
        self._consoles = consoles

    async def GetVm(self, request: api.GetVmRequest, context: Context) -> vm_pb2.Vm:
        """See the contract."""
        return await self._desk.get(vm_pb2.Vm, request, context)

    async def ListVms(self, request: api.ListVmsRequest, context: Context) -> api.ListVmsResponse:
        """See the contract."""
        return await self._desk.list(vm_pb2.Vm, request, api.ListVmsResponse, context)

    async def WatchVms(
        self, request: api.WatchVmsRequest, context: Context
    ) -> AsyncIterator[api.WatchVmsResponse]:
        """See the contract."""
        answers = self._desk.watch(vm_pb2.Vm, request, api.WatchVmsResponse, context)
        async for answer in answers:
            yield answer

    async def CreateVm(self, request: api.CreateVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.create, request, context)

    async def UpdateVm(self, request: api.UpdateVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.update, request, context)

    async def DeleteVm(self, request: api.DeleteVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.delete, request, context)

    async def StartVm(self, request: api.StartVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.power(requests.START), request, context)

    async def ShutdownVm(self, request: api.ShutdownVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.power(requests.SHUTDOWN), request, context)

    async def StopVm(self, request: api.StopVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.power(requests.STOP), request, context)

    async def PauseVm(self, request: api.PauseVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.power(requests.PAUSE), request, context)

    async def ResumeVm(self, request: api.ResumeVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.power(requests.RESUME), request, context)

    async def RebootVm(self, request: api.RebootVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.reboot, request, context)

    async def ResetVm(self, request: api.ResetVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(requests.reset, request, context)

    async def RenameVm(self, request: api.RenameVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.rename, request, context)

    async def CloneVm(self, request: api.CloneVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(copies.clone, request, context)

    async def AttachDisk(self, request: api.AttachDiskRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.attach_disk, request, context)

    async def DetachDisk(self, request: api.DetachDiskRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.detach_disk, request, context)

    async def AttachNic(self, request: api.AttachNicRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.attach_nic, request, context)

    async def DetachNic(self, request: api.DetachNicRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(edits.detach_nic, request, context)

    async def ImportVm(
        self, request: api.ImportVmRequest, context: Context
    ) -> api.ImportVmResponse:
        """See the contract."""
        plan: Plan = imports.import_vm
        return await self._desk.mutate(request, api.ImportVmResponse, plan, context)

    async def GetDomainXml(
        self, request: api.GetDomainXmlRequest, context: Context
    ) -> api.GetDomainXmlResponse:
        """See the contract."""
        snapshot = await self._desk.fresh(context)
        vm = _vm(snapshot, request.name)
        machine = machine_for(snapshot, vm, self._settings, self._accelerator, {})
        return api.GetDomainXmlResponse(xml=domain_xml(vm, machine))

    async def CreateVmSnapshot(
        self, request: api.CreateVmSnapshotRequest, context: Context
    ) -> Operation:
        """See the contract."""
        return await self._accept(copies.create_snapshot, request, context)

    async def ListVmSnapshots(
        self, request: api.ListVmSnapshotsRequest, context: Context
    ) -> api.ListVmSnapshotsResponse:
        """See the contract."""
        snapshot = await self._desk.fresh(context)
        _vm(snapshot, request.parent, "parent")
        return page(snapshot, vm_pb2.VmSnapshot, request, api.ListVmSnapshotsResponse)

    async def DeleteVmSnapshot(
        self, request: api.DeleteVmSnapshotRequest, context: Context
    ) -> Operation:
        """See the contract."""
        return await self._accept(copies.delete_snapshot, request, context)

    async def RollbackVmSnapshot(
        self, request: api.RollbackVmSnapshotRequest, context: Context
    ) -> Operation:
        """See the contract."""
        return await self._accept(copies.rollback, request, context)

    async def AttachConsole(
        self, request_iterator: AsyncIterator[api.AttachConsoleRequest], context: Context
    ) -> AsyncIterator[api.AttachConsoleResponse]:
        """See the contract."""
        snapshot = await self._desk.fresh(context)
        async for answer in self._consoles.attach(snapshot, request_iterator):
            yield answer

    async def ReadConsoleLog(
        self, request: api.ReadConsoleLogRequest, context: Context
    ) -> AsyncIterator[api.ReadConsoleLogResponse]:
        """See the contract."""
        _vm(await self._desk.fresh(context), request.name)
        async for answer in self._consoles.read_log(request):
            yield answer

    async def _accept(self, plan: Plan, request: Any, context: Context) -> Operation:
        return await self._desk.mutate(request, Operation, plan, context)


def _vm(snapshot: Snapshot, name: str, field: str = "name") -> vm_pb2.Vm:
    vm = snapshot.find(vm_pb2.Vm, name)
    if vm is None:
        raise not_found(name, field)
    return vm

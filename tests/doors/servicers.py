"""Services that answer the way PVC's own do, but whose VMs exist in the state alone: what the
doors,
the client and the shell are tried on."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as vm_pb
from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as provision_pb
from pvc.provisioner.v1 import provisioner_service_pb2_grpc as provision_grpc
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_pb
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh import rows
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import PvcError, not_found, refuse
from services.state.store import Conflict, Delete, Put, Snapshot

Operation = operation_pb2.Operation
Vm = vm_pb2.Vm

BANNER = b"Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: "
STAGES = (("choosing a node", 10), ("starting the emulator", 60))


def accepted(call: Call, request: Any, method: str, target: str, *more: Any) -> Mutation:
    operation = rows.new_operation(call, request, method=method, target=target, service="compute")
    return Mutation([Put(operation), *more], operation)


class Vms(vm_grpc.VmServiceServicer):
    """`work_s`: how long each stage of an operation takes; while `may_go_on` is not set, operations
    stay where they have come to. A VM named "bad" does not start, one named "silent" says nothing
    on its console."""

    def __init__(self, desk: Desk, work_s: float) -> None:
        self.desk = desk
        self.work_s = work_s
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.working: set[asyncio.Task[None]] = set()
        self.requests: list[Any] = []

    async def GetVm(self, request: Any, context: Context) -> Vm:
        return await self.desk.get(Vm, request, context)

    async def ListVms(self, request: Any, context: Context) -> Any:
        return await self.desk.list(Vm, request, vm_pb.ListVmsResponse, context)

    async def WatchVms(self, request: Any, context: Context) -> AsyncIterator[Any]:
        async for answer in self.desk.watch(Vm, request, vm_pb.WatchVmsResponse, context):
            yield answer

    async def CreateVm(self, request: Any, context: Context) -> Operation:
        self.requests.append(request)

        def plan(snapshot: Snapshot, asked: Any, call: Call) -> Mutation:
            name = f"vms/{asked.vm_id}"
            if snapshot.find(Vm, name) is not None:
                refuse(reason_pb2.REASON_ALREADY_EXISTS, f"{name} exists", "vm_id")
            vm = Vm(name=name, meta=rows.new_meta(call, asked.vm.meta.labels), spec=asked.vm.spec)
            return accepted(call, asked, "pvc.compute.v1.VmService/CreateVm", name, Put(vm))

        return await self._begin(request, plan, context)

    async def UpdateVm(self, request: Any, context: Context) -> Operation:
        self.requests.append(request)

        def plan(snapshot: Snapshot, asked: Any, call: Call) -> Mutation:
            vm = rows.copied(self._there(snapshot, asked.vm.name))
            rows.check_etag(vm, asked.vm.meta.etag, "vm.meta.etag")
            asked.update_mask.MergeMessage(asked.vm, vm, True, True)
            return accepted(call, asked, "pvc.compute.v1.VmService/UpdateVm", vm.name, Put(vm))

        return await self._begin(request, plan, context)

    async def DeleteVm(self, request: Any, context: Context) -> Operation:
        self.requests.append(request)

        def plan(snapshot: Snapshot, asked: Any, call: Call) -> Mutation:
            vm = self._there(snapshot, asked.name)
            gone = Delete(vm.name, vm.meta.etag)
            return accepted(call, asked, "pvc.compute.v1.VmService/DeleteVm", vm.name, gone)

        return await self._begin(request, plan, context)

    async def StartVm(self, request: Any, context: Context) -> Operation:
        self.requests.append(request)

        def plan(snapshot: Snapshot, asked: Any, call: Call) -> Mutation:
            vm = rows.copied(self._there(snapshot, asked.name))
            if vm.status.state == vm_pb2.VM_STATE_RUNNING:
                refuse(reason_pb2.REASON_WRONG_STATE, f"{vm.name} is running already")
            vm.status.state = vm_pb2.VM_STATE_STARTING
            return accepted(call, asked, "pvc.compute.v1.VmService/StartVm", vm.name, Put(vm))

        return await self._begin(request, plan, context)

    async def ListVmSnapshots(self, request: Any, context: Context) -> Any:
        self._there(self.desk.store.snapshot(), request.parent)
        return await self.desk.list(
            vm_pb2.VmSnapshot, request, vm_pb.ListVmSnapshotsResponse, context
        )

    async def AttachConsole(
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        """Says a login prompt, then echoes what is typed in capitals until an end-of-file."""
        first = await anext(requests)
        self._there(self.desk.store.snapshot(), first.name)
        yield vm_pb.AttachConsoleResponse(data=BANNER)
        async for typed in requests:
            if b"\x04" in typed.data:
                return
            yield vm_pb.AttachConsoleResponse(data=typed.data.upper())

    async def ReadConsoleLog(self, request: Any, context: Context) -> AsyncIterator[Any]:
        self._there(self.desk.store.snapshot(), request.name)
        if request.name == "vms/silent":
            await asyncio.sleep(60)
        for line in [f"[    {n}.0] line {n}\r\n" for n in range(1, 6)][-(request.lines or 1000) :]:
            yield vm_pb.ReadConsoleLogResponse(data=line.encode())

    async def GetDomainXml(self, request: Any, context: Context) -> Any:
        vm = self._there(self.desk.store.snapshot(), request.name)
        return vm_pb.GetDomainXmlResponse(xml=f"<domain><name>{vm.name[4:]}</name></domain>\n")

    async def _begin(self, request: Any, plan: Any, context: Context) -> Operation:
        operation = await self.desk.mutate(request, Operation, plan, context)
        if not request.validate_only:
            task = asyncio.create_task(work(self, operation))
            self.working.add(task)
            task.add_done_callback(self.working.discard)
        return operation

    @staticmethod
    def _there(snapshot: Snapshot, name: str) -> Vm:
        vm = snapshot.find(Vm, name)
        if vm is None:
            raise not_found(name)
        return vm


async def work(vms: Vms, operation: Operation) -> None:
    """Does what an agent would: stages, then the outcome."""
    store, now = vms.desk.store, vms.desk.clock.now

    async def written(change: Callable[[Operation], list[Any]]) -> None:
        """Others write too, as who asks for a cancel: then it is read again. What has ended stays
        as it is, as after a request that came twice."""
        while True:
            found = store.snapshot().find(Operation, operation.name)
            assert found is not None
            if found.state in rows.FINAL:
                return
            try:
                store.commit(change(rows.copied(found)))
                return
            except Conflict:
                await asyncio.sleep(0.005)

    def at(stage: str, percent: int, row: Operation) -> list[Any]:
        row.stage, row.percent = stage, percent
        rows.log_line(row, stage, now())
        return [Put(row)]

    running = Operation.STATE_RUNNING
    await written(lambda row: [Put(rows.enter_operation(row, running, now()))])
    for stage, percent in STAGES:
        await asyncio.sleep(vms.work_s)
        await written(partial(at, stage, percent))
        while not vms.may_go_on.is_set():
            await asyncio.sleep(0.005)
    await written(lambda row: outcome(store.snapshot(), row, now()))


def outcome(snapshot: Snapshot, operation: Operation, now: Any) -> list[Any]:
    """How it ends, and what becomes of its VM."""
    if operation.target == "vms/bad":
        error = PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, "QEMU said: no such machine")
        return [Put(rows.enter_operation(operation, Operation.STATE_FAILED, now, error=error))]
    if operation.cancel_requested:
        error = PvcError(reason_pb2.REASON_CANCELLED, "cancelled by request")
        return [Put(rows.enter_operation(operation, Operation.STATE_CANCELLED, now, error=error))]
    vm, changes = snapshot.find(Vm, operation.target), []
    if vm is not None and operation.method.endswith("StartVm"):
        vm = rows.copied(vm)
        vm.status.state = vm_pb2.VM_STATE_RUNNING
        changes.append(Put(vm))
    ended = rows.enter_operation(operation, Operation.STATE_SUCCEEDED, now, result=vm)
    return [Put(ended), *changes]


class Storage(storage_grpc.StorageServiceServicer):
    """Files are kept in memory."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.files: dict[str, bytes] = {}
        self.sent: list[bytes] = []

    async def GetVolume(self, request: Any, context: Context) -> Any:
        return await self.desk.get(storage_pb2.Volume, request, context)

    async def ListVolumes(self, request: Any, context: Context) -> Any:
        kind = storage_pb2.Volume
        return await self.desk.list(kind, request, storage_pb.ListVolumesResponse, context)

    async def DeleteFile(self, request: Any, context: Context) -> Any:
        self.files.pop(request.name)
        return storage_pb.DeleteFileResponse()

    async def GetPool(self, request: Any, context: Context) -> Any:
        return await self.desk.get(storage_pb2.Pool, request, context)

    async def ListPools(self, request: Any, context: Context) -> Any:
        kind = storage_pb2.Pool
        return await self.desk.list(kind, request, storage_pb.ListPoolsResponse, context)

    async def UploadFile(self, requests: AsyncIterator[Any], context: Context) -> Any:
        first = await anext(requests)
        content = first.data + b"".join([piece.data async for piece in requests])
        digest = hashlib.sha256(content).hexdigest()
        if first.sha256 not in ("", digest) or len(content) != first.size_bytes:
            refuse(reason_pb2.REASON_INVALID_CONTENT, "the file arrived damaged", "sha256")
        self.files["files/f1"] = content
        self.sent.append(content)
        return storage_pb.FileInfo(name="files/f1", size_bytes=len(content), sha256=digest)

    async def DownloadFile(self, request: Any, context: Context) -> AsyncIterator[Any]:
        content = self.files.get(request.name)
        if content is None:
            raise not_found(request.name)
        for start in range(request.offset, len(content), 1000):
            yield storage_pb.DownloadFileResponse(data=content[start : start + 1000])


class Provisioner(provision_grpc.ProvisionerServiceServicer):
    """Makes VMs from images by writing them down."""

    def __init__(self, desk: Desk, vms: Vms) -> None:
        self.desk = desk
        self.vms = vms

    async def ListImages(self, request: Any, context: Context) -> Any:
        kind = image_pb2.Image
        return await self.desk.list(kind, request, provision_pb.ListImagesResponse, context)

    async def ProvisionVm(self, request: Any, context: Context) -> Operation:
        self.vms.requests.append(request)

        def plan(snapshot: Snapshot, asked: Any, call: Call) -> Mutation:
            name = f"vms/{asked.vm_id}"
            vm = Vm(name=name, meta=rows.new_meta(call), spec=asked.spec)
            method = "pvc.provisioner.v1.ProvisionerService/ProvisionVm"
            return accepted(call, asked, method, name, Put(vm))

        return await self.vms._begin(request, plan, context)

"""Long work that makes a VM from an image: its root volume, its seed, the VM itself.

Whatever was made is taken away again when a step fails. An attempt that comes after a dead one
finds by their marks what that one made, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from pvc.compute.v1 import vm_pb2, vm_service_pb2
from pvc.core.v1 import reason_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from services.mesh import rows
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Job, Outcome, Task
from services.provisioner.core import facts, provision
from services.provisioner.core.facts import ROOT, SEED, Operation, Vm, Volume, vm_volume
from services.provisioner.seed_files import SeedFiles
from services.provisioner.workshop import Part, Workshop, holding, source_of_bytes

ADDED = 2
"""Drives that stand before the user's own."""
AT_ROOT, AT_SEED, AT_VM, AT_END = 2, 30, 45, 99
"""Percent at which each step begins."""


class VmJobs:
    """See the module."""

    def __init__(self, workshop: Workshop, seeds: SeedFiles) -> None:
        self._shop = workshop
        self._seeds = seeds

    def methods(self) -> Mapping[str, Job]:
        """Method → job."""
        return {f"{facts.PREFIX}ProvisionVm": self.provision}

    def provision(self, task: Task) -> Outcome:
        """See the module. What an earlier attempt may have made is on the undo stack from the
        beginning, so that a cancel at any point leaves nothing."""
        request = task.request(api.ProvisionVmRequest)
        task.undo.callback(self._drop_volume, task, request, ROOT)
        task.undo.callback(self._drop_volume, task, request, SEED)
        task.undo.callback(self._drop_vm, task, request)
        task.stage("making the root volume from the image", AT_ROOT)
        self._make_root(task, request)
        task.stage("making the cloud-init seed", AT_SEED)
        self._make_seed(task, request)
        task.stage("starting the VM" if request.start else "making the VM", AT_VM)
        vm = rows.copied(self._make_vm(task, request))
        vm.meta.etag = ""
        return Outcome(vm, list)

    def _make_root(self, task: Task, request: api.ProvisionVmRequest) -> None:
        name = vm_volume(request.pool, request.vm_id, ROOT)
        mark = self._mark(task, request, ROOT)
        image = provision.ready_image(self._shop.store.snapshot(), request.image)
        wanted = storage.CreateVolumeRequest(
            parent=request.pool, volume_id=facts.id_of(name),
            volume=Volume(spec=storage_pb2.VolumeSpec(
                description=mark, size_bytes=request.root_size_bytes,
                source_volume=image.status.volume,
            )),
        )  # fmt: skip
        node = self._shop.node_of(request.pool)
        part = Part(task, AT_ROOT, AT_SEED)
        self._shop.make_volume(part, name, mark, lambda: self._shop.ask(task, wanted, ROOT, node))

    def _make_seed(self, task: Task, request: api.ProvisionVmRequest) -> None:
        name = vm_volume(request.pool, request.vm_id, SEED)
        self._replace_abandoned(task, request, name)
        wanted = storage.ImportVolumeRequest(
            parent=request.pool, volume_id=facts.id_of(name),
            description=self._mark(task, request, SEED),
            format=storage_pb2.IMAGE_FORMAT_RAW, sealed=True,
        )  # fmt: skip
        seed = source_of_bytes(self._seeds.read(task.name), f"{request.vm_id}-seed.iso")
        self._shop.import_volume(task, (AT_SEED, AT_VM), wanted, seed)

    def _replace_abandoned(self, task: Task, request: api.ProvisionVmRequest, name: str) -> None:
        """The seed of an earlier VM of this id, which nobody needs any more."""
        snapshot = self._shop.store.snapshot()
        there = snapshot.find(Volume, name)
        ours = self._mark(task, request, SEED)
        if there is None or there.spec.description == ours:
            return
        if facts.replaceable_seed(snapshot, there, task.target):
            mark = there.spec.description
            self._shop.remove_volume(task, name, mark, step=f"replace-{there.meta.uid}")

    def _make_vm(self, task: Task, request: api.ProvisionVmRequest) -> Vm:
        """The VM, once it runs if it is to start. Raises ALREADY_EXISTS when it is another's."""
        shop, uuid = self._shop, request.spec.uuid
        on_step = shop.follow(Part(task, AT_VM, AT_END))
        if shop.store.snapshot().find(Vm, task.target) is None:
            operation = self._begin_vm(task, request)
        else:
            operation = facts.making_of(shop.store.snapshot(), task.target, uuid)
        if operation is not None:
            shop.waiting.success_of(operation.name, on_step)
        vm = shop.store.snapshot().find(Vm, task.target)
        if vm is None:
            refuse(reason_pb2.REASON_INTERRUPTED, f"somebody removed {task.target} meanwhile")
        if vm.spec.uuid != uuid:
            text = f"{task.target} was made by somebody else meanwhile: choose another id"
            refuse(reason_pb2.REASON_ALREADY_EXISTS, text, "vm_id")
        return vm

    def _begin_vm(self, task: Task, request: api.ProvisionVmRequest) -> Operation | None:
        wanted = vm_service_pb2.CreateVmRequest(
            vm_id=request.vm_id,
            vm=vm_pb2.Vm(spec=provision.whole_spec(request)),
            start=request.start,
        )
        try:
            return self._shop.ask(task, wanted, "vm")
        except PvcError as error:
            if error.reason != reason_pb2.REASON_ALREADY_EXISTS:
                raise provision.at_our_field(error, ADDED) from error
            # An answer that got lost, or an earlier attempt's request that came late.
            return facts.making_of(self._shop.store.snapshot(), task.target, request.spec.uuid)

    def _drop_vm(self, task: Task, request: api.ProvisionVmRequest) -> None:
        if not self._shop.ours(task):
            return
        vm = self._shop.store.snapshot().find(Vm, task.target)
        if vm is None or vm.spec.uuid != request.spec.uuid:
            return
        deletion = vm_service_pb2.DeleteVmRequest(name=task.target, force=True)
        try:
            operation = self._shop.ask(task, deletion, "remove-vm")
            self._shop.waiting.success_of(operation.name, holding(task))
        except PvcError as error:
            if error.reason != reason_pb2.REASON_NOT_FOUND:
                raise

    def _drop_volume(self, task: Task, request: api.ProvisionVmRequest, drive: str) -> None:
        if self._shop.ours(task):
            name = vm_volume(request.pool, request.vm_id, drive)
            self._shop.remove_volume(task, name, self._mark(task, request, drive))

    @staticmethod
    def _mark(task: Task, request: api.ProvisionVmRequest, drive: str) -> str:
        mark = facts.root_mark if drive == ROOT else facts.seed_mark
        return mark(f"vms/{request.vm_id}", task.name)

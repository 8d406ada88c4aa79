"""A node's provisioner in one process, beside the storage service as it is, with a fake driver, and
a compute service that accepts as it does and runs VMs at once. The provisioner can die at any call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pvc.compute.v1 import vm_pb2, vm_service_pb2
from pvc.coordinator.v1 import coordinator_service_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.compute.core import edits
from services.coordinator.operation_service import cancel
from services.mesh import rows
from services.mesh.desk import Desk
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Jobs, Task
from services.mesh.validate import check_request
from services.provisioner.build import builtin_recipes
from services.provisioner.cache import ImageCache
from services.provisioner.core import requests
from services.provisioner.core.facts import SERVICE
from services.provisioner.core.recipe import Recipe
from services.provisioner.jobs.images import ImageJobs
from services.provisioner.jobs.vms import VmJobs
from services.provisioner.seed_files import SeedFiles
from services.provisioner.service import accept_import, accept_vm
from services.provisioner.sweep import Sweep
from services.provisioner.waiting import Waiting
from services.provisioner.workshop import Workshop
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from services.storage.core import volumes
from services.storage.drivers.driver import Format, ImageFacts
from services.storage.drivers.fake import Died, FakeDriver
from tests.storage.worlds import MIB, NODE, POOL, CutStore, Inline
from tests.storage.worlds import World as StorageWorld

IMAGE_BYTES = 16 * MIB
CALLER = "token ann"
Operation = operation_pb2.Operation
SUCCEEDED, FAILED = Operation.STATE_SUCCEEDED, Operation.STATE_FAILED
CANCELLED = Operation.STATE_CANCELLED


def qcow2() -> bytes:
    """A file that begins as a qcow2 does."""
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, IMAGE_BYTES, 0, 1, 1024, 2048, 1, 0, 0
    )
    return head.ljust(4096, b"\0")


class SeeingDriver(FakeDriver):
    """Reads every qcow2 as one of 16 MiB, and every raw image as what it is."""

    def inspect(self, path: str, format: Format) -> ImageFacts:
        size = IMAGE_BYTES if format == "qcow2" else Path(path).stat().st_size
        facts = ImageFacts(format, size, MIB, "", (), False, False)
        self.images[path] = (facts, Path(path).read_bytes()[:4].hex())
        return super().inspect(path, format)


class FakeBuilder:
    """Builds at once; fails or is cancelled as the test says."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.builds: list[str] = []
        self.fault: Callable[[Task], None] = lambda task: None
        self._tick = tick

    def build(self, recipe: Recipe, target: Path, task: Task, end: int) -> None:
        self._tick()
        task.stage("installing packages", end // 2)
        self.fault(task)
        self.builds.append(recipe.name)
        new = target.with_suffix(".part")
        new.write_bytes(qcow2())
        self._tick()
        new.replace(target)
        self._tick()


class LocalNeighbours:
    """The other services in this process: they accept as they do, and work at once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.begun: list[str] = []
        self.fault: Callable[[Any], None] = lambda request: None
        """Called with every request; may raise instead of the service."""
        self.working: Callable[[str], None] = lambda operation: None
        """Called between an operation's acceptance and its work."""

    def begin(self, request: Any, caller: str, node: str = "") -> Operation:
        world, plan = self._world, PLANS[type(request)]
        world.tick()
        asked = rows.copied(request)
        check_request(asked)
        self.fault(asked)
        if isinstance(asked, storage_service_pb2.ImportVolumeRequest):
            plan = partial(volumes.import_volume, file=self._file(asked.file))
        answer: Any = world.desk._mutate(asked, plan, caller)
        if not getattr(asked, "validate_only", False):
            self.begun.append(f"{type(request).__name__.removesuffix('Request')} {answer.target}")
            self.working(answer.name)
            self._work(answer.name)
        world.tick()
        return answer  # type: ignore[no-any-return]

    def _file(self, name: str) -> Any:
        """As the storage service has it."""
        try:
            return self._world.storage.files.find(name, "file")
        except PvcError as error:
            refuse(reason_pb2.REASON_DANGLING_REFERENCE, error.message, "file")

    def _work(self, name: str) -> None:
        self._world.storage.jobs.step()
        operation = self._world.operation(name)
        if operation.service == "compute" and operation.state not in rows.FINAL:
            self._world.run_vm(operation)

    def upload(self, file: BinaryIO, size: int, source_name: str, on_bytes: Any, node: str) -> str:
        assert node == NODE
        self._world.tick()
        upload = self._world.storage.files.begin(size, "", source_name)
        on_bytes(0)
        upload.write(file.read())
        kept = upload.finish()
        self._world.tick()
        return kept.name

    def drop_file(self, name: str, node: str) -> None:
        self._world.tick()
        self._world.storage.files.drop(name)
        self._world.tick()


PLANS: dict[type, Any] = {
    storage_service_pb2.CreateVolumeRequest: volumes.create_volume,
    storage_service_pb2.ImportVolumeRequest: None,
    storage_service_pb2.DeleteVolumeRequest: volumes.delete_volume,
    vm_service_pb2.CreateVmRequest: edits.create,
    vm_service_pb2.DeleteVmRequest: edits.delete,
    coordinator_service_pb2.CancelOperationRequest: cancel,
}


class World:
    """Everything that outlives the provisioner's process, and the process that is there now."""

    def __init__(self, folder: Path) -> None:
        self.storage = StorageWorld(folder, SeeingDriver())
        self.storage.fake = self.storage.driver  # type: ignore[assignment]
        self.clock = self.storage.clock
        self.folder = folder
        self.outside = MemoryStore(self.storage.cluster)
        """The state as the other services and the test see it."""
        self.desk = Desk(self.outside, self.clock, NODE)
        self.countdown, self.steps, self.dead = -1, 0, False
        self.builder = FakeBuilder(self.tick)
        self.neighbours = LocalNeighbours(self)
        self.outside.commit([Put(network_pb2.Network(name="networks/default"))])
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.dead = False
        self.store = CutStore(self.storage.cluster, self.tick)
        self.seeds = SeedFiles(self.folder / "seeds", self.clock)
        waiting = Waiting(self.store, self.clock, stall_s=50, look_s=0.01)
        shop = Workshop(self.store, self.clock, self.neighbours, waiting)
        cache = ImageCache(self.folder / "cache", self.clock)
        images = ImageJobs(shop, cache, self.builder, builtin_recipes())
        methods = {**images.methods(), **VmJobs(shop, self.seeds).methods()}
        self.jobs = Jobs(self.store, self.clock, SERVICE, NODE, methods)
        self.jobs._pool = Inline()  # type: ignore[assignment]
        self.sweep = Sweep(self.store, self.neighbours, self.seeds, NODE)

    def tick(self) -> None:
        """A call to the outside; the process dies when its time has come, and then does nothing."""
        self.steps += 1
        self.countdown -= 1
        if self.countdown == 0 or self.dead:
            self.dead = True
            raise Died

    def die(self) -> None:
        """The process ends, and another begins."""
        self.countdown = -1
        self.store.lose_session()
        self.start()

    def ask(self, request: Any, plan: Any = None) -> Operation:
        """Accepts a request as the service does."""
        check_request(request)
        answer = self.desk._mutate(request, plan or self.plan_of(request), CALLER)
        assert isinstance(answer, Operation)
        return answer

    def plan_of(self, request: Any) -> Any:
        match request:
            case api.BuildImageRequest():
                return partial(requests.build_image, recipes=builtin_recipes())
            case api.ImportImageRequest():
                return partial(accept_import, neighbours=self.neighbours)
            case api.DeleteImageRequest():
                return requests.delete_image
        return partial(accept_vm, neighbours=self.neighbours, seeds=self.seeds)

    def do(self, request: Any) -> Operation:
        """Accepts a request and does its work."""
        name = self.ask(request).name
        self.jobs.step()
        return self.operation(name)

    def cancel(self, name: str) -> None:
        row = rows.copied(self.operation(name))
        row.cancel_requested = True
        self.outside.commit([Put(row)])

    def run_vm(self, operation: Operation) -> None:
        """What agent and coordinator do for an operation on a VM."""
        vm = self.vm(operation.target.removeprefix("vms/"))
        assert vm is not None
        ended = rows.copied(operation)
        now = self.clock.now()
        if operation.method.endswith("DeleteVm"):
            ended = rows.enter_operation(ended, SUCCEEDED, now)
            self.outside.commit([Put(ended), Delete(vm.name, "*")])
            return
        after = rows.copied(vm)
        after.status.state = vm_pb2.VM_STATE_RUNNING
        ended = rows.enter_operation(ended, SUCCEEDED, now, result=after)
        self.outside.commit([Put(ended), Put(after)])

    def operation(self, name: str) -> Operation:
        found = self.outside.snapshot().find(Operation, name)
        assert found is not None
        return found

    def image(self, image_id: str = "debian") -> image_pb2.Image | None:
        return self.outside.snapshot().find(image_pb2.Image, f"images/{image_id}")

    def vm(self, vm_id: str = "web") -> vm_pb2.Vm | None:
        return self.outside.snapshot().find(vm_pb2.Vm, f"vms/{vm_id}")

    def volumes(self) -> list[str]:
        found = self.outside.snapshot().rows(storage_pb2.Volume)
        return [row.name.rpartition("/")[2] for row in found]

    def nothing_lies_about(self) -> None:
        """Every file of the pool is a volume's, no kept file is left."""
        files = {path.rpartition("/")[2].rpartition(".")[0] for path in self.paths()}
        assert files == set(self.volumes())
        assert not self.storage.files.all()

    def paths(self) -> list[str]:
        return list(self.storage.fake.folders["/pool"].disks)

    def with_image(self) -> World:
        """As after a build."""
        operation = self.do(build())
        assert operation.state == SUCCEEDED, operation.error
        self.neighbours.begun.clear()
        return self


def build(image_id: str = "debian", **fields: Any) -> api.BuildImageRequest:
    if "recipe_text" not in fields:
        fields.setdefault("recipe_id", "debian-12")
    return api.BuildImageRequest(image_id=image_id, pool=POOL, **fields)


def provision(vm_id: str = "web", **fields: Any) -> api.ProvisionVmRequest:
    fields.setdefault("start", True)
    fields.setdefault("image", "images/debian")
    return api.ProvisionVmRequest(vm_id=vm_id, **fields)

"""ProvisionerService: what a user may ask of images, and for VMs made from them. It checks and
accepts; the jobs do the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.provisioner.v1.image_pb2 import Image
from pvc.provisioner.v1.provisioner_service_pb2_grpc import ProvisionerServiceServicer
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import PvcError
from services.mesh.jobs import request_of
from services.provisioner.core import facts, provision, requests
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import parse_recipe
from services.provisioner.neighbours import Neighbours
from services.provisioner.seed_files import SeedFiles
from services.provisioner.seeds import SeedTexts, make_seed
from services.state.store import Put, Snapshot


class ProvisionerService(ProvisionerServiceServicer):
    """See the contract."""

    def __init__(
        self, desk: Desk, recipes: Mapping[str, str], neighbours: Neighbours, seeds: SeedFiles
    ) -> None:
        """recipes: the texts of those that PVC brings along, by id."""
        self._desk = desk
        self._recipes = recipes
        self._accept_import = partial(accept_import, neighbours=neighbours)
        self._accept_vm = partial(accept_vm, neighbours=neighbours, seeds=seeds)

    async def GetImage(self, request: api.GetImageRequest, context: Context) -> Image:
        """See the contract."""
        return await self._desk.get(Image, request, context)

    async def ListImages(
        self, request: api.ListImagesRequest, context: Context
    ) -> api.ListImagesResponse:
        """See the contract."""
        return await self._desk.list(Image, request, api.ListImagesResponse, context)

    async def WatchImages(
        self, request: api.WatchImagesRequest, context: Context
    ) -> AsyncIterator[api.WatchImagesResponse]:
        """See the contract."""
        async for change in self._desk.watch(Image, request, api.WatchImagesResponse, context):
            yield change

    async def ListRecipes(
        self, request: api.ListRecipesRequest, context: Context
    ) -> api.ListRecipesResponse:
        """See the contract."""
        return listed_recipes(self._recipes)

    async def BuildImage(self, request: api.BuildImageRequest, context: Context) -> Operation:
        """See the contract."""
        plan = partial(requests.build_image, recipes=self._recipes)
        return await self._desk.mutate(request, Operation, plan, context)

    async def ImportImage(self, request: api.ImportImageRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, self._accept_import, context)

    async def DeleteImage(self, request: api.DeleteImageRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, requests.delete_image, context)

    async def ProvisionVm(self, request: api.ProvisionVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, self._accept_vm, context)


def listed_recipes(recipes: Mapping[str, str]) -> api.ListRecipesResponse:
    """The recipes that PVC brings along, by name."""
    answer = api.ListRecipesResponse()
    for name, text in sorted(recipes.items()):
        answer.recipes.add(id=name, description=parse_recipe(text).description, text=text)
    return answer


def accept_import(
    snapshot: Snapshot, request: api.ImportImageRequest, call: Call, neighbours: Neighbours
) -> Mutation:
    """What `import_image` decides, once the storage service would take the file.

    Raises what `import_image` raises, and what the storage service raises.
    """
    mutation = requests.import_image(snapshot, request, call)
    image = next(row for row in _rows(mutation) if isinstance(row, Image))
    wanted = requests.volume_request(image, image.name, request.file)
    wanted.validate_only = True
    try:
        neighbours.begin(wanted, call.caller, facts.node_of_file(request.file))
    except PvcError as error:
        raise requests.at_our_field(error) from error
    return mutation


def accept_vm(
    snapshot: Snapshot,
    request: api.ProvisionVmRequest,
    call: Call,
    neighbours: Neighbours,
    seeds: SeedFiles,
) -> Mutation:
    """What `provision_vm` decides, once the texts for cloud-init made a seed and the compute
    service would take the VM. The seed is kept before the operation is there that needs it.

    Raises what `provision_vm` raises, INVALID_CONTENT, and what the compute service raises.
    """
    mutation = provision.provision_vm(snapshot, request, call)
    operation = next(row for row in _rows(mutation) if isinstance(row, Operation))
    accepted = request_of(operation)
    assert isinstance(accepted, api.ProvisionVmRequest)
    seed = seed_of(request, accepted)
    try:
        neighbours.begin(provision.added_to(accepted), call.caller)
    except PvcError as error:
        raise provision.at_our_field(error) from error
    if not request.validate_only:
        seeds.keep(operation.name, seed)
    return mutation


def seed_of(request: api.ProvisionVmRequest, accepted: api.ProvisionVmRequest) -> bytes:
    """The CD-ROM with the VM's cloud-init data. Raises INVALID_CONTENT with the text's field.

    accepted: the request with hardware addresses and the VM's UUID, which tells cloud-init that
    this is a new machine.
    """
    given = request.cloud_init
    texts = SeedTexts(given.user_data, given.meta_data, given.network_data)
    macs = [nic.mac for nic in accepted.spec.nics]
    try:
        return make_seed(texts, accepted.spec.uuid, request.vm_id, macs)
    except FieldProblem as problem:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONTENT, str(problem), field=problem.field
        ) from problem


def _rows(mutation: Mutation) -> list[Message]:
    return [change.value for change in mutation.changes if isinstance(change, Put)]

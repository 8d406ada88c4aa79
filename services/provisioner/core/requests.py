"""What requests about images mean: each a pure function from state and request to a Mutation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pvc.core.v1 import reason_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError, nearest, not_found, refuse, shown
from services.provisioner.core import facts
from services.provisioner.core.facts import Image, ImageStatus, Operation, Volume
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import Recipe, content_hash, parse_recipe
from services.state.store import Change, Put, Snapshot

Pool = storage_pb2.Pool


def build_image(
    snapshot: Snapshot, request: api.BuildImageRequest, call: Call, recipes: Mapping[str, str]
) -> Mutation:
    """recipes: the texts of those that PVC brings along, by id.

    Raises INVALID_FIELD, INVALID_CONTENT, ALREADY_EXISTS, BUSY, DANGLING_REFERENCE, WRONG_STATE.
    """
    recipe = recipe_of(request, recipes)
    image = _new_image(snapshot, call, request.image_id, request.pool, recipe.description)
    image.status.origin = f"recipe {recipe.name}"
    image.status.recipe_hash = content_hash(recipe)
    says = f"build {image.name} from the recipe {recipe.name}"
    return accepted(call, request, "BuildImage", image.name, says, [Put(image)])


def recipe_of(request: api.BuildImageRequest, recipes: Mapping[str, str]) -> Recipe:
    """The recipe that a request means. Raises INVALID_FIELD, INVALID_CONTENT."""
    source = request.WhichOneof("source")
    if source is None:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "say which recipe: recipe_id for one that PVC brings along, recipe_text for your own",
            "recipe_id",
        )
    if source == "recipe_id" and request.recipe_id not in recipes:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"there is no recipe {shown(request.recipe_id)}{nearest(request.recipe_id, recipes)}",
            "recipe_id",
        )
    text = recipes[request.recipe_id] if source == "recipe_id" else request.recipe_text
    try:
        return parse_recipe(text)
    except FieldProblem as problem:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONTENT,
            f"the recipe is refused: {problem}",
            field=source,
            metadata={"recipe_field": problem.field} if problem.field else None,
        ) from problem


def import_image(snapshot: Snapshot, request: api.ImportImageRequest, call: Call) -> Mutation:
    """Raises INVALID_FIELD, ALREADY_EXISTS, BUSY, DANGLING_REFERENCE, WRONG_STATE.

    Whether the file is there is known to the storage service alone; it is asked beside this.
    """
    image = _new_image(snapshot, call, request.image_id, request.pool, request.description)
    image.status.origin = f"file {facts.id_of(request.file)}"
    says = f"make {image.name} of {request.file}"
    return accepted(call, request, "ImportImage", image.name, says, [Put(image)])


def volume_request(image: Image, mark: str, file: str = "") -> storage.ImportVolumeRequest:
    """What the storage service is asked for an image's volume. mark: its description."""
    return storage.ImportVolumeRequest(
        parent=facts.pool_of(image.status.volume),
        volume_id=facts.id_of(image.status.volume),
        description=mark,
        file=file,
        sealed=True,
    )


def at_our_field(error: PvcError) -> PvcError:
    """A refusal of an image's volume at the field of the request for the image."""
    field = {"parent": "pool", "volume_id": "image_id"}.get(error.field, error.field)
    return PvcError(error.reason, error.message, field=field, metadata=error.metadata)


def delete_image(snapshot: Snapshot, request: api.DeleteImageRequest, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, BUSY, IN_USE."""
    image = snapshot.find(Image, request.name)
    if image is None:
        raise not_found(request.name)
    rows.check_etag(image, request.etag)
    check_not_busy(snapshot, image.name, "name")
    check_unused(snapshot, image)
    after = rows.copied(image)
    after.meta.delete_time.CopyFrom(call.now)
    says = f"remove {image.name} and {image.status.volume or 'nothing else'}"
    return accepted(call, request, "DeleteImage", image.name, says, [Put(after)])


def check_unused(snapshot: Snapshot, image: Image) -> None:
    """Raises BUSY while a VM is being made from the image, IN_USE while copies need it."""
    making = facts.using_image(snapshot, image.name)
    if making is not None:
        refuse(
            reason_pb2.REASON_BUSY,
            f"{making.name} is making {making.target} from {image.name}: wait for its end, or "
            "cancel it",
            "name",
        )
    copies = facts.copies_of(snapshot, image.status.volume)
    if copies:
        raise PvcError(
            reason_pb2.REASON_IN_USE,
            f"{len(copies)} volumes are copies on write of {image.name}: {facts.listed(copies)}; "
            "delete them first",
            field="name",
            metadata={"volumes": ",".join(copies[:20])},
        )


def check_not_busy(snapshot: Snapshot, target: str, field: str) -> None:
    """Raises BUSY while another operation of the provisioner works on the image or VM."""
    for operation in facts.unfinished(snapshot, target, facts.SERVICE):
        verb = operation.method.rpartition("/")[2]
        refuse(
            reason_pb2.REASON_BUSY,
            f"{target} is being worked on by {operation.name} ({verb}): wait for its end, or "
            "cancel it",
            field,
        )


def usable_pool(snapshot: Snapshot, name: str) -> Pool:
    """The pool to keep something in. Raises DANGLING_REFERENCE, WRONG_STATE."""
    pool = snapshot.find(Pool, name)
    if pool is None:
        refuse(reason_pb2.REASON_DANGLING_REFERENCE, f"{shown(name)} does not exist", "pool")
    if pool.meta.HasField("delete_time"):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{name} is being deleted; take another", "pool")
    if pool.status.state == storage_pb2.PoolStatus.STATE_FAILED:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{name} cannot be used: {pool.status.why}; mend that first",
            "pool",
        )
    return pool


def free_volume(snapshot: Snapshot, name: str, field: str) -> None:
    """Raises ALREADY_EXISTS unless a volume of that name can be made."""
    volume = snapshot.find(Volume, name)
    if volume is not None and not facts.abandoned_seed(snapshot, volume):
        refuse(
            reason_pb2.REASON_ALREADY_EXISTS,
            f"{name} would be made, and exists: delete it, or choose another id",
            field,
        )


def accepted(
    call: Call,
    request: Any,
    verb: str,
    target: str,
    says: str,
    changes: Sequence[Change] = (),
    operation_id: str = "",
) -> Mutation:
    """The mutation that accepts long work on this node; without a name when it only would be.

    verb: "BuildImage"; says: what will be done, for its log; operation_id: "" for a new one.
    """
    operation = rows.new_operation(
        call, request, method=f"{facts.PREFIX}{verb}", target=target, service=facts.SERVICE,
        node=call.node,
    )  # fmt: skip
    if operation_id:
        operation.name = f"operations/{operation_id}"
    rows.log_line(operation, says, call.now)
    return Mutation((*changes, Put(operation)), _answer(request, operation, says))


def _answer(request: Any, operation: Operation, says: str) -> Operation:
    if not request.validate_only:
        return operation
    answer = rows.copied(operation)
    answer.name = ""
    answer.stage = f"would be accepted: {says}"
    return answer


def _new_image(snapshot: Snapshot, call: Call, image_id: str, pool: str, description: str) -> Image:
    """The row of an image that is to be made. One that failed may be made again."""
    name = f"images/{image_id}"
    check_not_busy(snapshot, name, "image_id")
    before = snapshot.find(Image, name)
    if before is not None and before.status.state != ImageStatus.STATE_FAILED:
        refuse(
            reason_pb2.REASON_ALREADY_EXISTS,
            f"{name} exists; choose another id, or delete it first",
            "image_id",
        )
    usable_pool(snapshot, pool)
    free_volume(snapshot, facts.image_volume(pool, image_id), "image_id")
    if before is not None and snapshot.find(Volume, before.status.volume) is not None:
        refuse(
            reason_pb2.REASON_ALREADY_EXISTS,
            f"{before.status.volume} is left of {name}, which failed; delete {name} first",
            "image_id",
        )
    image = Image(name=name, meta=rows.new_meta(call))
    image.meta.etag = before.meta.etag if before is not None else ""
    image.spec.description, image.spec.pool = description, pool
    image.status.state = ImageStatus.STATE_CREATING
    image.status.volume = facts.image_volume(pool, image_id)
    return image

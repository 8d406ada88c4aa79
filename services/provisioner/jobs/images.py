"""Long work that makes and removes images.

A failed image stays as a row that says why; its volume does not. A cancelled one leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from pvc.core.v1 import event_pb2, reason_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from services.mesh import rows
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Job, Outcome, Task
from services.provisioner.cache import ImageCache
from services.provisioner.core import facts
from services.provisioner.core.facts import Image, ImageStatus, Volume
from services.provisioner.core.recipe import Recipe, content_hash
from services.provisioner.core.requests import check_unused, recipe_of, volume_request
from services.provisioner.workshop import Source, Workshop
from services.state.store import Change, Delete, Put

BUILT, SENT = 75, 85
"""Percent of a whole build at which the image is built, and its file is with the storage."""


class Builder(Protocol):
    """Builds the file of a recipe's image."""

    def build(self, recipe: Recipe, target: Path, task: Task, end: int) -> None:
        """Builds it whole or not at all; tells the task its stages, up to `end` percent.

        Raises INVALID_CONTENT, BUILD_FAILED, OUT_OF_SPACE, CANCELLED.
        """
        ...


class ImageJobs:
    """See the module."""

    def __init__(
        self,
        workshop: Workshop,
        cache: ImageCache,
        builder: Builder,
        recipes: Mapping[str, str],
    ) -> None:
        self._shop = workshop
        self._cache = cache
        self._builder = builder
        self._recipes = recipes

    def methods(self) -> Mapping[str, Job]:
        """Method → job."""
        return {
            f"{facts.PREFIX}BuildImage": self.build,
            f"{facts.PREFIX}ImportImage": self.import_,
            f"{facts.PREFIX}DeleteImage": self.delete,
        }

    def build(self, task: Task) -> Outcome:
        """Builds the recipe's image, or takes it from the cache, and makes a volume of it."""
        request = task.request(api.BuildImageRequest)

        def make(image: Image) -> Volume:
            recipe = recipe_of(request, self._recipes)
            wanted = self._import_request(task, image)
            if self._made_already(wanted):
                return self._shop.import_volume(task, (BUILT, 99), wanted)

            def build(target: Path) -> None:
                self._builder.build(recipe, target, task, BUILT)

            with self._cache.image(content_hash(recipe), build, task.check) as built:
                if built.was_there:
                    task.log("the same recipe was built before: that image is taken")
                task.stage("bringing the image to its pool", BUILT)
                qcow2 = storage_pb2.IMAGE_FORMAT_QCOW2
                name = f"{facts.id_of(image.name)}.qcow2"
                source = Source(lambda: built.path.open("rb"), built.size, name, qcow2)
                return self._shop.import_volume(task, (BUILT, 99), wanted, source)

        return self._made(task, make)

    def import_(self, task: Task) -> Outcome:
        """Makes a sealed volume of an uploaded file."""
        request = task.request(api.ImportImageRequest)

        def make(image: Image) -> Volume:
            task.stage(f"importing {request.file}")
            wanted = self._import_request(task, image)
            wanted.file = request.file
            return self._shop.import_volume(task, (0, 99), wanted)

        return self._made(task, make)

    def _made(self, task: Task, make: Callable[[Image], Volume]) -> Outcome:
        """The image with the volume that `make` brings about; undone when it does not."""
        image = self._image(task)
        cause: list[PvcError] = []
        task.undo.callback(self._fail, task, cause)
        task.undo.callback(self._unmake, task, image)
        try:
            volume = make(image)
        except PvcError as error:
            cause.append(error)
            raise
        except Exception as error:
            cause.append(_internal(error))
            raise

        def ready() -> Image:
            after = rows.copied(self._image(task))
            after.status.state, after.status.why = ImageStatus.STATE_READY, ""
            after.status.volume, after.status.size_bytes = volume.name, volume.status.size_bytes
            return after

        def changes() -> list[Change]:
            return [Put(ready()), self._event(task, f"{image.name} is ready")]

        result = ready()
        result.meta.etag = ""
        return Outcome(result, changes)

    def _image(self, task: Task) -> Image:
        """The row that the request made. Raises INTERRUPTED or CANCELLED when an earlier attempt
        undid it."""
        image = self._shop.store.snapshot().find(Image, task.target)
        if image is None or image.status.state == ImageStatus.STATE_FAILED:
            task.check()
            why = f" ({image.status.why})" if image is not None else ""
            refuse(
                reason_pb2.REASON_INTERRUPTED,
                f"the worker died after it undid {task.target}{why}; ask again",
            )
        return image

    def _import_request(self, task: Task, image: Image) -> storage.ImportVolumeRequest:
        return volume_request(image, facts.image_mark(image.name, task.name))

    def _made_already(self, wanted: storage.ImportVolumeRequest) -> bool:
        """An earlier attempt got as far as the volume, or has begun it."""
        name = f"{wanted.parent}/volumes/{wanted.volume_id}"
        snapshot = self._shop.store.snapshot()
        return (
            snapshot.find(Volume, name) is not None
            and facts.making_of(snapshot, name, wanted.description) is not None
        )

    def _fail(self, task: Task, cause: list[PvcError]) -> None:
        """What remains of an image that could not be made: nothing if it was cancelled."""
        if not self._shop.ours(task):
            return
        error = cause[0] if cause else _internal(RuntimeError("no cause"))
        if error.reason == reason_pb2.REASON_CANCELLED:
            self._shop.drop(task.target)
            return

        def failed(row: Image) -> None:
            row.status.state, row.status.why = ImageStatus.STATE_FAILED, error.message[:1024]

        if self._shop.change(Image, task.target, failed) is not None:
            text = f"{task.target} could not be made"
            severity = event_pb2.Event.SEVERITY_ERROR
            self._shop.store.commit([self._event(task, text, error.message, severity)])

    def _unmake(self, task: Task, image: Image) -> None:
        if self._shop.ours(task):
            mark = facts.image_mark(image.name, task.name)
            self._shop.remove_volume(task, image.status.volume, mark)

    def delete(self, task: Task) -> Outcome:
        """Removes the volume, then the row."""
        store = self._shop.store
        image = store.snapshot().find(Image, task.target)
        if image is None:
            return Outcome(None, list)
        task.undo.callback(self._stay, task)
        task.check()
        check_unused(store.snapshot(), image)
        if image.status.volume:
            task.stage(f"removing {image.status.volume}")
            self._shop.remove_volume(task, image.status.volume)
        return Outcome(None, lambda: [Delete(image.name, "*")])

    def _stay(self, task: Task) -> None:
        """It stays what it was, unless its volume is gone."""
        if not self._shop.ours(task):
            return

        def stay(row: Image) -> None:
            row.meta.ClearField("delete_time")
            if self._shop.store.snapshot().find(Volume, row.status.volume) is None:
                row.status.state = ImageStatus.STATE_FAILED
                row.status.why = "its volume is gone: delete it again"

        self._shop.change(Image, task.target, stay)

    def _event(
        self,
        task: Task,
        text: str,
        why: str = "",
        severity: event_pb2.Event.Severity.ValueType = event_pb2.Event.SEVERITY_INFO,
    ) -> Put:
        return rows.event(
            task.clock.new_id(), task.clock.now(), task.target, text, why,
            cause=task.caller, severity=severity, operation=task.name,
        )  # fmt: skip


def _internal(error: Exception) -> PvcError:
    return PvcError(reason_pb2.REASON_INTERNAL, f"{type(error).__name__}: {error}")

"""Runs an image build for an operation: progress goes into the operation, failures get a reason."""

from __future__ import annotations

import errno
from pathlib import Path

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.mesh.jobs import Task
from services.provisioner.build import BuildProgress, BuildSettings, build_image
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import Recipe
from services.provisioner.drivers.child import ChildCancelled, ChildFailed

LINE_PERIOD_S = 3.0
"""A build says hundreds of lines; one of them is kept so often, to see that it moves."""

SAYS = {
    "prepare": "preparing",
    "packages": "installing packages",
    "system": "setting the system up",
    "disk": "making the disk",
    "image": "packing the image",
}
"""A build's stage → what the operation says of it; a stage that is not here is not told."""


class ImageBuilder:
    """See Builder in jobs/images.py."""

    def __init__(self, settings: BuildSettings) -> None:
        self._settings = settings

    def build(self, recipe: Recipe, target: Path, task: Task, end: int) -> None:
        """See Builder."""
        told = _Told(task, end)
        try:
            build_image(recipe, target, self._settings, on_progress=told, cancelled=told.must_stop)
        except ChildCancelled:
            task.check()
            raise PvcError(reason_pb2.REASON_CANCELLED, "the build was stopped") from None
        except FieldProblem as problem:
            raise PvcError(
                reason_pb2.REASON_INVALID_CONTENT, f"the recipe cannot be built: {problem}"
            ) from problem
        except ChildFailed as failed:
            raise PvcError(reason_pb2.REASON_BUILD_FAILED, str(failed)) from failed
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = reason_pb2.REASON_OUT_OF_SPACE if full else reason_pb2.REASON_BUILD_FAILED
            raise PvcError(reason, f"building in {self._settings.work}: {error}") from error


class _Told:
    """What an operation is told of its build."""

    def __init__(self, task: Task, end: int) -> None:
        self._task = task
        self._end = end
        self._stage = ""
        self._percent = -1
        self._line_at = task.clock.monotonic()

    def __call__(self, progress: BuildProgress) -> None:
        percent = progress.percent * self._end // 100
        if progress.stage != self._stage:
            self._stage = progress.stage
            if says := SAYS.get(progress.stage):
                self._task.stage(says, percent)
        elif percent != self._percent:
            self._task.progress(percent)
        self._percent = percent
        now = self._task.clock.monotonic()
        if progress.line.strip() and now - self._line_at >= LINE_PERIOD_S:
            self._task.log(progress.line.strip()[:200])
            self._line_at = now

    def must_stop(self) -> bool:
        """Somebody asked to cancel it, or another worker has it."""
        try:
            self._task.check()
        except PvcError:
            return True
        return False

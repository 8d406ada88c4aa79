"""Tidies up after work that nobody ends any more: given up by its workers, or expired.

One round of `step` looks at the state and does what is missing; it may be repeated and cut.
"""

from __future__ import annotations

from pvc.core.v1 import reason_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from services.mesh import rows
from services.mesh.errors import PvcError
from services.mesh.loop import Read
from services.provisioner.core import facts
from services.provisioner.core.facts import Image, ImageStatus, Operation, Volume
from services.provisioner.neighbours import Neighbours
from services.provisioner.seed_files import SeedFiles
from services.state.store import Conflict, Put, Snapshot, Store

READS: tuple[Read, ...] = (
    "images",
    "pools/volumes",
    lambda snapshot: snapshot.extract(facts.VOLUMES_OF_VMS),
    lambda snapshot: snapshot.extract(facts.CLAIMS),
)
"""What may leave something behind when it changes."""


class Sweep:
    """See the module."""

    def __init__(self, store: Store, neighbours: Neighbours, seeds: SeedFiles, node: str) -> None:
        """node: "nodes/n1", for whose pools and work folder it cares."""
        self._store = store
        self._neighbours = neighbours
        self._seeds = seeds
        self._node = node

    def step(self) -> None:
        """One round. Raises PvcError when a service that is needed is away; then it is repeated."""
        snapshot = self._store.snapshot()
        for image in snapshot.rows(Image):
            if (settled := given_up(snapshot, image)) is not None:
                self._write(settled)
        self._seeds.sweep(lambda name: _ended(snapshot, name))
        for volume in facts.not_needed(snapshot):
            if volume.status.node == self._node:
                self._remove(volume)

    def _write(self, image: Image) -> None:
        try:
            self._store.commit([Put(image)])
        except Conflict:
            # Somebody works on it after all; the next round sees.
            return

    def _remove(self, volume: Volume) -> None:
        request = storage.DeleteVolumeRequest(
            name=volume.name, force=True, request_id=f"sweep-{volume.meta.uid}"
        )
        caller = f"provisioner {self._node.removeprefix('nodes/')}"
        try:
            self._neighbours.begin(request, caller, self._node)
        except PvcError as error:
            gone_or_wanted = (
                reason_pb2.REASON_NOT_FOUND,
                reason_pb2.REASON_IN_USE,
                reason_pb2.REASON_BUSY,
            )
            if error.reason not in gone_or_wanted:
                raise


def given_up(snapshot: Snapshot, image: Image) -> image_pb2.Image | None:
    """The image as it is to be when nobody works on it any more though it says so; else None."""
    making = image.status.state == ImageStatus.STATE_CREATING
    going = image.meta.HasField("delete_time")
    if not (making or going) or any(facts.unfinished(snapshot, image.name, facts.SERVICE)):
        return None
    after = rows.copied(image)
    after.meta.ClearField("delete_time")
    if making or snapshot.find(Volume, image.status.volume) is None:
        after.status.state = ImageStatus.STATE_FAILED
        deed = "making" if making else "removing"
        after.status.why = f"{deed} it was given up: see its operation; delete it, or make it again"
    return after


def _ended(snapshot: Snapshot, name: str) -> bool | None:
    operation = snapshot.find(Operation, name)
    return None if operation is None else operation.state in rows.FINAL

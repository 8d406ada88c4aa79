"""One PVC for all tests of a module, and guests made from one tiny image."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from tests.guests.tiny import tiny_disk
from tests.system.rig import TIMEOUT_S, TINY, Rig

NUMBERS = itertools.count(1)
MEMORY_MIB = 128

Make = Callable[[str], vm_pb2.Vm]


def fresh_name(prefix: str) -> str:
    """A short one that nothing has which an earlier run may have left."""
    names = (f"{prefix}{os.getpid() % 10_000}x{number}" for number in NUMBERS)
    return next(name for name in names if not (Path("/tmp") / name).exists())


@pytest.fixture(scope="session")
def disk() -> Path:
    return tiny_disk()


@pytest.fixture(scope="module")
def rig(disk: Path) -> Iterator[Rig]:
    """A PVC that runs, with the tiny guest's disk in its pool."""
    name = fresh_name("pvct")
    made = Rig(Path("/tmp") / name, name)
    try:
        with made.followed():
            made.begin()
            made.add_tiny(disk)
            yield made
    finally:
        made.close()


def tiny_spec(vm: str, **fields: object) -> vm_pb2.VmSpec:
    """A VM with the tiny guest on its volume VM-root, and one interface."""
    spec = vm_pb2.VmSpec(**{"shutdown_timeout_s": 30, **fields})  # type: ignore[arg-type]
    spec.memory.memory_mib = MEMORY_MIB
    spec.disks.add(id="root", volume=f"pools/local/volumes/{vm}-root", boot_order=1)
    spec.nics.add(id="net0", network="networks/default")
    return spec


def make_vm(rig: Rig, vm: str, **fields: object) -> vm_pb2.Vm:
    """Makes it of a copy of the image, and starts it."""
    rig.cluster.volumes.clone(f"local/{TINY}", f"local/{vm}-root").result(TIMEOUT_S)
    return rig.cluster.vms.create(vm, tiny_spec(vm, **fields), start=True).result(TIMEOUT_S)


def remove_vm(rig: Rig, vm: str) -> None:
    rig.cluster.vms.delete(vm, delete_volumes=True, force=True).result(TIMEOUT_S)

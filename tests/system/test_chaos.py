"""Chance: a day's work on three small VMs, while pvcd, libvirtd and emulators are killed at any
moment. Then calm, and everything has to be as PVC says.

PVC_CHAOS_SEED plays another day, PVC_CHAOS_S a longer one.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc_client.errors import Internal, PvcError
from pvc_client.operations import FINAL, Pending
from tests.system.conftest import MEMORY_MIB, make_vm, tiny_spec
from tests.system.invariants import DAEMON_AWAY, check_database, check_log, settle, snapshots_unlike
from tests.system.rig import TIMEOUT_S, TINY, Rig, eventually, gib

pytestmark = pytest.mark.real
SEED = int(os.environ.get("PVC_CHAOS_SEED", "2"))
DURATION_S = float(os.environ.get("PVC_CHAOS_S", "35"))
CALM_S = 240.0
NAMES = ("a", "b", "c")
POOL = "pools/local/volumes"
OPERATIONS_OPEN_MAX = 12


class Day:
    """One day's chance, its work, and the operations that were accepted."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = random.Random(seed)
        self.accepted: dict[str, str] = {}
        """Operation → what was asked."""
        self.said: list[str] = []
        self._count = 0

    def name(self) -> str:
        """A VM, as a rule one that there is."""
        there = [vm.name.removeprefix("vms/") for vm in self.rig.cluster.vms.list()]
        return self.random.choice([*there * 4, *NAMES])

    def fresh(self) -> str:
        self._count += 1
        return f"x{self._count}"

    def work(self) -> None:
        """Asks for something, whether or not it can be done just now."""
        verb = self.random.choice(self.verbs())
        told = verb.__name__
        try:
            pending = verb()
            self.accepted[pending.name] = told
        except Internal:
            raise
        except PvcError as error:
            assert error.message, told
            told = f"{told}: {error.reason}"
        self.said.append(told)

    def verbs(self) -> list[Callable[[], Pending[Any]]]:
        often = [self.start, self.create, self.stop, self.attach, self.detach]
        seldom = [self.pause, self.resume, self.snapshot, self.drop_snapshot, self.rollback]
        return [*often, *often, *seldom, self.clone, self.rename, self.delete, self.resize,
                self.shutdown, self.more_memory, self.reset]  # fmt: skip

    def create(self) -> Pending[Any]:
        vm, vms = self.random.choice(NAMES), self.rig.cluster.vms
        with suppress(PvcError):
            volume = self.rig.cluster.volumes.clone(f"local/{TINY}", f"local/{vm}-root")
            self.accepted[volume.name] = "clone volume"
            volume.result(10)
        start, timeout_s = self.random.random() < 0.7, self.random.choice((2, 5))
        return vms.create(vm, tiny_spec(vm, shutdown_timeout_s=timeout_s), start=start)

    def start(self) -> Pending[Any]:
        return self.rig.cluster.vms.start(self.name())

    def stop(self) -> Pending[Any]:
        return self.rig.cluster.vms.stop(self.name())

    def shutdown(self) -> Pending[Any]:
        return self.rig.cluster.vms.shutdown(self.name())

    def pause(self) -> Pending[Any]:
        return self.rig.cluster.vms.pause(self.name())

    def resume(self) -> Pending[Any]:
        return self.rig.cluster.vms.resume(self.name())

    def reset(self) -> Pending[Any]:
        return self.rig.cluster.vms.reset(self.name())

    def attach(self) -> Pending[Any]:
        vm = self.name()
        if self.random.random() < 0.5:
            nic = vm_pb2.NicSpec(id="net1", network="networks/default")
            return self.rig.cluster.vms.attach_nic(vm, nic)
        with suppress(PvcError):
            self.rig.cluster.volumes.create(f"local/{vm}-data", gib(1 / 32)).result(10)
        disk = vm_pb2.DiskSpec(id="data", volume=f"{POOL}/{vm}-data")
        return self.rig.cluster.vms.attach_disk(vm, disk)

    def detach(self) -> Pending[Any]:
        if self.random.random() < 0.5:
            return self.rig.cluster.vms.detach_nic(self.name(), "net1")
        return self.rig.cluster.vms.detach_disk(self.name(), "data")

    def snapshot(self) -> Pending[Any]:
        return self.rig.cluster.vms.snapshots.create(f"{self.name()}/{self.fresh()}")

    def drop_snapshot(self) -> Pending[Any]:
        return self.rig.cluster.vms.snapshots.delete(self._some_snapshot())

    def rollback(self) -> Pending[Any]:
        return self.rig.cluster.vms.snapshots.rollback(self._some_snapshot())

    def _some_snapshot(self) -> str:
        there = [s.name for s in self.rig.cluster.vms.snapshots.of(self.name())]
        return self.random.choice([*there, "vms/a/snapshots/none"])

    def clone(self) -> Pending[Any]:
        return self.rig.cluster.vms.clone(self.name(), self.random.choice(NAMES))

    def rename(self) -> Pending[Any]:
        return self.rig.cluster.vms.rename(self.name(), self.random.choice(NAMES))

    def delete(self) -> Pending[Any]:
        return self.rig.cluster.vms.delete(
            self.name(), delete_volumes=self.random.random() < 0.7, force=True
        )

    def resize(self) -> Pending[Any]:
        size = (64 + self.random.randrange(1, 64)) << 20
        return self.rig.cluster.volumes.resize(f"local/{self.name()}-root", size)

    def more_memory(self) -> Pending[Any]:
        vm = self.rig.cluster.vms.get(self.name())
        vm.spec.memory.max_memory_mib = vm.spec.memory.memory_mib = (
            MEMORY_MIB + self.random.randrange(64)
        )
        return self.rig.cluster.vms.update(vm, ["spec.memory"])

    def harm(self) -> None:
        """Kills one of the three, or all."""
        kind = self.random.choices(("emulator", "libvirtd", "pvcd", "all"), (4, 3, 4, 1))[0]
        self.said.append(f"kill {kind}")
        if kind in ("pvcd", "all"):
            self.rig.kill()
        if kind in ("libvirtd", "all"):
            self.rig.kill_daemon()
        if kind == "all":
            self.rig.kill_emulators()
        if kind == "emulator":
            for pid in list(self.rig.emulators().values())[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if kind in ("pvcd", "all"):
            time.sleep(self.random.uniform(0, 0.3))
            self.rig.start()


@pytest.fixture
def day(rig: Rig) -> Iterator[Day]:
    made = Day(rig, SEED)
    yield made
    print(f"seed {SEED}: {', '.join(made.said)}")


@pytest.mark.timeout(900)
def test_a_day_of_chance(rig: Rig, day: Day, disk: Path) -> None:
    for name in NAMES:
        make_vm(rig, name)
    end = time.monotonic() + DURATION_S
    while time.monotonic() < end:
        for _ in range(day.random.randrange(1, 8)):
            day.work()
            time.sleep(day.random.choice((0, 0, 0.05, 0.3)))
        day.harm()
    settle(rig, CALM_S)
    check_operations(rig, day)
    check_database(rig)
    assert not list(snapshots_unlike(rig))
    check_log(rig, DAEMON_AWAY, "crashed", "given up", r"connection to .* ended")
    rig.cluster.volumes.clone(f"local/{TINY}", "local/last-root").result(TIMEOUT_S)
    rig.cluster.vms.create("last", tiny_spec("last"), start=True).result(TIMEOUT_S)
    eventually(lambda: b"READY" in b"".join(rig.cluster.vms.console_log("last")), "a new VM boots")


def check_operations(rig: Rig, day: Day) -> None:
    """Every one that was accepted is known, has ended, and says why if it failed."""
    known = {operation.name: operation for operation in rig.cluster.operations.list()}
    for name, told in day.accepted.items():
        operation = known[name]
        assert operation.state in FINAL, told
        if operation.state == operation_pb2.Operation.STATE_FAILED:
            assert operation.error.message, told
            assert "INTERNAL" not in str(operation.error.details), operation

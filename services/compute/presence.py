"""What a node tells of itself, and the lease that says that it is there. Writes the node's row;
decides nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2, reason_pb2
from services.compute.core.busyness import rounded, to_tell
from services.compute.drivers.hypervisor import Facts
from services.compute.settings import ComputeSettings
from services.compute.standing import Standing
from services.compute.succession import Succession
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.schema import TYPES, schema_of
from services.state.store import Conflict, Lease, Put, Store

LOAD_EVERY_S = 10.0
"""How often it is looked how busy the machine is."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, as its kernel tells."""

    cpus: int
    memory_mib: int
    kernel: str
    boot_id: str
    booted: Timestamp
    """When it started, by its own clock."""


def read_hardware(proc: Path = Path("/proc")) -> Hardware:
    """Asks the kernel. proc: where its answers are mounted."""
    memory = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    stat = dict(
        line.split(" ", 1) for line in (proc / "stat").read_text().splitlines() if " " in line
    )
    return Hardware(
        cpus=os.cpu_count() or 1,
        memory_mib=int(memory["MemTotal"].split()[0]) // 1024,
        kernel=os.uname().release,
        boot_id=(proc / "sys/kernel/random/boot_id").read_text().strip(),
        booted=Timestamp(seconds=int(stat["btime"])),
    )


def read_load(proc: Path = Path("/proc")) -> cluster_pb2.NodeLoad:
    """How busy the machine is, over the last minute."""
    memory = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    average = float((proc / "loadavg").read_text().split()[0])
    return rounded(average, int(memory["MemAvailable"].split()[0]) // 1024)


class Presence:
    """Holds the lease `nodes/<id>` and keeps the node's row up to date."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: ComputeSettings,
        facts: Facts,
        machine: Hardware,
        standing: Standing | None = None,
        succession: Succession | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._facts = facts
        self.machine = machine
        self._succession = succession
        self.measure: Callable[[], cluster_pb2.NodeLoad] | None = None
        """Tells how busy the machine is; set by whoever puts it together."""
        self._measured_at = float("-inf")
        self.standing = standing or Standing(store, settings.node)

    def hold(self, faults: Sequence[str] = ()) -> Lease:
        """The lease, taken again if the session was lost, with the row refreshed if it differs.
        Raises PvcError UNREACHABLE while another holds it: two machines of one name."""
        node = self._settings.node
        lease = self._store.acquire(node, node, self._inherited())
        if lease is None:
            raise PvcError(
                reason_pb2.REASON_UNREACHABLE,
                f"another process holds {node}: an agent that ended a moment ago, or a second "
                "machine with this name",
            )
        self.standing.lease = lease
        self._refresh(lease, (*faults, *self.standing.faults))
        return lease

    def _inherited(self) -> str:
        """The session of the agent before, if that is known to be dead. Whoever comes after this
        process is told of its session before it holds anything."""
        if self._succession is None:
            return ""
        former = self._succession.former()
        self._succession.note(self._store.session())
        return former

    def _refresh(self, lease: Lease, faults: Sequence[str]) -> None:
        there = self._store.snapshot().find(cluster_pb2.Node, self._settings.node)
        row = cluster_pb2.Node(name=self._settings.node) if there is None else rows.copied(there)
        if there is None:
            now = self._clock.now()
            uid = self._clock.new_id()
            row.meta.CopyFrom(
                meta_pb2.Meta(uid=uid, generation=1, create_time=now, update_time=now)
            )
        row.status.CopyFrom(self._status(lease, row.status, faults))
        if row == there:
            return
        try:
            self._store.commit([Put(row)], held_by=lease)
        except Conflict:
            return  # the coordinator wrote it meanwhile; the next round does it

    def _status(
        self, lease: Lease, before: cluster_pb2.NodeStatus, faults: Sequence[str]
    ) -> cluster_pb2.NodeStatus:
        facts, machine, settings = self._facts, self.machine, self._settings
        status = cluster_pb2.NodeStatus(
            version=settings.version,
            cpus=machine.cpus,
            memory_mib=machine.memory_mib,
            memory_for_vms_mib=max(machine.memory_mib - settings.memory_reserve_mib, 0),
            accelerator=facts.accelerator,
            accelerator_why=facts.accelerator_why,
            emulator_version=facts.emulator_version,
            libvirt_version=facts.libvirt_version,
            kernel=machine.kernel,
            faults=faults,
            boot_id=machine.boot_id,
            cpu_models=facts.cpu_models,
            session=lease.session,
            migration_host=settings.migration_host,
            schemas={path: own for path in TYPES if (own := schema_of(path)) > 1},
        )
        listening = {service.service: service.address for service in before.services}
        for service, address in sorted({**listening, **settings.addresses}.items()):
            status.services.add(service=service, address=address)
        if (load := self._load(before)) is not None:
            status.load.CopyFrom(load)
        self.standing.onto(status, before)
        return status

    def _load(self, before: cluster_pb2.NodeStatus) -> cluster_pb2.NodeLoad | None:
        told, now = before.load if before.HasField("load") else None, self._clock.monotonic()
        if self.measure is None or now - self._measured_at < LOAD_EVERY_S:
            return told
        self._measured_at = now
        return to_tell(told, self.measure())

"""What an agent can do for a VM: one kind of step for each verb, each with its why. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.hypervisor import Route


class Kind(Enum):
    """What a device is."""

    DISK = "disk"
    NIC = "nic"


@dataclass(frozen=True, slots=True)
class Define:
    """Keep the XML of the VM's spec for the next start."""

    why: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start what is defined. When it fails the VM is FAILED."""

    why: str


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Ask the guest to shut down."""

    why: str


@dataclass(frozen=True, slots=True)
class Destroy:
    """End the emulator of the domain of this name."""

    domain: str
    why: str


@dataclass(frozen=True, slots=True)
class Undefine:
    """Forget the domain of this name, which is off."""

    domain: str
    why: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Halt the processors."""

    why: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Let the processors go on."""

    why: str


@dataclass(frozen=True, slots=True)
class Attach:
    """Plug a device of the spec in."""

    kind: Kind
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Unplug a device that the spec has no longer, or not in this form."""

    kind: Kind
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class UpdateDevice:
    """Change a device in place to what the spec says."""

    kind: Kind
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class SetVcpus:
    """Change the number of processors."""

    vcpus: int
    why: str


@dataclass(frozen=True, slots=True)
class SetMemory:
    """Change the memory."""

    memory_mib: int
    why: str


@dataclass(frozen=True, slots=True)
class Migrate:
    """Begin to move the running domain."""

    route: Route
    why: str


@dataclass(frozen=True, slots=True)
class SetDowntime:
    """Allow a longer pause to the migration that goes on."""

    downtime_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Throttle:
    """Slow the guest down so that its migration gets ahead."""

    why: str


@dataclass(frozen=True, slots=True)
class StartPostCopy:
    """Have it run on the target, and its memory follow."""

    why: str


@dataclass(frozen=True, slots=True)
class AbortMigration:
    """Ask for the end of the migration that goes on."""

    why: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Write this status; the steps after it are for a VM that has it."""

    status: vm_pb2.VmStatus
    why: str
    arrived: bool = False
    """With it the arrival goes: this node is the VM's own now."""


@dataclass(frozen=True, slots=True)
class SetArrival:
    """Write what this node, to which the VM is to migrate, sees of it."""

    arrival: vm_pb2.VmArrival
    why: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """Write the row as it is. Fails when it is another by now: what follows must not be done on the
    strength of what was true once."""

    why: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the VM's row: nothing of it is left on the node."""

    why: str


Step = (
    Define
    | Start
    | Shutdown
    | Destroy
    | Undefine
    | Pause
    | Resume
    | Attach
    | Detach
    | UpdateDevice
    | SetVcpus
    | SetMemory
    | Migrate
    | SetDowntime
    | Throttle
    | StartPostCopy
    | AbortMigration
    | SetStatus
    | SetArrival
    | Confirm
    | Remove
)
LiveChange = Attach | Detach | UpdateDevice | SetVcpus | SetMemory
"""Steps that change a running VM's hardware, and that its guest may refuse."""


def key(step: LiveChange) -> str:
    """Names what a live change is about, as status.pending_restart lists it."""
    match step:
        case SetVcpus():
            return "cpu.vcpus"
        case SetMemory():
            return "memory.memory_mib"
        case Attach(kind, id) | Detach(kind, id) | UpdateDevice(kind, id):
            return f"{kind.value}s.{id}"

"""What the compute agent asks of a hypervisor: repeatable verbs, one domain at a time.

Implemented by `libvirt` and by `fake`; one suite proves both. A driver never decides and never
retries. All verbs raise PvcError HYPERVISOR_FAILED with the hypervisor's own words, and
REASON_DEADLINE when it hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Power(Enum):
    """What a domain is doing."""

    OFF = "off"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"


class OffReason(Enum):
    """Why a domain that is off ended."""

    NEVER_RAN = "never ran"
    SHUT_DOWN = "the guest shut itself down"
    DESTROYED = "switched off"
    CRASHED = "the emulator ended by itself"
    START_FAILED = "the emulator did not start"
    MIGRATED = "it went to another node"
    UNKNOWN = "unknown"


class Crossing(Enum):
    """Whether a domain is between two nodes."""

    NONE = "it is here"
    INCOMING = "it comes in from another node"
    OUTGOING = "it stands still so that another node goes on with it, or does already"


@dataclass(frozen=True, slots=True)
class Domain:
    """One of PVC's domains as the hypervisor sees it. Foreign domains are never shown."""

    vm: str
    """The VM's id: "web"."""
    uuid: str
    power: Power
    off_reason: OffReason
    run: str
    """Changes with every start of the emulator; "" while it is off."""
    xml: str
    """The live XML while it runs, else the one that the next start uses."""
    trouble: str = ""
    """Why it stands still unasked: "sda has no space"; it goes on with `resume`."""
    crossing: Crossing = Crossing.NONE
    """INCOMING: to be left alone, or destroyed. OUTGOING: to be let go on only by who knows that
    the other node does not have it; it stays so when a migration ended and nobody was told how."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What the guest's agent says."""

    host_name: str
    os: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What this hypervisor can do. Read once at start."""

    accelerator: str
    """ "kvm" or "tcg"."""
    accelerator_why: str
    emulator_version: str
    libvirt_version: str
    cpu_models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """How a domain is to go to another node."""

    host: str
    """Where the other hypervisor takes domains in: an IP address or host name."""
    downtime_ms: int
    """The pause that is allowed at first."""
    post_copy: bool = False
    """start_post_copy may be asked for."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Images that the other node cannot open, each with the one there that its content goes to,
    which exists and has its size."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How far a domain's way to another node is, as its first node sees it. An ended one tells what
    the hypervisor said; where the domain is, the domain tells."""

    ended: bool = False
    why: str = ""
    """Why it ended without success; "" otherwise."""
    remaining_bytes: int = 0
    total_bytes: int = 0
    dirty_bytes_per_s: int = 0
    copied_bytes_per_s: int = 0
    iterations: int = 0
    throttle_percent: int = 0
    downtime_ms: int = 0
    """The pause that is allowed; of one that succeeded what it was, 0 if that is not known."""
    post_copy: bool = False
    """It runs there already, and its memory follows."""


class Console(Protocol):
    """One end of a domain's serial console."""

    def read(self, timeout_s: float) -> bytes | None:
        """What the guest wrote; b"" when nothing came in time; None when the console ended."""
        ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Migrations(Protocol):
    """The verbs by which running domains change nodes. None of them waits for the copying."""

    def refuses(self, vm: str, host: str, copied: Collection[str]) -> tuple[str, ...]:
        """All reasons why the domain that runs at that host cannot come here, one sentence each;
        that the host cannot be asked is one. copied: images that are copied along."""
        ...

    def migrate(self, vm: str, route: Route) -> None:
        """Begins. The domain stays defined here, off with MIGRATED, when it has gone."""
        ...

    def migration(self, vm: str) -> Passage | None:
        """The one that goes on, whoever began it, or the last one that ended since this process
        began it; None: neither."""
        ...

    def set_downtime(self, vm: str, downtime_ms: int) -> None:
        """Allows a longer pause to the migration that goes on."""
        ...

    def throttle(self, vm: str) -> None:
        """Slows the guest down, more and more, until copying keeps up."""
        ...

    def start_post_copy(self, vm: str) -> None:
        """Has the domain run there now and its memory follow. There is no way back."""
        ...

    def abort_migration(self, vm: str) -> None:
        """Asks for its end; the domain goes on here. Nothing goes on: nothing to do."""
        ...


class Hypervisor(Migrations, Protocol):
    """The verbs. `vm` is always the VM's id. Verbs on a VM in the wished state already do
    nothing."""

    def facts(self) -> Facts: ...

    def domains(self) -> Mapping[str, Domain]:
        """All of PVC's domains by VM id, running or defined."""
        ...

    def define(self, xml: str) -> None:
        """Keeps this XML for the next start; what runs is untouched."""
        ...

    def start(self, vm: str) -> None:
        """Starts what is defined; returns when the emulator runs."""
        ...

    def shutdown(self, vm: str) -> None:
        """Asks the guest (agent if it answers, and the ACPI button); returns at once."""
        ...

    def destroy(self, vm: str) -> None:
        """Ends the emulator; returns when it is gone."""
        ...

    def undefine(self, vm: str) -> None:
        """Forgets a domain that is off, with its firmware variables and console log."""
        ...

    def reset(self, vm: str) -> None: ...

    def pause(self, vm: str) -> None: ...

    def resume(self, vm: str) -> None: ...

    def attach(self, vm: str, device_xml: str) -> None:
        """Plugs a device into the running domain."""
        ...

    def detach(self, vm: str, device_xml: str, timeout_s: float) -> None:
        """Unplugs a device; returns when the guest let go, or raises GUEST_UNRESPONSIVE."""
        ...

    def update_device(self, vm: str, device_xml: str) -> None:
        """Changes a device in place: the disc in a CD-ROM drive, a cable."""
        ...

    def set_vcpus(self, vm: str, vcpus: int) -> None: ...

    def set_memory(self, vm: str, memory_mib: int) -> None: ...

    def guest(self, vm: str, timeout_s: float) -> Guest | None:
        """What the guest's agent says; None when it does not answer in time."""
        ...

    def open_console(self, vm: str, force: bool) -> Console:
        """The serial console. Raises PvcError BUSY when somebody has it and `force` is not set."""
        ...

    def on_event(self, wake: Callable[[], None]) -> None:
        """Has `wake` called from any thread when a domain changed."""
        ...


class OpenDisks(Protocol):
    """Verbs on the images that a running domain has open. `path` is the image's file."""

    def resize(self, vm: str, path: str, size_bytes: int) -> None: ...

    def snapshot(self, vm: str, paths: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        """Snapshots inside all these images at one moment; True if the file systems were frozen."""
        ...

    def delete_snapshot(self, vm: str, path: str, snapshot_id: str) -> None:
        """Not an error if there is none."""
        ...

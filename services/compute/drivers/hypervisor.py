"""What the compute agent asks of a hypervisor: repeatable verbs, one domain at a time.

Implemented by `libvirt` and by `fake`; one suite proves both. A driver never decides and never
retries. All verbs raise PvcError HYPERVISOR_FAILED with the hypervisor's own words, and
REASON_DEADLINE when it hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    UNKNOWN = "unknown"


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


class Console(Protocol):
    """One end of a domain's serial console."""

    def read(self, timeout_s: float) -> bytes | None:
        """What the guest wrote; b"" when nothing came in time; None when the console ended."""
        ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Hypervisor(Protocol):
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

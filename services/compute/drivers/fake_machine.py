"""One domain of the hypervisor in memory, and how it misbehaves."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

from pvc.core.v1 import reason_pb2
from services.compute.drivers.hypervisor import Crossing, Guest, OffReason, Power
from services.mesh.errors import PvcError

VNC_FIRST = 5900


@dataclass(slots=True)
class Script:
    """How one VM misbehaves. The defaults: not at all."""

    start_fails: str = ""
    """The emulator's words; the domain is off with START_FAILED."""
    start_fails_times: int = 1 << 30
    """So many starts fail, then they work."""
    hangs: set[str] = field(default_factory=set)
    """Verbs ("start") that end with DEADLINE and do nothing, until taken out of the set."""
    works_late: set[str] = field(default_factory=set)
    """Verbs that end with DEADLINE but are done all the same."""
    ignores_acpi: bool = False
    """The guest does not shut down when asked."""
    shutdown_takes_s: float = 0.0
    """Time by the clock from being asked to being off."""
    refuses_detach: bool = False
    """The guest does not let go of devices."""
    agent: Guest | None = None
    """What its agent says; None: it is silent."""
    loses_events: bool = False
    """Its changes wake nobody."""
    resize_fails: str = ""
    snapshot_fails: str = ""
    starts: int = 0
    """How often it was started."""
    refuses: tuple[str, ...] = ()
    """Why it cannot come to this node."""
    copying_s: float = 0.0
    """How long its memory takes to be copied to another node; 0: until the next look."""
    migration_fails: str = ""
    """What its migration away ends with, at the switch-over."""
    needs_downtime_ms: int = 0
    """Copying does not get ahead with a shorter pause."""
    needs_throttle: bool = False
    """Nor without its being slowed down."""
    never_converges: bool = False
    """Nor at all, but by post-copy."""
    unheard_aborts: int = 0
    """So many orders to abort its migration do nothing."""
    post_copy_s: float = 0.0
    """How long post-copy takes."""


@dataclass(slots=True)
class Machine:
    """One domain."""

    vm: str
    uuid: str
    defined: str
    live: str = ""
    power: Power = Power.OFF
    off_reason: OffReason = OffReason.UNKNOWN
    run: str = ""
    off_at: float | None = None
    trouble: str = ""
    console: FakeConsole | None = None
    resets: int = 0
    crossing: Crossing = Crossing.NONE
    kept: bool = True
    """Defined, so that it stays when it is off."""


@dataclass(slots=True)
class FakeConsole:
    """Implements Console. What is written comes back, as from a terminal that echoes."""

    held: bytearray = field(default_factory=bytearray)
    ended: bool = False
    written: bytearray = field(default_factory=bytearray)

    def read(self, timeout_s: float) -> bytes | None:
        """See Console; never waits."""
        told = bytes(self.held)
        self.held.clear()
        return told or (None if self.ended else b"")

    def write(self, data: bytes) -> None:
        """See Console."""
        if self.ended:
            raise PvcError(reason_pb2.REASON_WRONG_STATE, "the console has ended; open it again")
        self.written += data
        self.held += data

    def close(self) -> None:
        """See Console."""
        self.ended = True


def running_xml(xml: str, run: int) -> str:
    """What a hypervisor adds to a domain that runs."""
    root = ET.fromstring(xml)
    root.set("id", str(run))
    graphics = root.find("devices/graphics")
    if graphics is not None:
        graphics.set("port", str(VNC_FIRST + run - 1))
    for number, interface in enumerate(root.iterfind("devices/interface")):
        ET.SubElement(interface, "target", dev=f"vnet{number}")
    return ET.tostring(root, encoding="unicode")


def failed(what: str, words: str) -> PvcError:
    return PvcError(
        reason_pb2.REASON_HYPERVISOR_FAILED, f"the hypervisor could not {what}: {words}"
    )

"""What an agent knows about one VM beside its row: what all judges of it are given. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from services.compute.core.ladder import Advice
from services.compute.core.steps import Destroy, Step, Undefine
from services.compute.drivers.hypervisor import Domain, Passage, Power
from services.compute.drivers.observed import Observed


@dataclass(frozen=True, slots=True)
class Way:
    """What is known about a VM's move to or from this node."""

    host: str = ""
    """Where the hypervisor of the node at its other end takes VMs in; "" when it does not."""
    dead: bool = False
    """The death of the node at its other end is proven."""
    passage: Passage | None = None
    """How far it is; asked for before the domain was looked at."""
    advice: Advice | None = None
    """What would help it along."""
    given_up: str = ""
    """Why its end was asked for, when nothing helped."""
    told_s: float | None = None
    """How long ago its progress was written; None for never."""
    aborted_s: float | None = None
    """How long ago its end was asked for."""
    refusals: tuple[str, ...] | None = None
    """Why this node cannot take it; None: nobody looked yet."""
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Images here that are copied along → what they are called there."""


@dataclass(frozen=True, slots=True)
class View:
    """What the node's agent knows about one VM beside its row."""

    node: str
    """The agent's node: "nodes/n1"."""
    now: Timestamp
    booted: Timestamp
    """When the machine started, by the same clock."""
    domain: Domain | None = None
    live: Observed | None = None
    """What the running domain is made of."""
    wish: Observed | None = None
    """What it would be made of now; None while something is missing."""
    missing: str = ""
    """What is missing, for people."""
    volumes: Mapping[str, tuple[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    """Path → volume and its size in bytes."""
    guest: vm_pb2.GuestStatus | None = None
    """What the guest's agent said last."""
    nudged_s: float | None = None
    """How long ago the guest was last asked to shut down or to go on; None for never in this
    state."""
    tried: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Live changes that this run was asked for; see live.difference."""
    refused: frozenset[str] = frozenset()
    """Those of them that the guest or the hypervisor refused."""
    restart: Timestamp | None = None
    """A reboot is wanted of whatever started before this."""
    held: bool = False
    """The row stays while its volumes are being removed."""
    settled_in: bool = True
    """It was decided which VMs start with this start of the machine."""
    former: Domain | None = None
    """A domain with this VM's UUID under another name: it was renamed."""
    way: Way = Way()
    """About its move to or from this node."""


def is_on(domain: Domain | None) -> bool:
    return domain is not None and domain.power is not Power.OFF


def orphaned(domain: Domain, why: str) -> tuple[Step, ...]:
    """Ends and forgets a domain that no VM stands behind."""
    forget = Undefine(domain.vm, why)
    return (Destroy(domain.vm, why), forget) if is_on(domain) else (forget,)

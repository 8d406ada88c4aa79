"""What a node's network should look like, what it looks like, and the steps from the one to the
other. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.network.core.firewall import Zone
from services.network.core.firewall_terms import Json
from services.network.core.overlay import Overlay
from services.network.core.servers import ServerPlan


class Namespace(Enum):
    """The place all of it happens in."""

    HOST = "the machine's own"
    MISSING = "missing"
    OURS = "ours"
    FOREIGN = "somebody else's"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge as it should be, with the address that the node has on it."""

    name: str
    mark: str
    mac: str
    mtu: int
    address: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the node's network should look like, as far as PVC is concerned.

    `namespace` says that a namespace of our own is needed for it."""

    bridges: Mapping[str, Bridge] = field(default_factory=dict)
    servers: Mapping[str, ServerPlan] = field(default_factory=dict)
    zones: Mapping[str, Zone] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    namespace: bool = True
    overlays: Mapping[str, Overlay] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenOverlay:
    """What a VXLAN device carries, and to whom it floods."""

    vni: int
    local: str
    port: int
    peers: frozenset[str]


@dataclass(frozen=True, slots=True)
class SeenLink:
    """An interface, ours or not. `overlay` of a VXLAN device."""

    name: str
    kind: str
    mark: str
    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]
    ports: frozenset[str]
    overlay: SeenOverlay | None = None


@dataclass(frozen=True, slots=True)
class SeenServer:
    """A running server; `fresh` and `answers` as the driver says."""

    bridge: str
    tag: str
    tables: str
    fresh: bool
    answers: bool


@dataclass(frozen=True, slots=True)
class SeenSysctl:
    """A kernel setting, and what it was before we changed it (None: we did not)."""

    value: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the node's network looks like."""

    namespace: Namespace
    links: Mapping[str, SeenLink] = field(default_factory=dict)
    servers: Mapping[str, SeenServer] = field(default_factory=dict)
    rules: tuple[Json, ...] = ()
    sysctls: Mapping[str, SeenSysctl] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MakeNamespace:
    """Make our namespace."""

    why: str


@dataclass(frozen=True, slots=True)
class RemoveNamespace:
    """Take our namespace away."""

    why: str


@dataclass(frozen=True, slots=True)
class PutBridge:
    """Make a bridge or bring it to these values."""

    bridge: Bridge
    why: str


@dataclass(frozen=True, slots=True)
class RemoveBridge:
    """Remove a bridge of ours."""

    name: str
    mark: str
    mac: str
    why: str


@dataclass(frozen=True, slots=True)
class PutOverlay:
    """Make a VXLAN device on its bridge or bring it to these values."""

    overlay: Overlay
    why: str


@dataclass(frozen=True, slots=True)
class RemoveOverlay:
    """Remove a VXLAN device of ours."""

    name: str
    mark: str
    mac: str
    why: str


@dataclass(frozen=True, slots=True)
class LoadRules:
    """Replace our table; without rules there is none."""

    rules: tuple[Json, ...]
    why: str


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Change a kernel setting; None puts back what was before."""

    key: str
    value: str | None
    why: str


@dataclass(frozen=True, slots=True)
class RunServer:
    """Start a server, in place of the one that may run."""

    plan: ServerPlan
    why: str


@dataclass(frozen=True, slots=True)
class FeedServer:
    """Give a running server new hosts."""

    plan: ServerPlan
    why: str


@dataclass(frozen=True, slots=True)
class StopServer:
    """End a server."""

    bridge: str
    why: str


Step = (
    MakeNamespace
    | RemoveNamespace
    | PutBridge
    | RemoveBridge
    | PutOverlay
    | RemoveOverlay
    | LoadRules
    | SetSysctl
    | RunServer
    | FeedServer
    | StopServer
)


def sentence(step: Step) -> str:
    """The step for the log, without its why."""
    match step:
        case MakeNamespace():
            return "make the namespace"
        case RemoveNamespace():
            return "remove the namespace"
        case PutBridge(bridge):
            return f"set up bridge {bridge.name}"
        case RemoveBridge(name):
            return f"remove bridge {name}"
        case PutOverlay(overlay):
            peers = ", ".join(sorted(overlay.peers))
            return f"carry {overlay.bridge} by {overlay.name} to {peers}"
        case RemoveOverlay(name):
            return f"remove {name}"
        case LoadRules(rules):
            return "replace the packet filter's table" if rules else "remove the table"
        case SetSysctl(key, value):
            return f"set {key} to {value}" if value is not None else f"put {key} back"
        case RunServer(plan):
            return f"start the server of {plan.bridge}"
        case FeedServer(plan):
            return f"give the server of {plan.bridge} its hosts"
        case StopServer(bridge):
            return f"stop the server of {bridge}"


def bridge_at(step: Step) -> str:
    """The bridge that the step is about; "" when it is about all of them."""
    match step:
        case PutBridge(bridge):
            return bridge.name
        case PutOverlay(overlay):
            return overlay.bridge
        case RemoveBridge(name) | RemoveOverlay(name):
            return name
        case RunServer(plan) | FeedServer(plan):
            return plan.bridge
        case StopServer(bridge):
            return bridge
        case _:
            return ""

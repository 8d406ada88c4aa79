"""Looking at a node's network, and doing what the difference says: between the deciding half and
the drivers. Knows no store, and keeps nothing from one call to the next."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.network.core.desired import SYSCTLS
from services.network.core.diff import difference, left_over
from services.network.core.naming import NAMESPACE_MARK
from services.network.core.plan import (
    FeedServer,
    LoadRules,
    MakeNamespace,
    Namespace,
    PutBridge,
    PutOverlay,
    RemoveBridge,
    RemoveNamespace,
    RemoveOverlay,
    RunServer,
    Seen,
    SeenLink,
    SeenOverlay,
    SeenServer,
    SeenSysctl,
    SetSysctl,
    Step,
    StopServer,
    Wanted,
    bridge_at,
    sentence,
)
from services.network.drivers.fabric import Fabric, FabricError, Link

ROUNDS = 4
"""How often is looked again: the settings of a namespace that was just made show only then."""

log = logging.getLogger("pvc.network")


@dataclass(frozen=True, slots=True)
class Convergence:
    """What was done, and why something is not as wanted: by bridge, and for all of them."""

    at: Mapping[str, str]
    everywhere: str = ""
    done: tuple[Step, ...] = ()

    def of(self, bridge: str) -> str:
        """What keeps this bridge from being as wanted; "" for nothing."""
        return self.at.get(bridge, "") or self.everywhere


def observe(fabric: Fabric, namespaced: bool) -> Seen:
    """What is there. Raises FabricError if the machine does not say."""
    links = {link.name: link for link in fabric.links()}
    settings = {key: fabric.sysctl(key) for key in SYSCTLS}
    loopback = links.get("lo")
    if not namespaced:
        namespace = Namespace.HOST
    elif loopback is None:
        namespace = Namespace.MISSING
    else:
        ours = loopback.alias == NAMESPACE_MARK
        namespace = Namespace.OURS if ours else Namespace.FOREIGN
    return Seen(
        namespace=namespace,
        links={name: _seen(row) for name, row in links.items()},
        servers={
            row.bridge: SeenServer(row.bridge, row.config, row.tables, row.fresh, row.answers)
            for row in fabric.servers()
        },
        rules=fabric.ruleset(),
        sysctls={key: SeenSysctl(row.value, row.before) for key, row in settings.items() if row},
    )


def _seen(link: Link) -> SeenLink:
    there = link.overlay
    overlay = SeenOverlay(there.vni, there.local, there.port, there.peers) if there else None
    return SeenLink(
        link.name, link.kind, link.alias, link.mac, link.mtu, link.up, link.addresses, link.ports,
        overlay,
    )  # fmt: skip


def converge(fabric: Fabric, namespaced: bool, wanted: Wanted, node: str) -> Convergence:
    """Brings the machine to what is wanted, and looks whether it is. What one bridge lacks does not
    keep another one waiting; nothing is tried twice in a call."""
    done: list[Step] = []
    waiting = ""
    for _ in range(ROUNDS):
        try:
            found = difference(wanted, observe(fabric, namespaced))
        except FabricError as error:
            return Convergence({}, str(error), tuple(done))
        if not found.steps:
            return Convergence(found.obstacles, done=tuple(done))
        refused = _apply(fabric, found.steps, node, done)
        if refused:
            everywhere = refused.pop("", "")
            return Convergence({**found.obstacles, **refused}, everywhere, tuple(done))
        waiting = "; ".join(f"{sentence(step)} ({step.why})" for step in found.steps)
    return Convergence({}, f"it does not stay as it was set: {waiting}", tuple(done))


def clean_up(fabric: Fabric, namespaced: bool, node: str) -> tuple[str, ...]:
    """Takes away all that is ours. The answer names what remains, and why: nothing, as a rule."""
    obstacles = converge(fabric, namespaced, Wanted(namespace=False), node)
    reasons = [*obstacles.at.values(), *([obstacles.everywhere] if obstacles.everywhere else [])]
    return (*left_over(observe(fabric, namespaced)), *reasons)


def _apply(fabric: Fabric, steps: Iterable[Step], node: str, done: list[Step]) -> dict[str, str]:
    """What was refused, by the bridge that it is about. Later steps about the same are left out."""
    refused: dict[str, str] = {}
    for step in steps:
        bridge = bridge_at(step)
        if bridge in refused or "" in refused:
            continue
        log.info("%s/network: %s (%s)", node, sentence(step), step.why)
        try:
            apply(fabric, step)
            done.append(step)
        except FabricError as error:
            log.warning("%s/network: %s failed: %s", node, sentence(step), error)
            refused[bridge] = str(error)
    return refused


def apply(fabric: Fabric, step: Step) -> None:
    """The verb that a step is. Raises FabricError."""
    match step:
        case MakeNamespace():
            fabric.make_namespace(NAMESPACE_MARK)
        case RemoveNamespace():
            fabric.remove_namespace(NAMESPACE_MARK)
        case PutBridge(row):
            fabric.put_bridge(row.name, row.mark, row.mac, row.mtu, row.address)
        case RemoveBridge(name, mark, mac):
            fabric.remove_bridge(name, mark, mac)
        case PutOverlay(row):
            fabric.put_overlay(
                row.name, row.mark, row.mac, row.vni, row.local, row.mtu, row.bridge, row.peers
            )
        case RemoveOverlay(name, mark, mac):
            fabric.remove_overlay(name, mark, mac)
        case LoadRules(rules):
            fabric.load_ruleset(rules)
        case SetSysctl(key, value):
            fabric.set_sysctl(key, value)
        case RunServer(plan):
            fabric.run_server(plan.bridge, plan.tag, plan.config, plan.tables, plan.files)
        case FeedServer(plan):
            fabric.feed_server(plan.bridge, plan.tables, plan.files)
        case StopServer(bridge):
            fabric.stop_server(bridge)

"""What is wanted against what is seen, as steps. Pure: the same two give the same steps, in an
order in which each can succeed, and after them the difference is empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from services.network.core.firewall import fingerprint, ruleset
from services.network.core.naming import is_our_bridge, is_our_overlay, own_mac
from services.network.core.overlay import PORT, Overlay
from services.network.core.plan import (
    Bridge,
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
    SeenServer,
    SetSysctl,
    Step,
    StopServer,
    Wanted,
)
from services.network.core.servers import ServerPlan


@dataclass(frozen=True, slots=True)
class Difference:
    """What to do, and for each bridge what stands in the way of doing more."""

    steps: tuple[Step, ...]
    obstacles: Mapping[str, str]


def difference(wanted: Wanted, seen: Seen) -> Difference:
    """Filter and kernel settings come before the servers and before anything can be attached; what
    is no longer wanted goes in the reverse order."""
    obstacles = dict(_obstacles(wanted, seen))
    fine = {name: row for name, row in wanted.bridges.items() if name not in obstacles}
    removals: list[RemoveOverlay | RemoveBridge] = [
        *_unwanted_overlays(wanted, seen),
        *_unwanted_bridges(wanted, seen),
    ]
    steps: list[Step] = [
        *_make_namespace(wanted, seen),
        *_unwanted_servers(wanted, seen, obstacles),
        *removals,
        *_rules(wanted, seen, fine),
        *_sysctls(wanted, seen),
        *_bridges(fine, seen),
        *_overlays(wanted, seen, fine),
        *_servers(wanted, seen, fine),
        *_remove_namespace(wanted, seen, obstacles, {step.name for step in removals}),
    ]
    return Difference(tuple(steps), obstacles)


def _obstacles(wanted: Wanted, seen: Seen) -> Iterator[tuple[str, str]]:
    foreign = [link for link in seen.links.values() if not _is_ours(link)]
    carrying = {row.bridge: row.name for row in wanted.overlays.values()}
    deaf = any(link.name == "lo" and not link.up for link in foreign)
    for name, bridge in wanted.bridges.items():
        if deaf:
            yield name, "the loopback interface is down, so the node cannot reach itself: set it up"
        elif there := {name, carrying.get(name, name)} & {link.name for link in foreign}:
            yield (
                name,
                f"an interface {min(there)} that is not ours is in the way: remove or rename it",
            )
        elif name not in seen.links and (clash := _overlapping(bridge, foreign)):
            yield name, f"{clash}: give the network other addresses"
    for link in seen.links.values():
        attached = sorted(_foreign_ports(link, seen))
        if _is_our_bridge(link) and link.name not in wanted.bridges and attached:
            yield link.name, f"{', '.join(attached)} is still attached to {link.name}"


def _foreign_ports(link: SeenLink, seen: Seen) -> frozenset[str]:
    """What is attached to a bridge but for what carries it to other nodes."""
    ours = {name for name, row in seen.links.items() if _is_our_overlay(row)}
    return link.ports - ours


def _overlapping(bridge: Bridge, foreign: list[SeenLink]) -> str:
    """A subnet that the machine already reaches by another interface would be cut off."""
    if not bridge.address:
        return ""
    subnet = IPv4Interface(bridge.address).network
    for link in foreign:
        for address in sorted(link.addresses):
            if IPv4Interface(address).network.overlaps(subnet):
                return f"{subnet} overlaps {address} of interface {link.name}"
    return ""


def _make_namespace(wanted: Wanted, seen: Seen) -> Iterator[MakeNamespace]:
    if wanted.namespace and seen.namespace is Namespace.MISSING:
        yield MakeNamespace("it does not exist")


def _remove_namespace(
    wanted: Wanted, seen: Seen, obstacles: Mapping[str, str], removed: set[str]
) -> Iterator[RemoveNamespace]:
    """Not while anything is in it that we do not take away: its owner would lose it."""
    others = set(seen.links) - removed - {"lo"}
    unused = not wanted.namespace and seen.namespace is Namespace.OURS
    if unused and not others and not obstacles:
        yield RemoveNamespace("nothing in it is needed any more")


def _bridges(fine: Mapping[str, Bridge], seen: Seen) -> Iterator[PutBridge]:
    for name, bridge in sorted(fine.items()):
        link = seen.links.get(name)
        if link is None:
            yield PutBridge(bridge, "it does not exist")
        elif differs := _bridge_differs(bridge, link):
            yield PutBridge(bridge, differs)


def _bridge_differs(bridge: Bridge, link: SeenLink) -> str:
    pairs: list[tuple[str, object, object]] = [
        ("mark", link.mark, bridge.mark),
        ("MAC", link.mac, bridge.mac),
        ("MTU", link.mtu, bridge.mtu),
        ("address", ", ".join(sorted(link.addresses)), bridge.address),
        ("link", "up" if link.up else "down", "up"),
    ]
    return "; ".join(f"{what} {is_} → {should}" for what, is_, should in pairs if is_ != should)


def _unwanted_bridges(wanted: Wanted, seen: Seen) -> Iterator[RemoveBridge]:
    for name, link in sorted(seen.links.items()):
        unused = name not in wanted.bridges and not _foreign_ports(link, seen)
        if _is_our_bridge(link) and unused:
            yield RemoveBridge(name, link.mark, own_mac(name), "no network needs it")


def _overlays(wanted: Wanted, seen: Seen, fine: Mapping[str, Bridge]) -> Iterator[PutOverlay]:
    for name, overlay in sorted(wanted.overlays.items()):
        if overlay.bridge not in fine:
            continue
        if (link := seen.links.get(name)) is None:
            yield PutOverlay(overlay, "it does not exist")
        elif differs := _overlay_differs(overlay, link, seen):
            yield PutOverlay(overlay, differs)


def _overlay_differs(overlay: Overlay, link: SeenLink, seen: Seen) -> str:
    there = link.overlay
    bridge = seen.links.get(overlay.bridge)
    pairs: list[tuple[str, object, object]] = [
        ("mark", link.mark, overlay.mark),
        ("MTU", link.mtu, overlay.mtu),
        ("number", there.vni if there else 0, overlay.vni),
        ("own address", there.local if there else "", overlay.local),
        ("port", there.port if there else 0, PORT),
        ("nodes", _listed(there.peers if there else ()), _listed(overlay.peers)),
        ("link", "up" if link.up else "down", "up"),
        ("bridge", bridge is not None and link.name in bridge.ports, True),
    ]
    return "; ".join(f"{what} {is_} → {should}" for what, is_, should in pairs if is_ != should)


def _listed(peers: Iterable[str]) -> str:
    return ", ".join(sorted(peers)) or "none"


def _unwanted_overlays(wanted: Wanted, seen: Seen) -> Iterator[RemoveOverlay]:
    for name, link in sorted(seen.links.items()):
        if _is_our_overlay(link) and name not in wanted.overlays:
            yield RemoveOverlay(name, link.mark, own_mac(name), "nothing is carried by it")


def _is_ours(link: SeenLink) -> bool:
    return _is_our_bridge(link) or _is_our_overlay(link)


def _is_our_bridge(link: SeenLink) -> bool:
    return is_our_bridge(link.name, link.kind, link.mark, link.mac)


def _is_our_overlay(link: SeenLink) -> bool:
    return is_our_overlay(link.name, link.kind, link.mark, link.mac)


def _rules(wanted: Wanted, seen: Seen, fine: Mapping[str, Bridge]) -> Iterator[LoadRules]:
    rules = ruleset(zone for name, zone in wanted.zones.items() if name in fine)
    should, present = fingerprint(rules), fingerprint(seen.rules)
    if should != present:
        missing, many = set(should) - set(present), set(present) - set(should)
        why = f"{len(missing)} lines are missing, {len(many)} too many" if should else "unused"
        yield LoadRules(rules, why)


def _sysctls(wanted: Wanted, seen: Seen) -> Iterator[SetSysctl]:
    """A setting that the kernel does not have needs none; one that was right already is not
    ours."""
    for key, found in sorted(seen.sysctls.items()):
        should = wanted.sysctls.get(key)
        if should is None and found.before is not None:
            yield SetSysctl(
                key, None, f"no longer needed: back from {found.value} to {found.before}"
            )
        elif should is not None and found.value != should:
            yield SetSysctl(key, should, f"it is {found.value}")


def _servers(
    wanted: Wanted, seen: Seen, fine: Mapping[str, Bridge]
) -> Iterator[RunServer | FeedServer]:
    for name, plan in sorted(wanted.servers.items()):
        if name in fine and (step := _server(plan, seen)) is not None:
            yield step


def _server(plan: ServerPlan, seen: Seen) -> RunServer | FeedServer | None:
    match seen.servers.get(plan.bridge):
        case None:
            return RunServer(plan, "it does not run")
        case SeenServer(tag=tag) if tag != plan.tag:
            return RunServer(plan, "its configuration changed")
        case _ if plan.bridge not in seen.links:
            return RunServer(plan, "its bridge is made anew")
        case SeenServer(fresh=False):
            return RunServer(plan, "its bridge was made anew, or it is not alone")
        case SeenServer(answers=False):
            return RunServer(plan, "it does not answer")
        case SeenServer(tables=tables) if tables != plan.tables:
            return FeedServer(plan, "its hosts changed")
    return None


def _unwanted_servers(
    wanted: Wanted, seen: Seen, obstacles: Mapping[str, str]
) -> Iterator[StopServer]:
    for name in sorted(seen.servers):
        if name not in wanted.servers:
            yield StopServer(name, "no network needs it")
        elif name in obstacles:
            yield StopServer(name, obstacles[name])


def left_over(seen: Seen) -> tuple[str, ...]:
    """What is there of ours, for people and for the proof that nothing is left."""
    found = [f"{link.kind} {link.name}" for link in seen.links.values() if _is_ours(link)]
    found += [f"server of {name}" for name in seen.servers]
    found += ["table inet pvc"] if seen.rules else []
    found += [f"setting {key}" for key, row in seen.sysctls.items() if row.before is not None]
    found += ["the namespace"] if seen.namespace is Namespace.OURS else []
    return tuple(sorted(found))

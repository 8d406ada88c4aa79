"""What an administrator changes about a node by a word: its settings, whether it may lead, where
the lead goes. Pure."""

from __future__ import annotations

from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2, secret_pb2
from services.coordinator.core.asked import (
    Node,
    changed,
    paths_of,
    state_of,
    staying,
    taken_over,
    the_node,
    told,
)
from services.coordinator.core.world import WORKING, short
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import not_found, refuse
from services.mesh.rows import THIS_CLUSTER
from services.state.store import Change, Delete, Put, Snapshot

LEADER = "leader"
POWER = "spec.power_control"
CHANGEABLE = (
    "spec.description",
    "spec.tags",
    "spec.max_vms",
    POWER,
    "spec.address",
    "meta.labels",
)
Identity = cluster_pb2.ClusterIdentity


def update(snapshot: Snapshot, request: Any, call: Call, sealed: bytes) -> Mutation:
    """Takes over what is named. sealed: the password of its controller as it is to be kept, empty
    when none was given. Raises NOT_FOUND, ETAG_MISMATCH, INVALID_FIELD, IN_USE."""
    wanted = rows.copied(request.node)
    node = the_node(snapshot, wanted.name, wanted.meta.etag, "node.name")
    paths = paths_of(request.update_mask.paths, wanted, CHANGEABLE)
    power = any(path == POWER or path.startswith(f"{POWER}.") for path in paths)
    wanted.spec.power_control.ClearField("password")
    if not request.node.spec.HasField("power_control"):
        wanted.spec.ClearField("power_control")
    paths = [path for path in paths if not path.endswith(".password")]
    after = taken_over(node, wanted, paths, call)
    _check_address(snapshot, after)
    _check_power(after)
    changes: list[Change] = list(_secret(snapshot, after, sealed, call)) if power else []
    if after is not node:
        changes.append(Put(after))
    if changes:
        names = ", ".join(paths) or f"{POWER}.password"
        changes.append(told(call, node.name, f"node {short(node.name)} was changed", names))
    return Mutation(changes, after)


def secret_name(node: str) -> str:
    """The row of the password of a node's controller: nodes/n1 → secrets/power.n1."""
    return f"secrets/power.{short(node)}"


def _secret(snapshot: Snapshot, node: Node, sealed: bytes, call: Call) -> list[Change]:
    """The password's row: written when one was given, gone with the controller."""
    name = secret_name(node.name)
    there = snapshot.find(secret_pb2.Secret, name)
    if not node.spec.HasField("power_control"):
        return [Delete(name, there.meta.etag)] if there is not None else []
    if not sealed:
        return []
    row = secret_pb2.Secret(name=name, meta=rows.new_meta(call), sealed=sealed)
    row.meta.etag = there.meta.etag if there is not None else ""
    return [Put(row)]


def _check_address(snapshot: Snapshot, node: Node) -> None:
    for other in snapshot.rows(Node):
        same = node.spec.address and other.spec.address == node.spec.address
        if same and other.name != node.name:
            refuse(
                reason_pb2.REASON_IN_USE,
                f"{node.spec.address} is the address of {other.name}; every node has its own",
                "node.spec.address",
            )


def _check_power(node: Node) -> None:
    control = node.spec.power_control
    redfish = control.protocol == cluster_pb2.PowerControl.PROTOCOL_REDFISH
    is_url = control.address.startswith(("https://", "http://"))
    if not node.spec.HasField("power_control") or is_url == redfish:
        if node.spec.HasField("power_control") and not (control.protocol and control.address):
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                "a controller needs protocol and address",
                f"node.{POWER}.protocol",
            )
        return
    form = "a URL, https://…" if redfish else "host or host:port"
    refuse(
        reason_pb2.REASON_INVALID_FIELD,
        f"the address of a controller of this protocol is {form}",
        f"node.{POWER}.address",
    )


def coordinators(snapshot: Snapshot, but: str = "") -> list[Node]:
    """Nodes that may lead and stay."""
    return [
        node
        for node in snapshot.rows(Node)
        if node.spec.coordinator and not node.spec.leaving and node.name != but
    ]


def promote(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE."""
    node = staying(snapshot, request)
    if node.spec.coordinator:
        return Mutation((), node)
    after = changed(node, call)
    after.spec.coordinator = True
    event = told(call, node.name, f"node {short(node.name)} is a coordinator now")
    return Mutation((Put(after), event), after)


def demote(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE for the last one. The lead goes elsewhere."""
    node = staying(snapshot, request)
    if not node.spec.coordinator:
        return Mutation((), node)
    check_not_last(snapshot, node, "demoted")
    after = changed(node, call)
    after.spec.coordinator = False
    event = told(call, node.name, f"node {short(node.name)} is no coordinator any more")
    return Mutation([Put(after), event, *lead_leaves(snapshot, node, call)], after)


def lead_leaves(snapshot: Snapshot, node: Node, call: Call) -> list[Change]:
    """The wish that another leads, if this node does."""
    leads = snapshot.leases.get(LEADER) == node.name
    return [Put(_asking(snapshot, call, away=node.name))] if leads else []


def check_not_last(snapshot: Snapshot, node: Node, deed: str) -> None:
    """Raises WRONG_STATE when no other coordinator works."""
    others = [x for x in coordinators(snapshot, node.name) if x.name in snapshot.leases]
    if node.spec.coordinator and not others:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{node.name} is the last coordinator that works, and cannot be {deed}; promote "
            "another one first: pvc node promote",
            "name",
        )


def lead(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Asks for the lead to go to a node, or away from it; nothing if it is so already. Raises
    NOT_FOUND, ETAG_MISMATCH, WRONG_STATE."""
    node = staying(snapshot, request)
    if leads_as_asked(snapshot, request):
        return Mutation((), node)
    if request.away:
        check_not_last(snapshot, node, "relieved of the lead")
        asking = _asking(snapshot, call, away=node.name)
    else:
        _check_can_lead(snapshot, node)
        asking = _asking(snapshot, call, node=node.name)
    way = "away from" if request.away else "to"
    event = told(call, node.name, f"the lead is asked to go {way} node {short(node.name)}")
    return Mutation((Put(asking), event), node)


def leads_as_asked(snapshot: Snapshot, request: Any) -> bool:
    """Whether a node leads, and the right one."""
    leader = snapshot.leases.get(LEADER, "")
    return bool(leader) and (leader == request.name) != request.away


def _check_can_lead(snapshot: Snapshot, node: Node) -> None:
    if not node.spec.coordinator:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{node.name} is no coordinator; promote it first: pvc node promote {short(node.name)}",
            "name",
        )
    if node.decision.state not in WORKING or node.name not in snapshot.leases:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{node.name} is {state_of(node)} ({node.decision.why}) and cannot lead; choose one "
            "that is online: pvc node list",
            "name",
        )


def _asking(snapshot: Snapshot, call: Call, node: str = "", away: str = "") -> Identity:
    """The cluster's row with the wish in it."""
    there = snapshot.find(Identity, THIS_CLUSTER)
    if there is None:
        raise not_found(THIS_CLUSTER, "")
    after = rows.copied(there)
    wish = cluster_pb2.LeadRequest(node=node, away=away, time=call.now)
    after.lead_request.CopyFrom(wish)
    return after

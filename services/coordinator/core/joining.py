"""How a machine comes into the cluster: what AddNode promises and JoinNode keeps. Pure: secrets
come in as their hashes, and certificates are not its business."""

from __future__ import annotations

import hmac
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import reason_pb2
from services.coordinator.core.asked import Node, state_of, told
from services.coordinator.core.world import short
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError, refuse
from services.state.store import ANY_VERSION, Delete, Put, Snapshot

Join = cluster_pb2.Join
JOINING = cluster_pb2.NODE_STATE_JOINING

TTL_S = 3600
TTL_MAX_S = 86_400
DOOR = "door"
"""The name under which nodes tell where callers from outside come in; see NodeStatus.services."""


def add(snapshot: Snapshot, request: Any, call: Call, secret_hash: bytes) -> Mutation:
    """Expects a node. Raises ALREADY_EXISTS, IN_USE, INVALID_FIELD, WRONG_STATE."""
    node = _new(request, call)
    _check_new(snapshot, node)
    if not doors_of(snapshot):
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            "no coordinator that is online has a door that another machine can reach: set "
            "gateway.grpc_listen on one to an address of the cluster's network",
        )
    joining = Join(
        name=joins_name(node.name),
        meta=rows.new_meta(call),
        secret_hash=secret_hash,
        expire_time=expiry(call.now, request.expires_in),
    )
    # What an earlier node of this name left is of no use to anybody.
    left = snapshot.find(Join, joining.name)
    joining.meta.etag = left.meta.etag if left is not None else ""
    what = f"node {request.node_id} is expected"
    event = told(call, node.name, what, f"as {node.spec.address}")
    return Mutation((Put(node), Put(joining), event), api.AddNodeResponse(node=node))


def _new(request: Any, call: Call) -> Node:
    node = Node(name=f"nodes/{request.node_id}", meta=rows.new_meta(call))
    node.spec.address, node.spec.coordinator = request.address, request.coordinator
    node.spec.certificates_since.CopyFrom(call.now)
    decision = node.decision
    decision.state, decision.why = JOINING, "its machine has not joined yet"
    decision.state_time.CopyFrom(call.now)
    return node


def _check_new(snapshot: Snapshot, node: Node) -> None:
    there = snapshot.find(Node, node.name)
    if there is not None:
        again = (
            f"; for another token take it out first: pvc node remove {short(node.name)}"
            if there.decision.state == JOINING
            else "; choose another name"
        )
        refuse(
            reason_pb2.REASON_ALREADY_EXISTS,
            f"{node.name} exists and is {state_of(there)}{again}",
            "node_id",
        )
    for other in snapshot.rows(Node):
        if other.spec.address == node.spec.address:
            refuse(
                reason_pb2.REASON_IN_USE,
                f"{node.spec.address} is the address of {other.name}; every node has its own",
                "address",
            )


def doors_of(snapshot: Snapshot) -> list[str]:
    """Where coordinators that hold their session let callers in: host:port each."""
    return [
        service.address
        for node in snapshot.rows(Node)
        if node.spec.coordinator and not node.spec.leaving and node.name in snapshot.leases
        for service in node.status.services
        if service.service == DOOR
    ]


def expiry(now: Timestamp, asked: Duration) -> Timestamp:
    """When a token made now ends. Raises INVALID_FIELD."""
    given = asked.seconds or asked.nanos
    if given and not 0 < asked.seconds <= TTL_MAX_S:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"expires_in must be between 1 second and {TTL_MAX_S} seconds",
            "expires_in",
        )
    return Timestamp(seconds=now.seconds + (asked.seconds or TTL_S), nanos=now.nanos)


def joins_name(node: str) -> str:
    """nodes/n4 → joins/n4."""
    return f"joins/{short(node)}"


def join(
    snapshot: Snapshot, request: Any, call: Call, secret_hash: bytes, key_hash: bytes
) -> Mutation:
    """Lets the machine in that has the secret, once: only the key that came first is answered
    again. A wrong secret and an unknown node get the same answer. Raises UNAUTHENTICATED,
    WRONG_STATE."""
    node, joining = snapshot.find(Node, request.name), snapshot.find(Join, joins_name(request.name))
    expected = joining.secret_hash if joining is not None else bytes(32)
    same = hmac.compare_digest(secret_hash, expected)
    if node is None or joining is None or not same:
        raise PvcError(
            reason_pb2.REASON_UNAUTHENTICATED,
            "the token is not valid, or was used and is gone; an admin makes one: pvc node add",
            field="name",
        )
    _check_token(node, joining, key_hash, call.now)
    if joining.answered_hash:
        return Mutation((), node)
    after = rows.copied(joining)
    after.answered_hash = key_hash
    what = f"node {short(node.name)} was given its certificate"
    return Mutation(
        (
            Put(after),
            told(call, node.name, what, f"its token was right; it has PVC {request.version}"),
        ),
        node,
    )


def _check_token(node: Node, joining: Join, key_hash: bytes, now: Timestamp) -> None:
    end = joining.expire_time
    again = f"take the node out and add it again: pvc node remove {short(node.name)}"
    if node.spec.leaving:
        refuse(reason_pb2.REASON_WRONG_STATE, f"{node.name} is leaving the cluster", "name")
    if (end.seconds, end.nanos) <= (now.seconds, now.nanos):
        refuse(reason_pb2.REASON_WRONG_STATE, f"the token's time is over; {again}", "secret")
    used = joining.answered_hash
    if used and not hmac.compare_digest(used, key_hash):
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"another machine, or another key, has used the token already; if that was not yours, "
            f"somebody else has a certificate of {node.name}: {again}",
            "secret",
        )


def forgotten(snapshot: Snapshot, node: str) -> tuple[Delete, ...]:
    """What makes a node's token worthless."""
    name = joins_name(node)
    return (Delete(name, ANY_VERSION),) if snapshot.find(Join, name) is not None else ()

"""What requests about tokens make of the state. Pure: the time, ids and secrets come in."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import event_pb2, options_pb2, reason_pb2
from pvc.gateway.v1 import access_service_pb2 as pb
from pvc.gateway.v1 import token_pb2
from services.gateway.access import expired, role_name, secret_hash
from services.gateway.token_view import use_of
from services.mesh.desk import Call, Mutation
from services.mesh.errors import nearest, not_found, refuse, shown
from services.mesh.masks import take
from services.mesh.rows import check_etag, copied, event, new_meta
from services.state.store import ANY_VERSION, Delete, Put, Snapshot

Token = token_pb2.Token

TTL_MAX_S = 100 * 366 * 86400
CHANGEABLE = ("role", "expire_time", "description", "meta.labels")
ROLES = (options_pb2.ROLE_VIEWER, options_pb2.ROLE_OPERATOR, options_pb2.ROLE_ADMIN)
LAST = "no other token of an admin is left; root of a node still comes in by its socket"


def without_hash(token: Token) -> Token:
    """The token without what must never be in an answer."""
    answer = copied(token)
    answer.ClearField("secret_hash")
    return answer


def planned_token(
    snapshot: Snapshot, request: pb.CreateTokenRequest, call: Call, secret: str
) -> Mutation:
    """Makes the token. Raises ALREADY_EXISTS, INVALID_FIELD."""
    name = f"tokens/{request.token_id}"
    if snapshot.find(Token, name) is not None:
        refuse(
            reason_pb2.REASON_ALREADY_EXISTS,
            f"{name} exists; choose another id, or delete it first",
            "token_id",
        )
    _check_role(request.role, "role")
    token = Token(
        name=name,
        meta=new_meta(call),
        role=request.role,
        description=request.description,
        secret_hash=secret_hash(secret),
    )
    if request.HasField("ttl"):
        token.expire_time.CopyFrom(expiry(call.now, request.ttl))
    told = _told(call, token, f"made, role {role_name(request.role)}")
    return Mutation([Put(token), told], pb.CreateTokenResponse(token=without_hash(token)))


def planned_update(snapshot: Snapshot, request: pb.UpdateTokenRequest, call: Call) -> Mutation:
    """Changes the token. Raises NOT_FOUND, ETAG_MISMATCH, INVALID_FIELD."""
    wanted = request.token
    token = snapshot.find(Token, wanted.name)
    if token is None:
        raise not_found(wanted.name, "token.name")
    check_etag(token, wanted.meta.etag, "token.meta.etag")
    after = copied(token)
    paths = _paths(request.update_mask.paths, wanted)
    for path in paths:
        take(wanted, after, path)
    _check_role(after.role, "token.role")
    if "expire_time" in paths and expired(after, call.now):
        problem = "must be ahead; to end the token now, delete it"
        refuse(reason_pb2.REASON_INVALID_FIELD, f"expire_time {problem}", "token.expire_time")
    if after == token:
        return Mutation([], without_hash(token))
    after.meta.generation += 1
    after.meta.update_time.CopyFrom(call.now)
    why = LAST if _is_last_admin(snapshot, token, call.now) and not _admits(after, call) else ""
    return Mutation([Put(after), _told(call, after, _change(token, after), why)],
                    without_hash(after))  # fmt: skip


def planned_removal(snapshot: Snapshot, request: pb.DeleteTokenRequest, call: Call) -> Mutation:
    """Revokes the token. Raises NOT_FOUND, ETAG_MISMATCH."""
    token = snapshot.find(Token, request.name)
    if token is None:
        raise not_found(request.name)
    check_etag(token, request.etag)
    why = LAST if _is_last_admin(snapshot, token, call.now) else ""
    told = _told(call, token, "revoked", why)
    gone = [Delete(token.name, token.meta.etag), Delete(use_of(token.name), ANY_VERSION)]
    return Mutation([*gone, told], pb.DeleteTokenResponse())


def expiry(now: Timestamp, ttl: Duration) -> Timestamp:
    """When a token made now ends. Raises INVALID_FIELD for a time that is not ahead."""
    if not 0 < ttl.seconds <= TTL_MAX_S:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"ttl must be between 1 second and {TTL_MAX_S} seconds",
            "ttl",
        )
    return Timestamp(seconds=now.seconds + ttl.seconds, nanos=now.nanos)


def _check_role(role: options_pb2.Role.ValueType, field: str) -> None:
    if role not in ROLES:
        refuse(reason_pb2.REASON_INVALID_FIELD, "role must be viewer, operator or admin", field)


def _paths(mask: Sequence[str], wanted: Token) -> Sequence[str]:
    """The fields to take over. Raises INVALID_FIELD."""
    if not mask:
        given = (wanted.role, wanted.HasField("expire_time"), wanted.description)
        set_ones = zip(CHANGEABLE, (*given, wanted.meta.labels), strict=True)
        return [path for path, value in set_ones if value]
    for path in mask:
        if path not in (*CHANGEABLE, "*"):
            problem = f"{shown(path)} cannot be changed{nearest(path, CHANGEABLE)}"
            refuse(reason_pb2.REASON_INVALID_FIELD, problem, "update_mask")
    return CHANGEABLE if "*" in mask else list(dict.fromkeys(mask))


def _admits(token: Token, call: Call) -> bool:
    return token.role == options_pb2.ROLE_ADMIN and not expired(token, call.now)


def _is_last_admin(snapshot: Snapshot, token: Token, now: Timestamp) -> bool:
    admins = [
        row.name
        for row in snapshot.rows(Token)
        if row.role == options_pb2.ROLE_ADMIN and not expired(row, now)
    ]
    return admins == [token.name]


def _change(before: Token, after: Token) -> str:
    if before.role != after.role:
        return f"changed, role {role_name(before.role)} → {role_name(after.role)}"
    if before.expire_time == after.expire_time:
        return "changed"
    end = after.expire_time.ToJsonString() if after.HasField("expire_time") else "never"
    return f"changed, ends {end}"


def _told(call: Call, token: Token, what: str, why: str = "") -> Put:
    grave = event_pb2.Event.SEVERITY_WARNING if why else event_pb2.Event.SEVERITY_INFO
    sentence = f"token {token.name.removeprefix('tokens/')} {what}"
    return event(
        call.new_id(), call.now, token.name, sentence, why, cause=call.caller, severity=grave
    )

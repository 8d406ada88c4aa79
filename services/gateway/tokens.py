"""The tokens: answers AccessService, and makes a cluster's first token. Secrets are told once and
kept nowhere; the store has their hashes.
"""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import meta_pb2, options_pb2, reason_pb2
from pvc.gateway.v1 import access_service_pb2 as pb
from pvc.gateway.v1 import access_service_pb2_grpc as grpc_pb
from pvc.gateway.v1 import token_pb2
from services.gateway.access import make_secret, secret_hash
from services.gateway.door import ROLE
from services.mesh.clock import Clock
from services.mesh.desk import CALLER, Call, Context, Desk, Mutation
from services.mesh.errors import not_found, refuse
from services.mesh.rows import check_etag, copied, event, new_meta
from services.state.store import ANY_VERSION, Delete, Put, Snapshot, Store

Token = token_pb2.Token

FIRST_TOKEN = "admin"
ENTROPY_CHARACTERS = 16
"""The last characters of a new id: 80 bits of chance. A secret has two of them."""
TTL_MAX_S = 100 * 366 * 86400


class AccessService(grpc_pb.AccessServiceServicer):
    """See the contract. Reached through the door like every other service."""

    def __init__(self, desk: Desk, cluster: str, version: str) -> None:
        self._desk = desk
        self._cluster = cluster
        self._version = version

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """See the contract."""
        said = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        return pb.WhoAmIResponse(
            caller=said.get(CALLER, "unknown"),
            role=next(one for one in options_pb2.Role.values() if str(one) == said.get(ROLE, "0")),
            cluster=self._cluster,
            version=self._version,
        )

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        """See the contract. A repeated request cannot have the secret again: it is not kept."""
        secret = make_secret(request.token_id, new_entropy(self._desk.clock))

        def plan(snapshot: Snapshot, asked: pb.CreateTokenRequest, call: Call) -> Mutation:
            return planned_token(snapshot, asked, call, secret)

        answer = await self._desk.mutate(request, pb.CreateTokenResponse, plan, context)
        if request.validate_only:
            return answer
        row = self._desk.store.snapshot().find(Token, answer.token.name)
        if row is None or row.secret_hash != secret_hash(secret):
            refuse(
                reason_pb2.REASON_ALREADY_EXISTS,
                f"{answer.token.name} was made by this request before, and its secret was told "
                "then; delete it and make another one",
            )
        return pb.CreateTokenResponse(token=shown(row), secret=secret)

    async def GetToken(self, request: pb.GetTokenRequest, context: Context) -> Token:
        """See the contract."""
        return shown(await self._desk.get(Token, request, context))

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        """See the contract."""
        answer = await self._desk.list(Token, request, pb.ListTokensResponse, context)
        for token in answer.tokens:
            token.ClearField("secret_hash")
        return answer

    async def DeleteToken(
        self, request: pb.DeleteTokenRequest, context: Context
    ) -> pb.DeleteTokenResponse:
        """See the contract."""
        return await self._desk.mutate(request, pb.DeleteTokenResponse, planned_removal, context)


def shown(token: Token) -> Token:
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
    if request.role not in (1, 2, 3):
        refuse(reason_pb2.REASON_INVALID_FIELD, "role must be viewer, operator or admin", "role")
    token = Token(
        name=name,
        meta=new_meta(call),
        role=request.role,
        description=request.description,
        secret_hash=secret_hash(secret),
    )
    if request.HasField("ttl"):
        token.expire_time.CopyFrom(expiry(call.now, request.ttl))
    role = options_pb2.Role.Name(request.role).removeprefix("ROLE_").lower()
    told = event(
        call.new_id(),
        call.now,
        name,
        f"token {request.token_id} made, role {role}",
        cause=call.caller,
    )
    return Mutation([Put(token), told], pb.CreateTokenResponse(token=shown(token)))


def planned_removal(snapshot: Snapshot, request: pb.DeleteTokenRequest, call: Call) -> Mutation:
    """Revokes the token. Raises NOT_FOUND, ETAG_MISMATCH."""
    token = snapshot.find(Token, request.name)
    if token is None:
        raise not_found(request.name)
    check_etag(token, request.etag)
    told = event(
        call.new_id(), call.now, token.name, f"token {request.name[7:]} revoked", cause=call.caller
    )
    return Mutation([Delete(token.name, token.meta.etag), told], pb.DeleteTokenResponse())


def expiry(now: Timestamp, ttl: Duration) -> Timestamp:
    """When a token made now ends. Raises INVALID_FIELD for a time that is not ahead."""
    if not 0 < ttl.seconds <= TTL_MAX_S:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"ttl must be between 1 second and {TTL_MAX_S} seconds",
            "ttl",
        )
    return Timestamp(seconds=now.seconds + ttl.seconds, nanos=now.nanos)


def new_entropy(clock: Clock) -> str:
    """160 bits of chance, 32 characters."""
    return "".join(clock.new_id()[-ENTROPY_CHARACTERS:] for _ in range(2))


def ensure_first_token(store: Store, clock: Clock, path: Path) -> str:
    """Makes the admin token of a new cluster and writes its secret to a file that only root reads;
    gives the secret. May be repeated: it keeps what is there, and mends what broke off half-way.
    """
    name = f"tokens/{FIRST_TOKEN}"
    row = store.snapshot().find(Token, name)
    secret = path.read_text().strip() if path.exists() else ""
    if row is not None and secret and row.secret_hash == secret_hash(secret):
        return secret
    if not secret:
        secret = make_secret(FIRST_TOKEN, new_entropy(clock))
        _write_for_root(path, secret)
    now = clock.now()
    token = Token(
        name=name,
        meta=meta_pb2.Meta(
            uid=clock.new_id(), generation=1, create_time=now, update_time=now, etag=ANY_VERSION
        ),
        role=options_pb2.ROLE_ADMIN,
        description="made with the cluster",
        secret_hash=secret_hash(secret),
    )
    store.commit([Put(token)])
    return secret


def _write_for_root(path: Path, secret: str) -> None:
    """The file is whole or not there, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

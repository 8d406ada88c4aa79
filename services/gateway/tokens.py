"""The tokens: answers AccessService, and makes a cluster's first token. Secrets are told once and
kept nowhere; the store has their hashes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from pvc.core.v1 import meta_pb2, options_pb2, reason_pb2
from pvc.gateway.v1 import access_service_pb2 as pb
from pvc.gateway.v1 import access_service_pb2_grpc as grpc_pb
from pvc.gateway.v1 import token_pb2
from services.gateway.access import make_secret, secret_hash
from services.gateway.door import ROLE
from services.gateway.token_edits import (
    planned_removal,
    planned_token,
    planned_update,
    without_hash,
)
from services.gateway.token_view import TokenView
from services.mesh import query
from services.mesh.clock import Clock
from services.mesh.desk import CALLER, Call, Context, Desk, Mutation
from services.mesh.errors import not_found, refuse
from services.state.store import ANY_VERSION, Put, Snapshot, Store

Token = token_pb2.Token

FIRST_TOKEN = "admin"
ENTROPY_CHARACTERS = 16
"""The last characters of a new id: 80 bits of chance. A secret has two of them."""


class AccessService(grpc_pb.AccessServiceServicer):
    """See the contract. Reached through the door like every other service."""

    def __init__(self, desk: Desk, cluster: str, version: str) -> None:
        self._desk = desk
        self._tokens = TokenView(desk.store)
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
        return pb.CreateTokenResponse(token=without_hash(row), secret=secret)

    async def GetToken(self, request: pb.GetTokenRequest, context: Context) -> Token:
        """See the contract."""
        row = self._tokens.seen(await self._desk.fresh(context)).find(Token, request.name)
        if row is None:
            raise not_found(request.name)
        return query.masked(row, request.read_mask)

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        """See the contract."""
        snapshot = self._tokens.seen(await self._desk.fresh(context))
        return query.page(snapshot, Token, request, pb.ListTokensResponse)

    async def WatchTokens(
        self, request: pb.WatchTokensRequest, context: Context
    ) -> AsyncIterator[pb.WatchTokensResponse]:
        """See the contract."""
        await self._desk.fresh(context)
        answers = query.follow(self._tokens, Token, request, pb.WatchTokensResponse)
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def UpdateToken(self, request: pb.UpdateTokenRequest, context: Context) -> Token:
        """See the contract."""
        after = await self._desk.mutate(request, Token, planned_update, context)
        return without_hash(self._tokens.shown(after))

    async def DeleteToken(
        self, request: pb.DeleteTokenRequest, context: Context
    ) -> pb.DeleteTokenResponse:
        """See the contract."""
        return await self._desk.mutate(request, pb.DeleteTokenResponse, planned_removal, context)


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

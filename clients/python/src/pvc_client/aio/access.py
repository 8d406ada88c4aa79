"""Tokens that let callers in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack

from google.protobuf.duration_pb2 import Duration

from pvc.gateway.v1 import token_pb2
from pvc_client.aio.resources import AsyncResources
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import ACCESS, Options, mask

if TYPE_CHECKING:
    from pvc.core.v1 import options_pb2
    from pvc.gateway.v1 import access_service_pb2 as pb

Token = token_pb2.Token


class AsyncTokens(AsyncResources[Token]):
    """The cluster's tokens."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, ACCESS, Token, "tokens")

    async def create(
        self,
        token_id: str,
        role: options_pb2.Role.ValueType,
        *,
        ttl_s: int = 0,
        description: str = "",
        **options: Unpack[Options],
    ) -> pb.CreateTokenResponse:
        """Makes a token; its secret is in this answer and nowhere else. ttl_s: 0 for ever."""
        answer: pb.CreateTokenResponse = await self._ask(
            ACCESS["CreateToken"],
            options,
            token_id=token_id,
            role=role,
            description=description,
            ttl=Duration(seconds=ttl_s) if ttl_s else None,
        )
        return answer

    async def update(
        self, token: Token, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Token:
        """Takes over the fields of the mask (role, expire_time, description, meta.labels), all that
        are set without one; holds at once."""
        fields = {"token": token, "update_mask": mask(update_mask)}
        updated: Token = await self._ask(ACCESS["UpdateToken"], options, **fields)
        return updated

    async def change(
        self, token: str, change: Callable[[Token], object], **options: Unpack[Options]
    ) -> Token:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        async def update(wanted: Token, paths: Sequence[str]) -> Token:
            return await self.update(wanted, paths, **options)

        changed: Token = await self._changed(token, change, update)
        return changed

    async def delete(self, token: str, **options: Unpack[Options]) -> None:
        """Revokes it, at once."""
        await self._ask(ACCESS["DeleteToken"], options, name=self.name(token))

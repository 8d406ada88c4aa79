"""Answers about who did what; changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pvc.gateway.v1 import audit_pb2
from pvc.gateway.v1 import audit_service_pb2 as api
from pvc.gateway.v1 import audit_service_pb2_grpc as api_grpc
from services.gateway.recorder import Recorder
from services.mesh.desk import Context, Desk

AuditEntry = audit_pb2.AuditEntry


class AuditService(api_grpc.AuditServiceServicer):
    """See the contract. Reached through the door like every other service."""

    def __init__(self, desk: Desk, recorder: Recorder) -> None:
        self._desk, self._recorder = desk, recorder

    async def GetAuditEntry(self, request: Any, context: Context) -> AuditEntry:
        """See the contract."""
        return await self._desk.get(AuditEntry, request, context)

    async def ListAuditEntries(
        self, request: Any, context: Context
    ) -> api.ListAuditEntriesResponse:
        """See the contract."""
        await asyncio.to_thread(self._recorder.settle)
        return await self._desk.list(AuditEntry, request, api.ListAuditEntriesResponse, context)

    async def WatchAuditEntries(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchAuditEntriesResponse]:
        """See the contract."""
        answers = self._desk.watch(AuditEntry, request, api.WatchAuditEntriesResponse, context)
        async for answer in answers:
            yield answer

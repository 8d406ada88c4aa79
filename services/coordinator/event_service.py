"""Answers about what happened; changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import event_pb2
from services.mesh.desk import Context, Desk


class EventService(api_grpc.EventServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListEvents(self, request: Any, context: Context) -> api.ListEventsResponse:
        """See the contract."""
        return await self._desk.list(event_pb2.Event, request, api.ListEventsResponse, context)

    async def WatchEvents(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchEventsResponse]:
        """See the contract."""
        answers = self._desk.watch(event_pb2.Event, request, api.WatchEventsResponse, context)
        async for answer in answers:
            yield answer

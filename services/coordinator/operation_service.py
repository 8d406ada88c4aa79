"""Answers about operations; changes only `cancel_requested`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2
from services.mesh import rows
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import not_found
from services.mesh.watches import woken_by
from services.state.store import Put, Snapshot

WAIT_MAX_S = 3600.0
Operation = operation_pb2.Operation


class OperationService(api_grpc.OperationServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetOperation(self, request: api.GetOperationRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.get(Operation, request, context)

    async def ListOperations(self, request: Any, context: Context) -> api.ListOperationsResponse:
        """See the contract."""
        return await self._desk.list(Operation, request, api.ListOperationsResponse, context)

    async def WatchOperations(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchOperationsResponse]:
        """See the contract."""
        answers = self._desk.watch(Operation, request, api.WatchOperationsResponse, context)
        async for answer in answers:
            yield answer

    async def WaitOperation(self, request: api.WaitOperationRequest, context: Context) -> Operation:
        """See the contract."""
        await self._desk.fresh(context)
        asked_s = request.timeout.seconds + request.timeout.nanos / 1e9 or WAIT_MAX_S
        left_s = context.time_remaining()
        patience_s = WAIT_MAX_S if left_s is None else max(left_s - 0.5, 0.0)
        operation = await self._ended(request.name, min(asked_s, patience_s, WAIT_MAX_S))
        await self._desk.fresh(context)  # tells the revision of the end, not of the beginning
        return operation

    async def CancelOperation(
        self, request: api.CancelOperationRequest, context: Context
    ) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, cancel, context)

    async def _ended(self, name: str, wait_s: float) -> Operation:
        """The operation once it has ended, or as it is after the wait."""
        store, clock = self._desk.store, asyncio.get_running_loop()
        end = clock.time() + wait_s
        with woken_by(store) as wake:
            while True:
                operation = store.snapshot().find(Operation, name)
                if operation is None:
                    raise not_found(name)
                if operation.state in rows.FINAL or clock.time() >= end:
                    return operation
                await wake.wait(end - clock.time())


def cancel(snapshot: Snapshot, request: api.CancelOperationRequest, call: Call) -> Mutation:
    """Asks the worker to stop; one that nobody can have begun yet ends at once by its worker's own
    hand."""
    operation = snapshot.find(Operation, request.name)
    if operation is None:
        raise not_found(request.name)
    if operation.state in rows.FINAL or operation.cancel_requested:
        return Mutation((), operation)
    after = rows.copied(operation)
    after.cancel_requested = True
    rows.log_line(after, f"{call.caller} asked to cancel it", call.now)
    return Mutation((Put(after),), after)

"""What became of an operation on a network. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pvc.core.v1 import reason_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1.network_pb2 import Network

METHOD = "pvc.network.v1.NetworkService"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an operation ends. `reason` and `text` say why it did not succeed."""

    state: Operation.State.ValueType
    reason: reason_pb2.Reason.ValueType = reason_pb2.REASON_UNSPECIFIED
    text: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the last round made of a network's spec: of which generation, and what stood in the
    way."""

    generation: int
    why: str


SUCCEEDED = Verdict(Operation.STATE_SUCCEEDED)


def verdict(operation: Operation, row: Network | None, attempt: Attempt | None) -> Verdict | None:
    """How the operation ends now, or None when it is to go on. `row` is its network as it is after
    the round, `attempt` what the round tried with it."""
    if operation.method == f"{METHOD}/DeleteNetwork":
        return _removal(operation, row)
    if row is None or row.meta.HasField("delete_time"):
        text = f"{operation.target} was removed meanwhile"
        return Verdict(Operation.STATE_FAILED, reason_pb2.REASON_SUPERSEDED, text)
    if attempt is None or attempt.generation < operation.generation:
        return None
    if not attempt.why:
        return SUCCEEDED
    text = (
        f"{operation.target} cannot be used: {attempt.why}. It stays, and is tried again; "
        "change or delete it if that cannot help"
    )
    return Verdict(Operation.STATE_FAILED, reason_pb2.REASON_NETWORK_FAILED, text)


def keeps(operation: Operation, row: Network | None) -> bool:
    """Whether the operation is a removal that was called off while its network is still there."""
    removal = operation.method == f"{METHOD}/DeleteNetwork"
    return removal and operation.cancel_requested and row is not None and _is_same(operation, row)


def _removal(operation: Operation, row: Network | None) -> Verdict | None:
    """A network that was made after the removal was asked for is another one."""
    if row is None or not _is_same(operation, row):
        return SUCCEEDED
    if row.meta.HasField("delete_time"):
        return None
    text = f"{operation.target} is kept: its removal was called off"
    return Verdict(Operation.STATE_CANCELLED, reason_pb2.REASON_CANCELLED, text)


def _is_same(operation: Operation, row: Network) -> bool:
    made, asked = row.meta.create_time, operation.meta.create_time
    return made.ToNanoseconds() <= asked.ToNanoseconds()

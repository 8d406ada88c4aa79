"""Any method asked by its descriptor, over the session's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pvc_client import Pending

R = TypeVar("R")
TRIES = 5


def ask(session: Any, method: Any, request: Any, timeout_s: float = 0) -> Any:
    """The answer of a method that gives one. Raises PvcError."""
    from pvc_client.contract import read_method

    return session.cluster.transport.unary(read_method(method), request, timeout_s)


def follow(session: Any, method: Any, request: Any, timeout_s: float | None = None) -> Any:
    """The answers of a method that streams them, as they come. Raises PvcError."""
    from pvc_client.contract import read_method

    return session.cluster.transport.stream(read_method(method), request, timeout_s)


def get(session: Any, kind: Any, name: str) -> Any:
    """One thing as it is. Raises NotFound."""
    from shell.contract.methods import message_class

    return ask(session, kind.get, message_class(kind.get.input_type)(name=name))


def begin(session: Any, method: str, request: Any) -> Pending[Any]:
    """A method that answers with an operation: "StorageService/ImportVolume". Raises PvcError."""
    from google.protobuf.message import Message

    from pvc_client import Pending
    from shell.contract.methods import methods

    answer = ask(session, methods()[method], request)
    return Pending(session.cluster.transport, answer, Message)


def amended(change: Callable[[], R]) -> R:
    """What comes out of a change that reads, changes and sends: begun anew when somebody wrote in
    between. Raises PvcError."""
    from pvc_client.errors import EtagMismatch

    for _ in range(TRIES - 1):
        try:
            return change()
        except EtagMismatch:
            continue
    return change()

"""Any method asked by its descriptor, over the session's connection."""

from __future__ import annotations

from typing import Any

from shell.contract.methods import callable_of, message_class


def ask(session: Any, method: Any, request: Any, timeout_s: float = 0) -> Any:
    """The answer of a method that gives one. Raises PvcError."""
    transport = session.cluster.transport
    kind = message_class(method.output_type)
    return transport.unary(callable_of(transport.channel, method), request, kind, timeout_s)


def follow(session: Any, method: Any, request: Any, timeout_s: float | None = None) -> Any:
    """The answers of a method that streams them, as they come. Raises PvcError."""
    transport = session.cluster.transport
    kind = message_class(method.output_type)
    return transport.stream(callable_of(transport.channel, method), request, kind, timeout_s)


def get(session: Any, kind: Any, name: str) -> Any:
    """One thing as it is. Raises NotFound."""
    return ask(session, kind.get, message_class(kind.get.input_type)(name=name))

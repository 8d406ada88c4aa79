"""Who is calling, and may they? Pure: the tokens, the time and the method come in, a caller or a
refusal comes out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import options_pb2, reason_pb2
from pvc.gateway.v1 import token_pb2
from services.gateway.methods import Method
from services.mesh.errors import PvcError

SCHEME = "bearer "
SEPARATOR = "~"
"""Between a token's id and the rest of its secret: in no id, and allowed in a bearer token."""
SECRET_CHARACTERS_MAX = 256

FindToken = Callable[[str], token_pb2.Token | None]
"""The token of that name ("tokens/ann"), or None."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    name: str
    """"token ann", "local root"."""
    role: options_pb2.Role.ValueType
    token: str = ""
    """Its token: "tokens/ann". Empty without one."""
    ends: float | None = None
    """When the token expires, in seconds of the time of day; None for never."""


LOCAL_ROOT = Caller("local root", options_pb2.ROLE_ADMIN)
"""Whoever may open the root-only socket."""
BEARER = Caller("bearer of a secret", options_pb2.ROLE_VIEWER)
"""Whoever calls what needs no credentials: the service looks at the secret in the request."""


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret. Secrets are long and random, so a plain hash cannot be guessed."""
    return hashlib.sha256(secret.encode()).digest()


def make_secret(token_id: str, entropy: str) -> str:
    """The secret of a token."""
    assert SEPARATOR not in token_id
    return f"{token_id}{SEPARATOR}{entropy}"


def authenticate(authorization: str, find: FindToken, now: Timestamp) -> Caller:
    """The caller that an authorization header stands for. Raises UNAUTHENTICATED.

    A wrong secret, an unknown token and one that was revoked get the same answer.
    """
    if not authorization:
        raise _unauthenticated(
            "this call carries no token; send 'authorization: Bearer SECRET' (pvc token create)"
        )
    if not authorization.lower().startswith(SCHEME):
        raise _unauthenticated("the authorization header must read 'Bearer SECRET'")
    secret = authorization[len(SCHEME) :].strip()
    if len(secret) > SECRET_CHARACTERS_MAX or not secret.isascii():
        raise _unauthenticated("the token is not valid")
    token_id, separator, _ = secret.partition(SEPARATOR)
    token = find(f"tokens/{token_id}") if separator else None
    expected = token.secret_hash if token is not None else bytes(32)
    if not hmac.compare_digest(secret_hash(secret), expected) or token is None:
        raise _unauthenticated("the token is not valid")
    if expired(token, now):
        raise _unauthenticated(f"the token {token_id} has expired; ask an admin for another one")
    ends = token.expire_time.ToNanoseconds() / 1e9 if token.HasField("expire_time") else None
    return Caller(f"token {token_id}", token.role, token.name, ends)


def expired(token: token_pb2.Token, now: Timestamp) -> bool:
    """Whether the token is no longer good."""
    if not token.HasField("expire_time"):
        return False
    end = token.expire_time
    return (end.seconds, end.nanos) <= (now.seconds, now.nanos)


def authorize(caller: Caller, method: Method) -> None:
    """Raises PERMISSION_DENIED unless the caller's role is enough. Internal methods never are."""
    if method.internal or method.role == options_pb2.ROLE_UNSPECIFIED:
        raise PvcError(
            reason_pb2.REASON_PERMISSION_DENIED,
            f"{method.short} is called by PVC's own services only",
        )
    if caller.role < method.role:
        needed, there = role_name(method.role), role_name(caller.role)
        raise PvcError(
            reason_pb2.REASON_PERMISSION_DENIED,
            f"{method.short} needs the role {needed}, and {caller.name} is {there}; "
            "use the token of somebody who may",
        )


def role_name(role: options_pb2.Role.ValueType) -> str:
    """As people write it: "viewer"."""
    if role not in options_pb2.Role.values():
        return f"role {role}"
    return options_pb2.Role.Name(role).removeprefix("ROLE_").lower()


def _unauthenticated(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_UNAUTHENTICATED, message)

"""Whose certificate still counts: a certificate that the cluster's authority signed is good for a
year, but its node may have been removed since. Reads the mirror alone, and decides nothing else.

What the mirror says counts, however old it is: a process that is cut off from the state goes on
with the members that it knows. Before it has read the state it takes no calls at all; and as long
as the state has no node yet, none can have been removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.mesh.desk import Context
from services.mesh.errors import PvcError
from services.mesh.identity import SKEW, common_name
from services.state.store import Snapshot, Store

Node = cluster_pb2.Node
KNOWN_MAX = 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """The node that a certificate stands for: "n1", and when it was issued, by the clock of who
    issued it."""

    node: str
    issued: datetime


def peer_of(context: Context) -> Peer | None:
    """Who calls, by certificate; None for a program of this machine, on a socket of root's."""
    for certificate in context.auth_context().get("x509_pem_cert", ()):
        return _shown(certificate)
    return None


@lru_cache(KNOWN_MAX)
def _shown(certificate_pem: bytes) -> Peer:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    return Peer(common_name(certificate), certificate.not_valid_before_utc + SKEW)


def refusal(snapshot: Snapshot, peer: Peer) -> PvcError | None:
    """Why the caller is turned away; None for a member."""
    node = snapshot.find(Node, f"nodes/{peer.node}")
    if node is None:
        return _stranger(peer) if any(snapshot.rows(Node)) else None
    spec = node.spec
    if not spec.HasField("certificates_since"):
        return None
    if peer.issued + SKEW < spec.certificates_since.ToDatetime(UTC):
        return PvcError(
            reason_pb2.REASON_PERMISSION_DENIED,
            f"this certificate is of an earlier node {peer.node}, which was removed from the "
            "cluster; the machine that is to be it now gets its own with: pvc cluster join",
        )
    return None


def _stranger(peer: Peer) -> PvcError:
    return PvcError(
        reason_pb2.REASON_PERMISSION_DENIED,
        f"nodes/{peer.node} is no member of this cluster: it was removed, and its certificate is "
        f"of no use any more; to let the machine in again: pvc node add {peer.node} ADDRESS",
    )


class Members:
    """Who may call, by the state as this process knows it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def refusal(self, peer: Peer) -> PvcError | None:
        """See refusal."""
        return refusal(self._store.snapshot(), peer)

    def on_change(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls it when some node's row changed, in any thread, until what is returned is
        called."""
        seen = self._store.snapshot().tables.get("nodes")

        def look() -> None:
            nonlocal seen
            before, seen = seen, self._store.snapshot().tables.get("nodes")
            if seen is not before:
                changed()

        return self._store.on_change(look)

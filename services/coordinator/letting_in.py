"""Letting machines into the cluster: the tokens that AddNode tells, the certificates that JoinNode
and RenewNode give. Holds the authority's key where this node has it; decides nothing about nodes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import reason_pb2
from services.coordinator.settings import Membership
from services.mesh import enrolment
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Snapshot

Node = cluster_pb2.Node
SECRET_IDS = 3
"""Ids that a secret is made of: 80 bits of chance each."""


class LettingIn:
    """What this node can do for machines that join."""

    def __init__(self, membership: Membership, clock: Clock) -> None:
        self._membership = membership
        self._clock = clock

    @property
    def membership(self) -> Membership:
        """What is known of the cluster."""
        return self._membership

    def new_secret(self) -> bytes:
        """A secret that nobody can guess."""
        ids = "".join(self._clock.new_id() for _ in range(SECRET_IDS))
        return hashlib.sha256(ids.encode()).digest()

    def check_can_add(self) -> None:
        """Raises NOT_SUPPORTED where the cluster is this machine alone."""
        if not self._membership.state_hosts:
            raise PvcError(
                reason_pb2.REASON_NOT_SUPPORTED,
                "this cluster keeps its state in a file of this machine, which no other can reach: "
                "begin one with state.driver zookeeper to add nodes",
            )

    def token(self, node: str, doors: list[str], secret: bytes) -> str:
        """What the new machine is told, in one word. Raises INVALID_CONFIG."""
        path = self._membership.tls_dir / "ca.crt"
        authority = x509.load_pem_x509_certificate(_read(path))
        told = api.JoinToken(
            name=node,
            doors=doors,
            authority=authority.public_bytes(serialization.Encoding.DER),
            secret=secret,
            cluster=self._membership.cluster,
        )
        return base64.urlsafe_b64encode(told.SerializeToString()).decode()

    def check_can_sign(self, snapshot: Snapshot) -> None:
        """Raises NOT_SUPPORTED, naming others, where the authority's key is not on this node."""
        if (self._membership.tls_dir / "ca.key").exists():
            return
        names = ", ".join(
            f"{node.name} at {service.address}"
            for node in snapshot.rows(Node)
            if node.spec.coordinator and node.name in snapshot.leases
            for service in node.status.services
            if service.service == "door"
        )
        raise PvcError(
            reason_pb2.REASON_NOT_SUPPORTED,
            "this node has no key of the cluster's authority and cannot issue certificates; ask a "
            f"coordinator ({names or 'none is online'})",
        )

    def let_in(self, node: Node, wanted: enrolment.Wanted, now: Timestamp) -> api.JoinNodeResponse:
        """All that a machine needs to be this node. Raises INVALID_CONFIG."""
        known, renewed = self._membership, self.renewed(node, wanted, now)
        return api.JoinNodeResponse(
            certificate=renewed.certificate,
            authority=renewed.authority,
            authority_key=renewed.authority_key,
            cluster_key=renewed.cluster_key,
            state_hosts=known.state_hosts,
            state_credentials=known.state_credentials,
            state_tls=known.state_tls,
            state_session_timeout_s=known.state_session_timeout_s,
            state_tick_ms=known.state_tick_ms,
            cluster=known.cluster,
            first_port=known.first_port,
        )

    def renewed(
        self, node: Node, wanted: enrolment.Wanted, now: Timestamp
    ) -> api.RenewNodeResponse:
        """A node's certificate; with it, for a coordinator, the keys of the cluster. Raises
        INVALID_CONFIG."""
        folder, name = self._membership.tls_dir, node.name.removeprefix("nodes/")
        addresses = [node.spec.address] if node.spec.address else []
        answer = api.RenewNodeResponse(
            certificate=enrolment.certificate_for(folder, wanted, name, addresses, now),
            authority=_read(folder / "ca.crt").decode(),
        )
        if node.spec.coordinator:
            answer.authority_key = _read(folder / "ca.key").decode()
            key = folder / enrolment.CLUSTER_KEY
            answer.cluster_key = key.read_bytes() if key.exists() else b""
        return answer


def read_token(text: str) -> api.JoinToken:
    """What a token tells. Raises INVALID_CONTENT."""
    try:
        token = api.JoinToken.FromString(base64.urlsafe_b64decode(text.strip().encode()))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise _no_token() from error
    if not (token.name.startswith("nodes/") and token.doors and token.authority and token.secret):
        raise _no_token()
    return token


def secret_hash(secret: bytes) -> bytes:
    """What is kept of a secret, which is long and random."""
    return hashlib.sha256(secret).digest()


def _no_token() -> PvcError:
    return PvcError(
        reason_pb2.REASON_INVALID_CONTENT,
        "that is no token of 'pvc node add', or not all of it: copy the whole line",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONFIG, f"cannot read {path}: {error.strerror}"
        ) from error

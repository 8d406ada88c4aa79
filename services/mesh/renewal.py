"""Keeps a node's certificate young, in its files and in the calls to others, and has what a
coordinator needs come to a node that was made one. Decides nothing about who may have what."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from services.mesh import enrolment, identity
from services.mesh.channel import Peers
from services.mesh.clock import Clock
from services.mesh.config import Config
from services.mesh.errors import PvcError
from services.mesh.identity import Files, renew
from services.state.store import Store

LOOK_S = 3600.0
"""How often a process that runs for months looks at its certificate's age."""

log = logging.getLogger("pvc.identity")


class Renewal:
    """`step` is called now and then, and when rows of nodes changed. The server reads the files by
    itself; another process of the node may be the one that renews them."""

    def __init__(self, config: Config, store: Store, clock: Clock, peers: Peers) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._peers = peers
        self._files = Files(config.tls_dir)
        self._shown = self._read()
        self._looked = clock.monotonic()
        self._due = True

    def step(self) -> None:
        """Looks whether anything is missing; raises PvcError where it cannot be had now."""
        now = self._clock.monotonic()
        self._due |= now - self._looked >= LOOK_S
        if self._due:
            renewed(self._config, self._clock)
        if not (self._files.folder / "ca.key").exists() and (self._due or self._is_promoted()):
            self._see_to()
        self._due, self._looked = False, now if self._due else self._looked
        self._show()

    def _row(self) -> cluster_pb2.Node | None:
        return self._store.snapshot().find(cluster_pb2.Node, self._config.node_name)

    def _is_promoted(self) -> bool:
        row = self._row()
        return row is not None and row.spec.coordinator and bool(self._config.mesh.listen)

    def _see_to(self) -> None:
        """Asks those that have the authority's key, if this node needs anything of them."""
        row, pair = self._row(), self._files.pair("node")
        if row is None or not self._config.mesh.listen:
            return
        name, names = identity.names_of(pair.certificate)
        moved = bool(row.spec.address) and row.spec.address not in names
        old = identity.wants_renewal(pair.certificate, identity.moment_of(self._clock.now()))
        if not (moved or old or row.spec.coordinator):
            return
        answer = self._asked(enrolment.request_for(pair.key, name))
        enrolment.keep(
            self._files.folder,
            pair.key,
            answer.certificate,
            answer.authority,
            authority_key=answer.authority_key,
            cluster_key=answer.cluster_key,
        )
        what = "the keys of a coordinator" if answer.authority_key else "a new certificate"
        log.info("node %s was given %s", self._config.node.name, what)

    def _asked(self, request: str) -> api.RenewNodeResponse:
        said = []
        for node in self._coordinators():
            stub: Any = api_grpc.NodeServiceStub(self._peers.blocking("coordinator", node))
            try:
                asked = api.RenewNodeRequest(certificate_request=request)
                answer: api.RenewNodeResponse = stub.RenewNode(asked)
                return answer
            except PvcError as error:
                said.append(f"{node}: {error.message}")
        raise PvcError(
            reason_pb2.REASON_UNREACHABLE,
            f"no coordinator could renew the certificate; {'; '.join(said) or 'none works'}",
        )

    def _coordinators(self) -> Iterator[str]:
        snapshot = self._store.snapshot()
        for node in snapshot.rows(cluster_pb2.Node):
            other = node.name != self._config.node_name
            if other and node.spec.coordinator and node.name in snapshot.leases:
                yield node.name

    def _show(self) -> None:
        """Has calls to others show what is there by now."""
        there = self._read()
        if there != self._shown and self._config.mesh.listen:
            self._peers.renew(self._files.channel_credentials(self._clock.now()))
        self._shown = there

    def _read(self) -> bytes:
        return (self._files.folder / "node.crt").read_bytes()


def renewed(config: Config, clock: Clock) -> None:
    """Renews the certificate where this node can do that by itself, and must. Raises
    INVALID_CONFIG."""
    if renew(config.tls_dir, clock.now()):
        log.info("renewed the certificate of node %s", config.node.name)

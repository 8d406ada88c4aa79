"""Remembers when and from where tokens are used, and tells the state of it every few minutes at
most: nobody waits for that, and what is told already is not told again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

from pvc.gateway.v1.token_pb2 import LastUse, Token, TokenUse
from services.gateway.access import Caller
from services.gateway.rates import host_of
from services.gateway.token_view import token_of, use_of
from services.mesh.clock import Clock
from services.state.store import ANY_VERSION, Change, Delete, Put, Snapshot, Store

PERIOD_S = 10.0
"""A token that was not used for long is told of after so long."""
EACH_S = 300.0
"""So often at most a gateway tells of one token."""
AT_ONCE = 200
"""Rows of one commit."""


class Uses:
    """Thread-safe."""

    def __init__(self, store: Store, clock: Clock, node: str) -> None:
        """node: of this gateway, "nodes/n1"."""
        self._store, self._clock, self._node = store, clock, node
        self._lock = threading.Lock()
        self._new: dict[str, LastUse] = {}
        """Uses that the state does not know of: token → the last one."""
        self._told_s: dict[str, float] = {}
        """Token → when the state was last told of it."""

    def note(self, caller: Caller, peer: str) -> None:
        """Somebody came in. peer: as gRPC or HTTP tell it."""
        if not caller.token:
            return
        use = LastUse(time=self._clock.now(), address=host_of(peer), node=self._node)
        with self._lock:
            self._new[caller.token] = use

    def step(self) -> None:
        """Tells the state what is due. Raises PvcError while it cannot be written."""
        self._tell(EACH_S)

    def close(self) -> None:
        """Tells what there is, so that it is not lost with the process."""
        self._tell(0.0)

    def _tell(self, each_s: float) -> None:
        snapshot, now_s = self._store.snapshot(), self._clock.monotonic()
        with self._lock:
            due = {
                token: use
                for token, use in self._new.items()
                if now_s - self._told_s.get(token, -each_s) >= each_s
            }
        changes = iter([*_puts(snapshot, due), *_orphans(snapshot)])
        while some := list(islice(changes, AT_ONCE)):
            self._store.commit(some)
        with self._lock:
            self._told_s.update(dict.fromkeys(due, now_s))
            self._new = {t: use for t, use in self._new.items() if use is not due.get(t)}
            self._told_s = {
                token: at for token, at in self._told_s.items() if snapshot.find(Token, token)
            }


def _puts(snapshot: Snapshot, due: dict[str, LastUse]) -> Iterator[Change]:
    for name, use in due.items():
        token = snapshot.find(Token, name)
        if token is not None:  # else it was revoked meanwhile
            row = TokenUse(name=use_of(name), token_uid=token.meta.uid, last_used=use)
            row.meta.etag = ANY_VERSION
            yield Put(row)


def _orphans(snapshot: Snapshot) -> Iterator[Change]:
    """Uses that were told of while their token was revoked."""
    for row in snapshot.rows(TokenUse):
        if snapshot.find(Token, token_of(row.name)) is None:
            yield Delete(row.name, ANY_VERSION)

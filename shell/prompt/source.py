"""What the background of a prompt asks the cluster, over a connection of its own: whatever commands
do with theirs, close it or go to another cluster, this one follows the cluster that it began with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from shell.live import Link
from shell.prompt.kinds import Kind
from shell.session import Session

if TYPE_CHECKING:
    from pvc_client import Cluster

LISTED_MAX = 1000


class ClusterSource:
    """The cluster that a session talks to. Connects when first asked, in the thread that asks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._made: Cluster | None = None
        self._closed = False

    @property
    def _cluster(self) -> Cluster:
        with self._lock:
            if self._closed:
                raise RuntimeError("nobody follows the cluster any more")
            if self._made is None:
                self._made = self._session.connected()
            return self._made

    def close(self) -> None:
        """Ends the connection; nothing can be asked any more."""
        with self._lock:
            self._closed, made = True, self._made
        if made is not None:
            made.close()

    def watch(self, kind: Kind) -> Any:
        """See Source."""
        return self._collection(kind).watch(read_mask=kind.mask)

    def list(self, kind: Kind) -> Iterable[Any]:
        """See Source."""
        pages = self._collection(kind).list(
            page_size=LISTED_MAX, read_mask=kind.mask, parent=kind.parent
        )
        return [row for row, _ in zip(pages, range(LISTED_MAX), strict=False)]

    def _collection(self, kind: Kind) -> Any:
        return attrgetter(kind.collection)(self._cluster)

    def status(self) -> Any:
        """The cluster as a whole. Raises PvcError."""
        return self._cluster.status()

    def tell_links(self, tell: Callable[[Link], None]) -> None:
        """Tells whenever the connection is made, or lost."""
        import grpc

        states = {
            grpc.ChannelConnectivity.READY: Link.UP,
            grpc.ChannelConnectivity.TRANSIENT_FAILURE: Link.LOST,
        }

        transport = self._cluster.transport
        channel = transport.channel

        def changed(state: Any) -> None:
            link = states.get(state)
            if link is not None and transport.channel is channel:  # calls may go elsewhere by now
                tell(link)

        channel.subscribe(changed, try_to_connect=True)

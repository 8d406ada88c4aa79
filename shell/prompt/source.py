"""What the background of a prompt asks the cluster, over the connection of the prompt itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from shell.live import Link
from shell.prompt.kinds import Kind
from shell.session import Session

LISTED_MAX = 1000


class ClusterSource:
    """The cluster that a session talks to. Connects when first asked, in the thread that asks."""

    def __init__(self, session: Session) -> None:
        self._session = session

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
        return attrgetter(kind.collection)(self._session.cluster)

    def status(self) -> Any:
        """The cluster as a whole. Raises PvcError."""
        return self._session.cluster.status()

    def tell_links(self, tell: Callable[[Link], None]) -> None:
        """Tells whenever the connection is made, or lost."""
        import grpc

        states = {
            grpc.ChannelConnectivity.READY: Link.UP,
            grpc.ChannelConnectivity.TRANSIENT_FAILURE: Link.LOST,
        }

        def changed(state: Any) -> None:
            if (link := states.get(state)) is not None:
                tell(link)

        self._session.cluster.transport.channel.subscribe(changed, try_to_connect=True)

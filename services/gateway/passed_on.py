"""The newest state that callers of this gateway have been told of: what they ask next is not to be
answered from an older one.

A program that is started anew for each command does not remember what the last one saw, and the
services' mirrors hear of a change one after the other.
"""

from __future__ import annotations

from typing import Any

from services.gateway.visit import Pair, Visit
from services.mesh.calls import Revision
from services.mesh.desk import REVISION, WISHED_REVISION
from services.state.store import Store


class PassedOn:
    """See the module."""

    def __init__(self, store: Store) -> None:
        """store: the gateway's own, by which tokens and routes are known."""
        self._revision = Revision(lambda: store.snapshot().revision)

    def wish(self) -> Pair:
        """What goes with a request: a state at least so new, if it can be had soon."""
        return (WISHED_REVISION, str(self._revision.newest))

    def ended(self, visit: Visit) -> None:
        """Takes in what a call told, when it is over."""
        self._revision.saw((*visit.trailing, *_shown_by(visit)))


def _shown_by(visit: Visit) -> tuple[Pair, ...]:
    """The revision that a watch had come to; a reader who leaves gets no trailing metadata."""
    method = visit.method
    if not visit.newest or "revision" not in method.response.DESCRIPTOR.fields_by_name:
        return ()
    answer: Any = method.response.FromString(visit.newest)
    return ((REVISION, str(answer.revision)),)

"""The names of what is in the cluster, kept fresh in the background so that nobody waits for
them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

FRESH_S = 3.0
"""Names older than this are asked for again when somebody looks."""


class LiveNames:
    """Names by collection. `find` answers at once with what was last heard of."""

    def __init__(self, fetch: Callable[[str], Sequence[str]]) -> None:
        """fetch: asks the cluster for the names in a collection; may take its time and fail."""
        self._fetch = fetch
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, ...]] = {}
        self._heard: dict[str, float] = {}
        self._asking: set[str] = set()

    def find(self, collection: str) -> Sequence[str]:
        """The names last heard of, none at first; asks anew in the background if they are old."""
        with self._lock:
            old = time.monotonic() - self._heard.get(collection, -FRESH_S) >= FRESH_S
            if old and collection not in self._asking:
                self._asking.add(collection)
                threading.Thread(target=self._refresh, args=(collection,), daemon=True).start()
            return self._kept.get(collection, ())

    def _refresh(self, collection: str) -> None:
        found: tuple[str, ...] | None = None
        try:
            found = tuple(self._fetch(collection))
        except Exception:  # noqa: BLE001 - a cluster that does not answer has no names to complete
            found = None
        with self._lock:
            if found is not None:
                self._kept[collection] = found
            self._heard[collection] = time.monotonic()
            self._asking.discard(collection)

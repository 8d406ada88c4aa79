"""Keeps built images, so that the same recipe is not built twice within some days.

An image is `HASH.qcow2` beside `HASH.json`, which is written last and says what the file must be.
What is not as it says is built anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.mesh.clock import Clock

KEPT = 3
"""Images that are kept, the ones used last."""
FRESH_S = 7 * 24 * 3600
"""An older image lacks the updates that Debian has brought out since; it is built anew."""
PIECE_BYTES = 1 << 20
LOCK_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A built image. It stays while it is held, whatever is built meanwhile."""

    path: Path
    size: int
    was_there: bool
    """It was not built just now."""


class ImageCache:
    """See the module. All methods may be called from any thread."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._building: dict[str, threading.Lock] = {}
        self._builds = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def image(
        self, key: str, build: Callable[[Path], object], check: Callable[[], None]
    ) -> Iterator[CachedImage]:
        """The image of a recipe hash, for as long as it is needed.

        build: makes the file at a path, whole or not at all; check: called while another job
        builds; may raise to stop waiting.
        """
        with self._hold(key):
            with _locked(self._of_key(key), check):
                found = self._found(key) or self._built(key, build, check)
            self._prune()
            yield found

    def _built(
        self, key: str, build: Callable[[Path], object], check: Callable[[], None]
    ) -> CachedImage:
        # A build takes all that a machine has: two at a time are no faster.
        with _locked(self._builds, check):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            build(self._path(key))
        return self._keep(key)

    def _found(self, key: str) -> CachedImage | None:
        """The image, if its file is what was written and young enough."""
        path = self._path(key)
        try:
            card = json.loads(self._card(key).read_text())
            size, sha256, built = int(card["size"]), str(card["sha256"]), int(card["built_s"])
            if path.stat().st_size != size or self._clock.now().seconds - built > FRESH_S:
                return None
            if _sha256(path) != sha256:
                return None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        os.utime(self._card(key))
        return CachedImage(path, size, was_there=True)

    def _keep(self, key: str) -> CachedImage:
        path = self._path(key)
        size = path.stat().st_size
        card = {"size": size, "sha256": _sha256(path), "built_s": self._clock.now().seconds}
        new = self._card(key).with_suffix(".new")
        new.write_text(json.dumps(card))
        new.replace(self._card(key))
        return CachedImage(path, size, was_there=False)

    def _prune(self) -> None:
        """Removes all but the images used last, and those that are held."""
        with self._lock:
            cards = sorted(self.folder.glob("*.json"), key=_used_at, reverse=True)
            kept = {card.stem for card in cards[:KEPT]} | {k for k, n in self._held.items() if n}
            for path in self.folder.iterdir():
                if path.suffix in (".json", ".qcow2", ".new") and path.stem not in kept:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _hold(self, key: str) -> Iterator[None]:
        with self._lock:
            self._held[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[key] -= 1

    def _of_key(self, key: str) -> threading.Lock:
        with self._lock:
            return self._building.setdefault(key, threading.Lock())

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.qcow2"

    def _card(self, key: str) -> Path:
        return self.folder / f"{key}.json"


@contextmanager
def _locked(lock: threading.Lock, check: Callable[[], None]) -> Iterator[None]:
    """Holds the lock; `check` may raise to stop waiting for it."""
    while not lock.acquire(timeout=LOCK_LOOK_S):
        check()
    try:
        yield
    finally:
        lock.release()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _used_at(card: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return card.stat().st_mtime
    return 0.0

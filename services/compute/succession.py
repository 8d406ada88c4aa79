"""Which session the agent of before had, known for certain to have ended: its lease passes on to
the next process at once, so that a node whose agent died is not taken for dead.

Keeps a lock and a note in a folder that the machine empties when it starts. The kernel lets go of
the lock when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import IO

log = logging.getLogger("pvc.succession")


class Succession:
    """One process's place in the line of agents of this node."""

    def __init__(self, folder: Path) -> None:
        self._note = folder / "agent.session"
        self._lock = folder / "agent.lock"
        self._held: IO[str] | None = None
        self._former = ""
        self._noted = ""

    def former(self) -> str:
        """The session of the process before, "" while there is none, or it may still live."""
        if self._held is None and not self._locked():
            return ""
        return self._former

    def note(self, session: str) -> None:
        """This process has this session; for the next one. A note of a session that holds nothing
        does no harm."""
        if self._held is None or session in ("", self._noted):
            return
        fresh = self._note.with_suffix(".new")
        fresh.write_text(session)
        fresh.replace(self._note)
        self._noted = session

    def _locked(self) -> bool:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        file = self._lock.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            log.warning("another agent of this node runs on this machine")
            return False
        self._held = file
        self._former = self._note.read_text().strip() if self._note.exists() else ""
        return True

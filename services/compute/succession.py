"""Which session the agent of before had, known for certain to have ended: its lease passes on to
the next process at once, so that a node whose agent died, or that started anew, is not taken for
dead.

The note of the session is this machine's own and outlives a restart. The lock is in a folder that
the machine empties when it starts, and the kernel lets go of it when its holder ends, however it
ends: who has it knows that no agent of before lives.
"""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import IO

from services.mesh.identity import write_private

log = logging.getLogger("pvc.compute")


class Succession:
    """One process's place in the line of agents of this node."""

    def __init__(self, kept: Path, run: Path) -> None:
        """kept: a folder that outlives a restart of the machine. run: one that does not."""
        self._note = kept / "agent.session"
        self._lock = run / "agent.lock"
        self._held: IO[str] | None = None
        self._former = ""
        self._noted = ""
        self._complained = False

    def former(self) -> str:
        """The session of the process before, "" while there is none, or it may still live."""
        if self._held is None and not self._locked():
            return ""
        return self._former

    def note(self, session: str) -> None:
        """This process has this session; for the next one. A note of a session that holds nothing
        does no harm. Where there is no room for it the next one waits for the session's end."""
        if self._held is None or session in ("", self._noted):
            return
        try:
            write_private(self._note, f"{session}\n".encode())
        except OSError as error:
            if not self._complained:
                log.warning("an agent after this one will not come at once: %s", error)
            self._complained = True
            return
        self._noted, self._complained = session, False

    def _locked(self) -> bool:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        file = self._lock.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._held = file
        self._former = self._note.read_text().strip() if self._note.exists() else ""
        return True

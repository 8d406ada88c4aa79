"""Follows the cluster in the background for what is always on the screen, and says so only when
something of it has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from shell.columns import enum_word, ids, last
from shell.live import REFUSED_S, Link, Live, is_lost, short
from shell.prompt.source import ClusterSource
from shell.prompt.status import NODES_UP, VMS_UP, Doing, Picture
from shell.session import Session

DRAWN_S = 0.1
"""The screen changes no more often than this."""
ASKED_S, ASKED_MAX_S = 0.5, 10.0
"""Between questions about the cluster as a whole: after a change, and without one."""
FOLLOWED = ("vms", "nodes", "operations")
GOING = ("pending", "running")


class Pulse:
    """The background of a prompt: from `start` to `close`."""

    def __init__(self, session: Session, ended: Callable[[Any], None] | None = None) -> None:
        """ended: is told of every operation that has ended, also of those from before."""
        self._source = ClusterSource(session)
        self._ended = ended
        self._dirty, self._closed = threading.Event(), threading.Event()
        self._doing: dict[str, Doing] = {}
        self._status: Any = None
        self._refused = ""
        """What the cluster said when it was asked how it is, and did not say it."""
        self._redraw: Callable[[], None] = lambda: None
        self._arrived: Callable[[], None] = lambda: None
        self.live = Live(self._source, self._heard)
        self.picture = Picture(address=session.address)
        self._asking = threading.Event()
        """Somebody should ask about the cluster as a whole."""

    def start(self, redraw: Callable[[], None], arrived: Callable[[], None]) -> None:
        """Begins to follow. redraw: is called, from another thread, when the picture changed;
        arrived: when all of a collection is known."""
        self._redraw, self._arrived = redraw, arrived
        for name, work in (("pulse", self._run), ("pulse-ask", self._ask_on)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def close(self) -> None:
        """Ends all that goes on in the background."""
        self._closed.set()
        self._dirty.set()
        self._asking.set()
        self.live.close()
        threading.Thread(target=self._source.close, name="pulse-close", daemon=True).start()

    def _run(self) -> None:
        try:
            self._source.tell_links(self._linked)
        except Exception as error:  # noqa: BLE001 - shown in the status line; commands say it too
            self.live.link, self.live.refused = Link.REFUSED, str(error)
            self._draw()
            return
        for collection in FOLLOWED:
            self.live.rows(collection)
        preload()
        while not self._closed.is_set():
            self._dirty.wait()
            self._dirty.clear()
            self._draw()
            self._closed.wait(DRAWN_S)

    def _linked(self, link: Link) -> None:
        self.live.link = link
        self._asking.set()
        self._dirty.set()

    def _heard(self, collection: str, row: Any) -> None:
        """Of a change of a collection; in a thread of the watch."""
        if row is None:
            self._prune()
            self._arrived()
        else:
            self._asking.set()
            if collection == "operations":
                self._note(row)
        self._dirty.set()

    def _prune(self) -> None:
        """Forgets operations that went while nobody could tell."""
        rows = self.live.peek("operations")
        gone = [name for name in list(self._doing) if rows is None or not rows.find(short(name))]
        for name in gone:
            self._doing.pop(name, None)

    def _note(self, operation: Any) -> None:
        state = enum_word(operation, "state")
        if state in GOING:
            shown = f"{last(operation.method)} {ids(operation.target)}"
            self._doing[operation.name] = Doing(shown, operation.percent)
            return
        self._doing.pop(operation.name, None)
        if self._ended is not None:
            self._ended(operation)

    def _ask_on(self) -> None:
        """Asks for the cluster as a whole, when something changed or it was long ago."""
        while not self._closed.is_set():
            self._asking.wait(ASKED_MAX_S)
            self._asking.clear()
            pause_s = ASKED_S
            if self.live.link in (Link.UP, Link.LOST) and not self._closed.is_set():
                pause_s = self._ask()
            self._closed.wait(pause_s)

    def _ask(self) -> float:
        """Asks; gives how long nobody should ask again."""
        pause_s = ASKED_S
        try:
            self._status, self._refused = self._source.status(), ""
            self.live.link = Link.UP  # another of the cluster's addresses may have answered
        except Exception as error:  # noqa: BLE001 - shown in the status line; asked again later
            if not is_lost(error):
                self._refused, pause_s = str(error), REFUSED_S
            self._asking.set()
        self._dirty.set()
        return pause_s

    def _draw(self) -> None:
        picture = self._seen()
        if picture != self.picture:
            self.picture = picture
            self._redraw()

    def _seen(self) -> Picture:
        status, live = self._status, self.live
        vms, nodes = live.rows("vms"), live.rows("nodes")
        doing = list(self._doing.values())
        return Picture(
            link=live.link,
            address=self.picture.address,
            name=status.name if status is not None else "",
            health=enum_word(status, "health") if status is not None else "",
            leader=last(status.leader) if status is not None else "",
            nodes_up=sum(nodes.states[state] for state in NODES_UP),
            nodes=len(nodes),
            vms_up=sum(vms.states[state] for state in VMS_UP),
            vms=len(vms),
            newest=doing[-1] if doing else None,
            operations=len(doing),
            faults=tuple(status.faults) if status is not None else (),
            refused=self._refused or live.refused,
        )


def preload() -> None:
    """Loads what the first keystrokes need: commands, the texts of the contract."""
    import click

    from shell.contract.texts import texts
    from shell.main import pvc

    context = click.Context(pvc, resilient_parsing=True)
    for name in pvc.list_commands(context):
        pvc.get_command(context, name)
    texts()

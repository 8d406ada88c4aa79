"""What the clusters of connections say of themselves when they are asked, one or all at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shell.connections import Connection

ASKING_S = 3.0
"""A cluster that takes longer to say how it is does not answer."""
GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """What a cluster said of itself when it was asked."""

    answer: str = ""
    """ "ok", or why there is none; "" when it was not asked."""
    cluster: str = ""
    version: str = ""
    health: str = ""
    caller: str = ""
    role: str = ""


UNASKED = State()


def ask(one: Connection) -> State:
    """What a cluster says of itself. Raises PvcError."""
    from pvc_client import Cluster, PvcError
    from shell.columns import enum_word

    with Cluster(one.address, token=one.token, ca=one.ca or None, timeout_s=ASKING_S) as cluster:
        who = cluster.whoami()
        found = State("ok", who.cluster, who.version, "", who.caller, enum_word(who, "role"))
        try:
            return replace(found, health=enum_word(cluster.status(), "health"))
        except PvcError as error:  # it greeted us: that is more than nothing
            return replace(found, answer=error.message, health="unknown")


def states(found: Sequence[Connection]) -> dict[str, State]:
    """What all of them say, asked at once; whoever has not answered by then has not."""
    said: dict[str, State] = {}

    def note(one: Connection) -> None:
        try:
            said[one.name] = ask(one)
        except Exception as error:  # noqa: BLE001 - of another cluster, and shown as its answer
            said[one.name] = State(str(error) or type(error).__name__)

    threads = [threading.Thread(target=note, args=(one,), daemon=True) for one in found]
    for thread in threads:
        thread.start()
    end = time.monotonic() + ASKING_S + GRACE_S
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    late = State(f"no answer within {ASKING_S + GRACE_S:.0f} s")
    return {one.name: said.get(one.name, late) for one in found}

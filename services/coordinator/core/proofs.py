"""What proves that a node is dead, so that its VMs may be started elsewhere. Pure.

A proof is about one session, that of `decision.lost_session`: a node that came back has another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2

Node = cluster_pb2.Node
Means = cluster_pb2.ProofMeans

WATCHDOG_MARGIN_S = 1.0
CLOCK_DRIFT = 0.02
"""By how much two machines' ideas of a second may differ, far beyond what quartz does."""

OFFS_WANTED = 2
ASKS_MAX = 10
ASK_EVERY_S = 0.5
"""After the power was switched off its controller must say so twice in a row, within ASKS_MAX."""

PAUSE_MAX_S = 15.0


@dataclass(frozen=True, slots=True)
class Holds:
    """It proves the death; text: what was seen."""

    text: str
    was_on: bool = False
    """See FenceProof."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Not yet."""

    why: str


@dataclass(frozen=True, slots=True)
class Impossible:
    """Never, as things are."""

    why: str


Verdict = Holds | Waits | Impossible


def by_watchdog(node: Node, gone_s: float) -> Verdict:
    """Whether the node's watchdog has reset it. gone_s: for at least how long the session that it
    lost is known to have ended, measured on this side.

    Sound because of what the node's agent does (services/compute/core/feeding.py has the
    arithmetic): it arms the watchdog, only then says so in its row under the lease of its session,
    only then counts on it; and it feeds it so that, even if it stands still between any two of its
    instructions, the machine is reset no later than `timeout` after that session ended. The row
    must speak of that very session: nothing is known of the feeding for another. A watchdog that
    its node disarms is taken out of the row first.
    """
    watchdog, lost = node.status.watchdog, node.decision.lost_session
    timeout_s = watchdog.timeout.ToNanoseconds() / 1e9
    if not lost:
        return Waits("it is not known yet which session it lost")
    if not watchdog.armed or timeout_s <= 0:
        return Impossible("it has no watchdog that was armed")
    if watchdog.session != lost:
        return Impossible("its watchdog was not armed for the session that it lost")
    needed_s = timeout_s * (1 + CLOCK_DRIFT) + WATCHDOG_MARGIN_S
    if gone_s < needed_s:
        return Waits(f"waiting until its session has been gone for {needed_s:.1f} s")
    return Holds(
        f"its watchdog {watchdog.device}, fed only while its session lived, resets it within "
        f"{timeout_s:g} s, and the session has been gone for more than {needed_s:.1f} s"
    )


@dataclass(frozen=True, slots=True)
class PowerTry:
    """How far one try to switch a node off has come: first the command, then what is said of it."""

    commanded: bool = False
    offs: int = 0
    """How often in a row its power was said to be off since the command."""
    asks: int = 0

    def after_command(self) -> PowerTry:
        """The controller took it."""
        return replace(self, commanded=True)

    def after_answer(self, on: bool) -> PowerTry | Verdict:
        """The next thing to be done, or what came of it. An answer counts only after the command:
        a controller may say "off" for reasons of its own, but then the command does no harm."""
        assert self.commanded
        offs, asks = 0 if on else self.offs + 1, self.asks + 1
        if offs >= OFFS_WANTED:
            return Holds("its controller switched it off, and says so twice in a row")
        if asks < ASKS_MAX:
            return replace(self, offs=offs, asks=asks)
        return Waits(
            "its controller took the command to switch it off, and still says that it is on "
            f"{ASKS_MAX * ASK_EVERY_S:g} s later"
        )


def settings_of(control: cluster_pb2.PowerControl, sealed: bytes) -> str:
    """A controller's settings in short. sealed: its password, as it is kept."""
    bare = cluster_pb2.PowerControl()
    bare.CopyFrom(control)
    bare.password = ""
    told = bare.SerializeToString(deterministic=True)
    return hashlib.sha256(len(told).to_bytes(4) + told + sealed).hexdigest()[:16]


def power_barred(node: Node, settings: str, twin: str = "") -> Impossible | None:
    """Why the node's controller proves nothing, whatever it says; None when it can.

    A controller is believed only if it said "on" of the node while that worked: one that is
    another machine's, or that says "off" of everything, would prove the death of a living node.
    settings: its present ones; twin: another node with the same controller.
    """
    if not node.spec.HasField("power_control"):
        return Impossible("it has no controller that could switch its power off")
    if twin:
        return Impossible(f"{twin} has the same controller: one of the two is wrong")
    check = node.decision.controller
    if check.settings != settings:
        return Impossible("its controller was not asked by its present settings while it worked")
    if not check.trusted:
        return Impossible(f"its controller is not trusted: {check.why}")
    return None


def same_controller(node: Node, nodes: Sequence[Node]) -> str:
    """Another node with the very same controller, "" when there is none."""
    mine = node.spec.power_control
    for other in nodes:
        theirs = other.spec.power_control
        same = (mine.address, mine.system) == (theirs.address, theirs.system)
        if same and mine.address and other.name != node.name:
            return other.name
    return ""


def pause_after(tries: int) -> float:
    """How long to wait after so many tries that failed."""
    return float(min(PAUSE_MAX_S, 2.0 ** min(tries - 1, 10)))


def attempt(means: Means.ValueType, tries: int, verdict: Verdict) -> cluster_pb2.ProofAttempt:
    """As it is shown."""
    match verdict:
        case Holds(text):
            return cluster_pb2.ProofAttempt(means=means, tries=tries, why=text)
        case Waits(why):
            return cluster_pb2.ProofAttempt(means=means, tries=tries, why=why)
        case Impossible(why):
            return cluster_pb2.ProofAttempt(means=means, tries=tries, why=why, impossible=True)


def proven(
    node: Node, means: Means.ValueType, holds: Holds, given_by: str, now: Timestamp
) -> cluster_pb2.FenceProof:
    """The proof that the node which lost `decision.lost_session` is dead."""
    return cluster_pb2.FenceProof(
        means=means,
        text=holds.text,
        session=node.decision.lost_session,
        time=now,
        given_by=given_by,
        was_on=holds.was_on,
    )

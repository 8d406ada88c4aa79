"""Whether a fenced node is switched on again through its controller, and when: so that it boots and
comes back as any machine that was restarted. Pure; the switch itself is pressed by
services.coordinator.switcher.

It never bears on whether the node is dead: the proof is about the session that it lost, and a
machine that boots anew runs nothing that was not decided for it since (services/compute/fenced.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2
from services.coordinator.core.limits import powers_on
from services.coordinator.core.plan import ERROR, INFO, DecideNode, Step, Unjudged
from services.coordinator.core.proofs import same_controller
from services.coordinator.core.rounds import Round, guarded
from services.coordinator.core.world import FENCED, short
from services.mesh.rows import copied

Node = cluster_pb2.Node
PowerOn = cluster_pb2.PowerOn
Severity: TypeAlias = event_pb2.Event.Severity.ValueType

TRIES_MAX = 10
FIRST_PAUSE_S, PAUSE_MAX_S = 15.0, 3600.0
"""After the first try that failed, and at most; with TRIES_MAX they bridge two hours."""
BOOT_S = 600.0
"""How long a machine that is on has for coming back before it is looked at again."""
FENCES_MAX, FENCES_WITHIN_S = 3, 24 * 3600
"""A node that was fenced so often within that time stays off."""
ASKS_MAX, ASK_EVERY_S = 10, 1.0
"""After the command the controller is asked until it says that the machine is on."""


def judge_power_on(round: Round) -> Iterator[Step | Unjudged]:
    """The next try for each node that is to be switched on, or why there is none."""
    for node in round.world.nodes.values():
        away = node.decision.state == FENCED and node.name not in round.world.present
        if away and node.spec.HasField("power_control"):
            yield from guarded(node, partial(_judged, round, node))


def _judged(round: Round, node: Node) -> Iterator[Step]:
    if node.decision.power_on.ready_request != node.spec.ready_request:
        yield _anew(node)
    elif node.decision.power_on.ended:
        return
    elif why := _first(HOLDS, round, node):
        if why != node.decision.power_on.why:
            yield _told(node, why, INFO)
    elif why := _first(ENDS, round, node):
        yield _told(node, why, ERROR, ended=True)
    elif _is_due(round, node):
        yield _tried(round, node)


def _anew(node: Node) -> DecideNode:
    """Somebody asked for it to be ready: nothing is held against it."""
    after = copied(node)
    after.decision.power_on.CopyFrom(PowerOn(ready_request=node.spec.ready_request))
    del after.decision.fence_times[:]
    return DecideNode(after, "", "it was asked to be ready")


def _told(node: Node, why: str, severity: Severity, ended: bool = False) -> DecideNode:
    after = copied(node)
    after.decision.power_on.why, after.decision.power_on.ended = why, ended
    return DecideNode(after, "stays off", why, severity)


def _tried(round: Round, node: Node) -> DecideNode:
    """The intent: the switch is pressed by whoever leads once this is written."""
    after = copied(node)
    record = after.decision.power_on
    record.tries += 1
    reason = "its VMs are seen to" if record.tries == 1 else "it is not back"
    record.why = f"{reason}; try {record.tries} of {TRIES_MAX}"
    note_gone(after, round.world.gone_s.get(node.name, 0.0))
    return DecideNode(after, "is to be switched on", record.why)


def _is_due(round: Round, node: Node) -> bool:
    """Its VMs are seen to, nothing is under way, and the pause is over."""
    record = node.decision.power_on
    moved = any(vm.name in round.taken for vm in round.residents.get(node.name, ()))
    if moved or record.answered < record.tries:
        return False
    return round.world.gone_s.get(node.name, 0.0) >= due_s(node)


def due_s(node: Node) -> float:
    """For how long its session has to be gone before the next try."""
    record = node.decision.power_on
    if record.tries and record.session != node.status.session:
        return pause_after(record.tries)  # it came and went again: that is counted from anew
    return record.due.ToNanoseconds() / 1e9


def pause_after(tries: int) -> float:
    """How long to wait after so many tries that failed."""
    return float(min(PAUSE_MAX_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20)))


def note_gone(after: Node, gone_s: float) -> None:
    """Keeps how long its session is gone at least: who leads next goes on from there."""
    before_s = after.decision.lost_for.ToNanoseconds() / 1e9
    if after.status.session == after.decision.lost_session and gone_s > before_s:
        after.decision.lost_for.FromMilliseconds(int(gone_s * 1000))


# --- What keeps it from being switched on. Each gives one sentence, "" where it does not.

Hold = Callable[[Round, Node], str]


def _first(rules: tuple[Hold, ...], round: Round, node: Node) -> str:
    return next(filter(None, (rule(round, node) for rule in rules)), "")


def switched_off(round: Round, node: Node) -> str:
    """The administrator wants machines to stay as they are."""
    return "" if powers_on(round.world.spec) else "power_on_after_fence is off"


def disarmed(round: Round, node: Node) -> str:
    """Nothing happens by itself."""
    return "high availability is disarmed" if round.world.spec.ha_disarmed else ""


def not_wanted(round: Round, node: Node) -> str:
    """The node was being emptied, or is to go."""
    if node.spec.leaving:
        return "it is being removed from the cluster"
    return "it was to be drained: whoever works on it switches it on" if node.spec.drained else ""


def somebody_was_there(round: Round, node: Node) -> str:
    """People know better what they do there."""
    proof = node.decision.proof
    if proof.means == cluster_pb2.PROOF_MEANS_ADMIN:
        return "an administrator confirmed its death: whoever was there switches it on"
    cut = proof.means == cluster_pb2.PROOF_MEANS_POWER and proof.was_on
    if node.status.restarting and not cut:
        return "its agent had ended in order: it was switched off on purpose"
    return ""


def out_of_hand(round: Round, node: Node) -> str:
    """Its controller is not known to be its own."""
    if twin := same_controller(node, list(round.world.nodes.values())):
        return f"{twin} has the same controller: one of the two is wrong"
    check = node.decision.controller
    return "" if check.trusted else f"its controller is not trusted: {check.why or 'not asked yet'}"


def in_maintenance(round: Round, node: Node) -> str:
    """Somebody works there, and may go on after the cluster is out of maintenance."""
    if not round.world.spec.maintenance:
        return ""
    return f"the cluster was in maintenance; when nobody works on it: {_ready(node)}"


def dies_again(round: Round, node: Node) -> str:
    """Something is wrong with it that another start does not mend."""
    times = node.decision.fence_times
    if len(times) < FENCES_MAX or round.now.seconds - times[0].seconds >= FENCES_WITHIN_S:
        return ""
    hours = FENCES_WITHIN_S // 3600
    return (
        f"it was fenced {FENCES_MAX} times within {hours} hours: look what is wrong with it, then "
        f"switch it on again with: {_ready(node)}"
    )


def tried_enough(round: Round, node: Node) -> str:
    """It does not help."""
    record = node.decision.power_on
    if record.tries < TRIES_MAX or record.answered < record.tries:
        return ""
    if round.world.gone_s.get(node.name, 0.0) < due_s(node):
        return ""
    return f"{TRIES_MAX} tries did not bring it back (the last: {record.why}): {_ready(node)}"


HOLDS: tuple[Hold, ...] = (switched_off, disarmed, not_wanted, somebody_was_there, out_of_hand)
"""As long as they last."""
ENDS: tuple[Hold, ...] = (in_maintenance, dies_again, tried_enough)
"""Until somebody asks for it to be ready."""


def _ready(node: Node) -> str:
    return f"pvc node ready {short(node.name)}"


def fenced_at(after: Node, now: Timestamp) -> None:
    """It was fenced: begins a new record, for a copy of its row. What was before it was asked to be
    ready is not held against it."""
    decision, asked = after.decision, after.spec.ready_request
    before = decision.fence_times if decision.power_on.ready_request == asked else ()
    times = [*before, now][-FENCES_MAX:]
    del decision.fence_times[:]
    decision.fence_times.extend(times)
    decision.power_on.CopyFrom(PowerOn(ready_request=asked))


def came_back(after: Node) -> None:
    """Nothing is left to be done, for a copy of its row."""
    asked = after.decision.power_on.ready_request
    after.decision.power_on.CopyFrom(PowerOn(ready_request=asked))


# --- One try.


@dataclass(frozen=True, slots=True)
class Done:
    """Something came of it. on: the machine has power."""

    why: str
    on: bool


@dataclass(frozen=True, slots=True)
class SwitchTry:
    """How far a try has come: first its controller is asked, for most that were reset come back by
    themselves; only one that is off is switched on."""

    seen_off: bool = False
    commanded: bool = False
    asks: int = 0

    def after_command(self) -> SwitchTry:
        """The controller took it."""
        return replace(self, commanded=True)

    def after_answer(self, on: bool) -> SwitchTry | Done:
        """The next thing to be done, or what came of it."""
        if not self.commanded:
            if on:
                return Done("its controller says that it is on: it is waited for", on=True)
            return replace(self, seen_off=True)
        if on:
            return Done("its controller switched it on, and says so: it is waited for", on=True)
        if self.asks + 1 < ASKS_MAX:
            return replace(self, asks=self.asks + 1)
        return Done(
            "its controller took the command to switch it on, and still says that it is off "
            f"{(ASKS_MAX - 1) * ASK_EVERY_S:g} s later",
            on=False,
        )


def answered(node: Node, done: Done, gone_s: float) -> Node:
    """The row with what came of the try that was to be made. gone_s: for how long its session is
    gone at least."""
    after = copied(node)
    record = after.decision.power_on
    record.answered, record.why, record.session = record.tries, done.why, node.status.session
    pause_s = BOOT_S if done.on else pause_after(record.tries)
    record.due.FromMilliseconds(int((gone_s + pause_s) * 1000))
    note_gone(after, gone_s)
    return after


def is_under_way(node: Node) -> bool:
    """A try was decided, and nothing has come of it yet."""
    record = node.decision.power_on
    fenced = node.decision.state == FENCED
    return fenced and not record.ended and record.answered < record.tries

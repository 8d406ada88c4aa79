"""Mistakes that are made on purpose, one at a time: each must be found, or the simulator is blind.

A mistake changes the real code for as long as it lasts. The seed, or the story, beside it is known
to find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from services.compute.core import migrate
from services.compute.core.feeding import Contact
from services.compute.core.steps import Confirm, SetStatus
from services.compute.fenced import Fenced
from services.compute.ledger import Ledger
from services.coordinator import fencer
from services.coordinator.core import fence, migration, nodes, proofs, vms
from services.coordinator.core.proofs import Holds, PowerTry
from services.state import changes
from services.state.store import Lease
from tests.simulator.run import run
from tests.simulator.seeds import run_seed
from tests.simulator.store import SimStore
from tests.simulator.world import parse, parse_script

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Planted:
    """One mistake. seed: one that finds it. story: a world and a script that do, where no seed of
    the first hundreds is known to."""

    name: str
    plant: Plant
    seed: int = 0
    story: tuple[str, str] = ("", "")

    def found(self) -> list[str]:
        """What its seed, or its story, finds while the mistake is in the code."""
        with self.plant():
            if self.story[0]:
                return run(parse(self.story[0]), parse_script(self.story[1])).found
            return run_seed(self.seed).found


@contextmanager
def etag_ignored() -> Iterator[None]:
    """A writer with an old mirror overwrites what others wrote."""
    with mock.patch.object(changes, "_check_version", lambda change, there: None):
        yield


@contextmanager
def leader_remembered() -> Iterator[None]:
    """A coordinator that once led goes on leading, and writes without proving that it does."""
    with remembered("leader"):
        yield


@contextmanager
def presence_remembered() -> Iterator[None]:
    """An agent goes on writing, and so starts VMs, when its session is lost."""
    with remembered("nodes/"):
        yield


@contextmanager
def remembered(prefix: str) -> Iterator[None]:
    """Leases of that kind are acquired once, and never checked after that."""
    commit, acquire = SimStore.commit, SimStore.acquire

    def trusting(self: SimStore, given: Sequence[Any], held_by: Lease | None = None) -> int:
        trusted = held_by is not None and held_by.name.startswith(prefix)
        return commit(self, given, None if trusted else held_by)

    def once(self: SimStore, name: str, holder: str, heir_of: str = "") -> Lease | None:
        known = self.remembered(name) if name.startswith(prefix) else None
        return known or acquire(self, name, holder, heir_of)

    with (
        mock.patch.object(SimStore, "commit", trusting),
        mock.patch.object(SimStore, "acquire", once),
    ):
        yield


@contextmanager
def started_unwritten() -> Iterator[None]:
    """An agent starts a VM without writing first, under its lease, that it is about to."""
    write = Ledger.write

    def unwritten(self: Ledger, lease: Lease, vm: Any, step: Any) -> Any:
        if isinstance(step, Confirm):
            return vm
        starts = isinstance(step, SetStatus) and step.status.state == vms.vm_pb2.VM_STATE_STARTING
        if not starts:
            return write(self, lease, vm, step)
        after = type(vm)()
        after.CopyFrom(vm)
        after.status.CopyFrom(step.status)
        return after

    with mock.patch.object(Ledger, "write", unwritten):
        yield


@contextmanager
def recovered_unproven() -> Iterator[None]:
    """A node that is being fenced is taken for dead before anything proves it."""
    with mock.patch.object(nodes, "proven", lambda node: True):
        yield


@contextmanager
def target_forgotten() -> Iterator[None]:
    """A VM whose source died in the middle of a move is recovered without asking the target."""

    def forgets(now: Any, world: Any, vm: Any) -> Any:
        return migration.stayed(now, vm, "its node failed")

    with mock.patch.object(migration, "follow_dead", forgets):
        yield


@contextmanager
def fed_unproven() -> Iterator[None]:
    """The watchdog is fed for as long as the guard lives."""
    with mock.patch.object(Contact, "feed_until", lambda self, times: float("inf")):
        yield


@contextmanager
def claimed_unarmed() -> Iterator[None]:
    """The guard says that the watchdog is armed, and never has armed it."""

    def nothing(self: Any, timeout_s: float) -> float:
        return timeout_s

    from tests.simulator.watchdog import SimWatchdog

    with mock.patch.object(SimWatchdog, "arm", nothing):
        yield


@contextmanager
def fence_not_taken_in() -> Iterator[None]:
    """A fenced node comes back as if nothing had been."""
    with mock.patch.object(Fenced, "holds_up", lambda self, lease, snapshot, domains: False):
        yield


@contextmanager
def command_believed() -> Iterator[None]:
    """A controller that took the command is believed to have carried it out."""

    def after_command(self: PowerTry) -> Any:
        return Holds("its controller took the command")

    step = fencer.ByPower._take_in

    def take_in(self: Any, node: Any, outcome: Any) -> Any:
        if not self._try.commanded and isinstance(outcome, fencer.Answer):
            return Holds("its controller took the command")
        return step(self, node, outcome)

    with mock.patch.object(fencer.ByPower, "_take_in", take_in):
        yield


@contextmanager
def controller_believed() -> Iterator[None]:
    """A controller is believed that never said the truth of the working node."""
    with mock.patch.object(fencer, "power_barred", lambda node, settings, twin="": None):
        yield


@contextmanager
def watchdog_at_once() -> Iterator[None]:
    """The watchdog is taken to have fired as soon as the session is gone."""

    def at_once(node: Any, gone_s: float) -> Any:
        verdict = proofs.by_watchdog(node, 1e9)
        return verdict

    with mock.patch.object(fencer, "by_watchdog", at_once):
        yield


@contextmanager
def any_session_will_do() -> Iterator[None]:
    """A proof about an earlier session is taken for one about this."""

    def proven(node: Any) -> bool:
        return bool(node.decision.proof.means)

    with mock.patch.object(nodes, "proven", proven), mock.patch.object(fence, "proven", proven):
        yield


@contextmanager
def unclear_goes_on() -> Iterator[None]:
    """What stands still in the middle of a move is let go on without asking the target."""

    def kept(vm: Any, view: Any, why: str) -> Any:
        return migrate._kept(vm, view)

    with mock.patch.object(migrate, "_unclear", kept):
        yield


SLOW = "node n1 bmc=no\nnode n2 bmc=no\nnode n3 bmc=no watchdog-rate=0.5\nvm web\nvm db\nvm app\n"
"""Its watchdog takes twice its time."""
UNGUARDED = "node n1\nnode n2\nnode n3 watchdog=no{}\nvm web\nvm db\nvm app\n"
LYING = "at 1 bmc n3 lying\nat 2 cut n3\nat 20 wait"
CUT = "at 1 cut n3\nat 20 wait"
MOVING = "node n1 watchdog=no\nnode n2 memory=2048\nnode n3\nvm web nodes=n1,n2,n3\n"
CUT_MOVE = "at 1 copying web 5\nat 2 migrate web n2\nat 4 cut n1\nat 40 wait"

PLANTED: tuple[Planted, ...] = (
    Planted("etag-ignored", etag_ignored, 0),
    Planted("leader-remembered", leader_remembered, 9),
    Planted("presence-remembered", presence_remembered, 5),
    Planted("started-unwritten", started_unwritten, 7),
    Planted("recovered-unproven", recovered_unproven, 0),
    Planted("target-forgotten", target_forgotten, story=(MOVING, CUT_MOVE)),
    Planted("fed-unproven", fed_unproven, 0),
    Planted("claimed-unarmed", claimed_unarmed, 0),
    Planted("fence-not-taken-in", fence_not_taken_in, 2),
    Planted("command-believed", command_believed, story=(UNGUARDED.format(""), LYING)),
    Planted(
        "controller-believed", controller_believed, story=(UNGUARDED.format(" bmc=anothers"), CUT)
    ),
    Planted("watchdog-at-once", watchdog_at_once, story=(SLOW, CUT)),
    Planted("any-session-will-do", any_session_will_do, 0),
    Planted("unclear-goes-on", unclear_goes_on, 29),
)

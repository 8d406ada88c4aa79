"""Runs a world and a script from the first boot to the calm after the last fault, and gives the log
with what was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulator import calm, deeds, users
from tests.simulator.cluster import SimCluster
from tests.simulator.engine import Process
from tests.simulator.fast import remembered
from tests.simulator.invariants import Watch
from tests.simulator.world import Script, World

BEGIN_S = 10.0
"""Scripts count from here: nodes are up, and the VMs of the world run."""
CALM_FIRST_S = 20.0
CALM_STEP_S = 10.0
CALM_MAX_S = 900.0
"""How long everything may take to be as it should once every fault is over."""

LOGGERS = ("pvc.coordinator", "pvc.compute", "pvc.guard", "pvc.jobs")


@dataclass(slots=True)
class Result:
    """What came of a run."""

    log: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    """What must not be, in the order in which it was found."""
    began: int = 0
    """The line of the log at which the script begins."""
    simulated_s: float = 0.0
    events: int = 0

    @property
    def story(self) -> list[str]:
        """The log from the beginning of the script on."""
        return self.log[self.began :]


class Listener(logging.Handler):
    """What the services log, as lines of the simulation; their mistakes are found ones."""

    def __init__(self, cluster: SimCluster, watch: Watch) -> None:
        super().__init__(logging.INFO)
        self._cluster = cluster
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        process = self._cluster.engine.current
        who = process.name if process is not None else "?"
        text = record.getMessage()
        self._cluster.tell(who, text)
        if process is not None and self._cluster.listeners:
            self._cluster.heard(process, text)
        if record.exc_info and record.exc_info[1] is not None:
            self._watch.broken(f"{who}: {text}: {record.exc_info[1]!r}")


@contextmanager
def listening(cluster: SimCluster, watch: Watch) -> Iterator[None]:
    """Hears the loggers of the services for as long as the run takes."""
    listener = Listener(cluster, watch)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.addHandler(listener)
        one.setLevel(logging.INFO)
        one.propagate = False
    try:
        yield
    finally:
        for one, (level, propagate) in zip(loggers, before, strict=True):
            one.removeHandler(listener)
            one.setLevel(level)
            one.propagate = propagate


def run(world: World, script: Script, stop_early: bool = True) -> Result:
    """The whole story. stop_early: ends with the first thing that must not be."""
    cluster = SimCluster(world)
    watch = Watch(cluster)
    cluster.engine.mistake = lambda process, error: mistaken(watch, process, error)
    with listening(cluster, watch), remembered():
        try:
            _tell_story(cluster, watch, script, stop_early)
        finally:
            cluster.close()
    engine = cluster.engine
    return Result(cluster.log, watch.found, cluster.began, engine.now, engine.events)


def mistaken(watch: Watch, process: Process, error: BaseException) -> None:
    watch.broken(f"{process.name}: a step ended with {error!r}")


def _tell_story(cluster: SimCluster, watch: Watch, script: Script, stop_early: bool) -> None:
    engine = cluster.engine
    cluster.began_at = BEGIN_S
    cluster.start()
    engine.run(3.0)
    for vm in cluster.world.vms:
        users.create(cluster, vm.name, [f"{key}={value}" for key, value in vm.facts.items()])
    engine.run(BEGIN_S)
    cluster.began = len(cluster.log)
    cluster.tell("all", _where(cluster))
    for deed in script:
        engine.run(BEGIN_S + deed.time)
        if watch.found and stop_early:
            return
        deeds.do(cluster, deed)
    _calm_down(cluster, watch, stop_early)


def _where(cluster: SimCluster) -> str:
    """Who leads, and what runs where."""
    leader = cluster.ensemble.snapshot.leases.get("leader", "nodes/nobody")
    on = (f"{vm} on {n.id}" for n in cluster.nodes.values() for vm in n.machine.running())
    return f"{leader.removeprefix('nodes/')} leads; {', '.join(on) or 'nothing runs'}"


def _calm_down(cluster: SimCluster, watch: Watch, stop_early: bool) -> None:
    """Heals everything, and waits until all is as it should be."""
    engine = cluster.engine
    engine.run(engine.now + 5.0)
    deeds.heal_all(cluster)
    end = engine.now + CALM_MAX_S
    engine.run(engine.now + CALM_FIRST_S)
    while not (watch.found and stop_early):
        wrong = list(calm.unlike(cluster))
        if not wrong:
            cluster.tell("all", "is as it should be")
            return
        if engine.now >= end:
            for sentence in wrong:
                watch.broken(f"not calm after {CALM_MAX_S:g} s: {sentence}")
            return
        for node in cluster.nodes.values():
            node.power_on(5.0)  # what was being fenced when the faults ended
        engine.run(engine.now + CALM_STEP_S)

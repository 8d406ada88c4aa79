"""Puts together what the agent knows about one VM: the view that core.life judges by. Asks nobody;
reads only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2
from services.compute.core import ladder, migrate
from services.compute.core.methods import method
from services.compute.core.view import View, Way
from services.compute.drivers.domain_xml import Machine, domain_xml
from services.compute.drivers.hypervisor import Domain, Passage, Power
from services.compute.drivers.observed import Observed, parse_domain
from services.compute.machine import copies, machine_for, missing, volumes_by_path
from services.compute.memory import Memory, Run, Trip
from services.compute.presence import Hardware
from services.compute.settings import ComputeSettings
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Snapshot

Operation = operation_pb2.Operation

read = lru_cache(maxsize=2048)(parse_domain)
"""Domains are looked at far more often than they change."""


class Sight:
    """One node's."""

    def __init__(
        self,
        clock: Clock,
        settings: ComputeSettings,
        accelerator: str,
        machine: Hardware,
        memory: Memory,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._accelerator = accelerator
        self._machine = machine
        self._memory = memory
        self._wishes: dict[str, tuple[tuple[str, int, Machine], Observed]] = {}
        """VM → what its domain would be made of, and what that was made from: it is asked for in
        every round, and building XML takes milliseconds."""

    def view(
        self,
        snapshot: Snapshot,
        vm: vm_pb2.Vm,
        domain: Domain | None,
        former: Domain | None,
        operations: Sequence[Operation],
        passage: Passage | None = None,
        refusals: tuple[str, ...] | None = None,
    ) -> View:
        """What is known now. operations: the VM's that have not ended. passage, refusals: what the
        hypervisor says of its way to another node, or here."""
        running = domain is not None and domain.power is not Power.OFF
        live = read(domain.xml) if running and domain is not None else None
        run = self._memory.run(vm.name.removeprefix("vms/"), domain.run if domain else "")
        wish, gap = self._wish(snapshot, vm, live)
        return View(
            node=self._settings.node,
            now=self._clock.now(),
            booted=self._machine.booted,
            domain=domain,
            live=live,
            wish=wish,
            missing=gap,
            volumes=volumes_by_path(snapshot, vm, self._settings.node),
            guest=_guest(vm, run) if running else None,
            nudged_s=self._memory.nudged_s(vm),
            tried=dict(run.tried),
            refused=frozenset(run.refused),
            restart=restart_before(operations),
            held=has_volumes_to_go(operations),
            former=former,
            settled_in=self.settled_in(snapshot),
            way=self._way(snapshot, vm, passage, refusals),
        )

    def _way(
        self,
        snapshot: Snapshot,
        vm: vm_pb2.Vm,
        passage: Passage | None,
        refusals: tuple[str, ...] | None,
    ) -> Way:
        if not vm.decision.HasField("migration"):
            return Way()
        decision, now_s = vm.decision, self._clock.monotonic()
        leaves = migrate.leaves(vm, self._settings.node)
        peer = snapshot.find(
            cluster_pb2.Node, decision.migration.target if leaves else decision.node
        )
        trip = self._memory.trip(vm)
        return Way(
            host=peer.status.migration_host if peer is not None else "",
            dead=peer is None or peer.decision.state == cluster_pb2.NODE_STATE_FENCED,
            passage=passage,
            advice=_advice(vm, trip, passage, now_s) if leaves else None,
            given_up=trip.given_up,
            told_s=None if trip.told_at is None else now_s - trip.told_at,
            aborted_s=None if trip.aborted_at is None else now_s - trip.aborted_at,
            refusals=refusals,
            files=copies(snapshot, vm),
        )

    def settled_in(self, snapshot: Snapshot) -> bool:
        """It was decided which VMs start with this start of the machine."""
        node = snapshot.find(cluster_pb2.Node, self._settings.node)
        return node is not None and node.decision.boot_id == self._machine.boot_id

    def _wish(
        self, snapshot: Snapshot, vm: vm_pb2.Vm, live: Observed | None
    ) -> tuple[Observed | None, str]:
        """What the domain would be made of now, or what keeps that from being told."""
        if gap := missing(snapshot, vm, self._settings.node):
            return None, gap
        targets = live.targets if live is not None else {}
        machine = machine_for(snapshot, vm, self._settings, self._accelerator, targets)
        key = (vm.meta.uid, vm.meta.generation, machine)
        known = self._wishes.get(vm.name)
        if known is not None and known[0] == key:
            return known[1], ""
        try:
            wish = parse_domain(domain_xml(vm, machine))
        except PvcError as error:
            return None, error.message
        self._wishes[vm.name] = (key, wish)
        return wish, ""

    def forget_all_but(self, snapshot: Snapshot) -> None:
        """Drops what is known about VMs that are no more."""
        for name in list(self._wishes):  # others write to it
            if snapshot.find(vm_pb2.Vm, name) is None:
                self._wishes.pop(name, None)


def _advice(
    vm: vm_pb2.Vm, trip: Trip, passage: Passage | None, now_s: float
) -> ladder.Advice | None:
    """What would help its migration along; each is told once."""
    if passage is None or passage.ended:
        return None
    allowed, seen = migrate.terms(vm), migrate.seen_of(vm)
    if trip.climb is None:
        # Begun by another process of the agent, perhaps: it is where that one left it.
        throttled = seen.throttle_percent > 1
        trip.climb = ladder.begin(allowed, now_s, seen.downtime_ms, throttled)
    trip.climb, advice = ladder.climb(trip.climb, passage, allowed, now_s)
    if advice is not None and advice.stage is ladder.Stage.ABORT:
        trip.given_up = advice.why
    return advice


def _guest(vm: vm_pb2.Vm, run: Run) -> vm_pb2.GuestStatus | None:
    """What it said last, to this agent or to the one before."""
    if run.asked:
        return run.guest
    return vm.status.guest if vm.status.HasField("guest") else None


def restart_before(operations: Sequence[Operation]) -> Timestamp | None:
    """Whatever started before this has to start anew: the newest reboot that was taken up."""
    begun = [
        operation.start_time
        for operation in operations
        if operation.method == method("RebootVm") and operation.HasField("start_time")
    ]
    return max(begun, key=lambda time: time.ToNanoseconds(), default=None)


def has_volumes_to_go(operations: Sequence[Operation]) -> bool:
    """A deletion that removes volumes too goes on: it needs the VM's row until they are gone."""
    for operation in operations:
        request = api.DeleteVmRequest()
        if operation.request.Unpack(request) and request.delete_volumes:
            return True
    return False

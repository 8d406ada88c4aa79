"""The agent of one node: compares what is decided for its VMs with what it sees, and acts on the
difference.

`step` is called on every change and from time to time, and never waits: each VM is worked on in a
pool, by one thread at a time. What to do is core.life's to say; here it is done, and written down.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.concerns import (
    LIVELY,
    Operations,
    concerns,
    is_homeless,
    places,
    rows_of,
    unfinished,
)
from services.compute.core import migrate
from services.compute.core.life import at_rest, converge
from services.compute.core.settle import settles
from services.compute.core.status import ON, RUNNING, STOPPED
from services.compute.drivers.hypervisor import Domain, Facts, Hypervisor, Passage, Power
from services.compute.fenced import Fenced
from services.compute.hands import Hands
from services.compute.ledger import Ledger
from services.compute.machine import copies, gaps
from services.compute.memory import Memory
from services.compute.presence import Presence
from services.compute.settings import ComputeSettings
from services.compute.sight import Sight
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.holders import holders
from services.mesh.loop import parts_of
from services.state.store import Conflict, Lease, Snapshot, Store

Operation = operation_pb2.Operation
TROUBLE_PAUSE_S = 5.0
"""A VM whose hypervisor call failed is left alone for this long."""

MOVING_S = 0.25
RESTLESS_S = 1.0
CALM_S = 5.0
"""A round is made after these even if nothing seems to have changed: for a VM that migrates, one
that is not as it is to be, all others."""

log = logging.getLogger("pvc.compute")


class Agent:
    """One node's agent."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        hypervisor: Hypervisor,
        settings: ComputeSettings,
        facts: Facts,
        presence: Presence,
    ) -> None:
        self._store = store
        self._clock = clock
        self._hypervisor = hypervisor
        self._node = settings.node
        self._presence = presence
        self.memory = Memory(clock)
        self._sight = Sight(clock, settings, facts.accelerator, presence.machine, self.memory)
        self._ledger = Ledger(store, clock, settings.node, self.memory)
        self._hands = Hands(hypervisor, settings, facts.accelerator, self.memory, clock)
        self._fenced = Fenced(hypervisor, presence.standing, settings.node)
        self._pool = ThreadPoolExecutor(settings.parallel) if settings.parallel else None
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._missed: set[str] = set()
        """VMs that were to be looked at while a thread worked on them."""
        self._acted: set[str] = set()
        """VMs to which something was done since the round began: what it saw of them is past."""
        self._unfinished: tuple[object, Operations] = (None, {})
        self._here: Operations = {}
        self._reads = rows_of(settings.node)
        self._calm: dict[str, tuple[object, ...]] = {}
        """VMs with which nothing was to be done when last looked at, and all that this was judged
        by: while that is the same, nothing is to be done now."""
        self._names: tuple[str, ...] = ()
        """All VMs, when they were last asked for."""
        self._waiting = False
        """Another holds the node's lease."""
        self._faults: tuple[str, ...] = ()
        self._strangers: tuple[str, ...] = ()
        """Domains of PVC's that no VM stands behind, as faults of the node."""
        self._waits = False
        """Another still holds the node's lease."""
        self._changed = True
        self._seen: tuple[object, ...] = ()
        self._due = clock.monotonic()
        self.wake: Callable[[], None] = lambda: None
        """Has `step` called soon; set by whoever drives it."""

    def look_again(self) -> None:
        """Something changed that the state does not tell of. From any thread."""
        self._changed = True
        self.wake()

    def step(self) -> None:
        """One round over all VMs, unless nothing can have changed. Raises PvcError when the store
        cannot be reached; what runs goes on running, then as when the hypervisor cannot be."""
        if self._is_idle(self._store.snapshot()):
            return
        try:
            self._round()
        except PvcError as error:
            self._changed = True
            if error.reason != reason_pb2.REASON_UNREACHABLE:
                raise
            self._wait_for_presence(error)
        except BaseException:
            self._changed = True
            raise
        else:
            self._waits = False

    def _wait_for_presence(self, error: PvcError) -> None:
        """An agent that died a moment ago still holds the node's lease. To be slowed down by that
        as by a failure would leave the node without one when it ends, and the node is fenced then:
        all of its VMs would end because their agent was started anew."""
        if not self._waits:
            log.warning("%s; waiting for its end", error.message)
        self._waits = True
        self._due = self._clock.monotonic()

    def _round(self) -> None:
        with self._lock:
            self._acted.clear()
        domains = self._domains()
        lease = self._held()
        if lease is None:
            self._changed = True
            return
        snapshot = self._store.snapshot()
        if domains is None:
            self._settle(lease, snapshot, self._operations(snapshot), self._is_mine)
            self._due = self._clock.monotonic() + RESTLESS_S
            return
        self._strangers = tuple(sorted(map(left_alone, orphans(snapshot, domains))))
        if self._fenced.holds_up(lease, snapshot, domains):
            self._due = self._clock.monotonic() + RESTLESS_S
            return
        self._tend_all(lease, snapshot, domains)
        period_s = min((patience_s(vm) for vm, _ in self._mine(snapshot, domains)), default=CALM_S)
        self._due = self._clock.monotonic() + period_s

    def _held(self) -> Lease | None:
        """The node's lease; None while another holds it. Its end wakes us: a failure's pause would
        sleep through it, and the node be taken for dead."""
        try:
            lease = self._presence.hold((*self._faults, *self._strangers))
        except PvcError as error:
            if error.reason != reason_pb2.REASON_UNREACHABLE:
                raise
            if not self._waiting:
                log.warning("waiting: %s", error.message)
            self._waiting = True
            return None
        self._waiting = False
        return lease

    def _domains(self) -> Mapping[str, Domain] | None:
        """All there are; None while the hypervisor does not answer, which is a fault of the
        node."""
        try:
            domains = self._hypervisor.domains()
        except PvcError as error:
            if not self._faults:
                log.error("the hypervisor does not answer: %s", error.message)
            self._faults = (f"the hypervisor does not answer: {error.message}",)
            return None
        if self._faults:
            log.info("the hypervisor answers again")
        self._faults = ()
        return domains

    def _tend_all(self, lease: Lease, snapshot: Snapshot, domains: Mapping[str, Domain]) -> None:
        operations = self._operations(snapshot)
        by_uuid = {domain.uuid: domain for domain in domains.values()}
        self.memory.forget_all_but(domains, lambda vm: snapshot.find(vm_pb2.Vm, vm) is not None)
        self._forget_all_but(snapshot)
        for vm, domain in self._mine(snapshot, domains):
            alone = domain is None and vm.name not in operations and vm.spec.uuid not in by_uuid
            if alone and at_rest(vm, self._node):
                continue
            known = self._calm.get(vm.name) if vm.name not in operations else None
            if known is not None and known == self._grounds(snapshot, vm, domain):
                continue
            self._submit(
                vm.name.removeprefix("vms/"),
                lambda vm=vm, domain=domain: self._tend(  # type: ignore[misc]
                    lease,
                    vm.name,
                    domain,
                    former_of(vm, snapshot, by_uuid.get(vm.spec.uuid)),
                ),
            )
        if self._node == min((x for x in snapshot.leases if x.startswith("nodes/")), default=""):
            self._settle(lease, snapshot, operations, lambda vm: is_homeless(vm, snapshot))

    def _forget_all_but(self, snapshot: Snapshot) -> None:
        names, self._names = self._names, snapshot.names(vm_pb2.Vm)
        if self._names is names:
            return
        self._sight.forget_all_but(snapshot)
        for name in list(self._calm):  # others write to it
            if snapshot.find(vm_pb2.Vm, name) is None:
                self._calm.pop(name, None)

    def idle(self) -> bool:
        """No thread works on any VM."""
        with self._lock:
            return not self._busy

    def stop(self) -> None:
        """Begins nothing new."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_idle(self, snapshot: Snapshot) -> bool:
        """No row that matters changed since the last round, nothing else did, and no time is up."""
        seen = (*parts_of(snapshot, self._reads), snapshot.leases, self._waiting_here(snapshot))
        known = len(seen) == len(self._seen) and all(
            a is b for a, b in zip(seen, self._seen, strict=True)
        )
        if known and not self._changed and self._clock.monotonic() < self._due:
            return True
        self._seen, self._changed = seen, False
        return False

    def _mine(
        self, snapshot: Snapshot, domains: Mapping[str, Domain]
    ) -> Iterable[tuple[vm_pb2.Vm, Domain | None]]:
        """The VMs to be looked at, by name, with their domains. There may be many more that are at
        rest."""
        operations = self._operations(snapshot)
        found = {vm.name: vm for vm in snapshot.having(LIVELY, self._node)}
        found |= {vm.name: vm for x in domains.values() for vm in holders(snapshot, x.uuid)}
        for name in (*operations, *(f"vms/{vm}" for vm in domains)):
            if (vm := snapshot.find(vm_pb2.Vm, name)) is not None:
                found[name] = vm
        for name in sorted(found):
            vm, domain = found[name], domains.get(name.removeprefix("vms/"))
            if domain or self._node in places(vm):
                yield vm, domain

    def _submit(self, vm: str, work: Callable[[], bool]) -> None:
        """Has a VM worked on unless it is already, was since its domain was looked at (who did
        that has another round made), or stands still after a failure."""
        with self._lock:
            if vm in self._busy:
                self._missed.add(vm)
                return
            if vm in self._acted or self.memory.troubled(vm):
                return
            self._busy.add(vm)
        if self._pool is None:
            self._run(vm, work)
        else:
            self._pool.submit(self._run, vm, work)

    def _run(self, vm: str, work: Callable[[], bool]) -> None:
        more, acted = False, True
        try:
            more = acted = work()
        except Conflict as conflict:
            log.debug("%s: %s; looking again", vm, conflict)
            more = True
        except PvcError as error:
            log.warning("vm %s: %s", vm, error.message)
            self.memory.trouble(vm, TROUBLE_PAUSE_S)
        except Exception:
            log.exception("vm %s: a mistake in the agent", vm)
            self.memory.trouble(vm, TROUBLE_PAUSE_S)
        finally:
            with self._lock:
                self._busy.discard(vm)
                if acted:
                    self._acted.add(vm)
                more = more or vm in self._missed
                self._missed.discard(vm)
            if more:
                self.look_again()

    def _tend(
        self,
        lease: Lease,
        name: str,
        domain: Domain | None,
        former: Domain | None,
    ) -> bool:
        """One plan for one VM; True when it has to be looked at again at once.

        The row and its operations are of one snapshot: a row that is marked for deletion would be
        gone too early without the operation that wants its volumes too."""
        looked = self._looked(name)  # before the row is read: it takes a while
        snapshot = self._store.snapshot()
        vm = snapshot.find(vm_pb2.Vm, name)
        if vm is None:
            return False
        waiting = self._ledger.take_up(lease, vm, self._operations(snapshot).get(name, ()))
        passage, refusals = None, None
        if is_between(vm, self._node):
            passage, refusals = self._passage(vm), looked.get(vm.decision.migration.id)
            # After the row: what another node did to it was seen to be done there before it was
            # written, and has to be seen here before it is judged by.
            domain = self._hypervisor.domains().get(name.removeprefix("vms/"))
        grounds = self._grounds(snapshot, vm, domain)  # before the view: what changes then, shows
        view = self._sight.view(snapshot, vm, domain, former, waiting, passage, refusals)
        steps = converge(vm, view)
        self._calm.pop(name, None)
        if not steps and former is None and not waiting and not is_restless(vm):
            self._calm[name] = grounds
        for step in steps:
            try:
                self._hands.do(vm, view, step, snapshot)
            except PvcError as error:
                self._ledger.failed(lease, vm, view, step, error)
                return True
            vm = self._ledger.write(lease, vm, step)
        return bool(steps)

    def _passage(self, vm: vm_pb2.Vm) -> Passage | None:
        begun = migrate.seen_of(vm).phase == vm_pb2.MigrationStatus.PHASE_COPYING
        if not (begun and migrate.leaves(vm, self._node)):
            return None
        return self._hypervisor.migration(vm.name.removeprefix("vms/"))

    def _looked(self, name: str) -> Mapping[str, tuple[str, ...]]:
        """The migration that is to bring it here, if that is news → all reasons why it cannot."""
        snapshot = self._store.snapshot()
        vm = snapshot.find(vm_pb2.Vm, name)
        if vm is None or not migrate.wants_look(vm, self._node):
            return {}
        migration = vm.decision.migration
        found = list(gaps(snapshot, vm, self._node, migration.volumes))
        source = snapshot.find(cluster_pb2.Node, vm.decision.node)
        if source is None or not source.status.migration_host:
            found.append(f"{vm.decision.node} lets no VMs out: it has no address for that")
        else:
            images, host = copies(snapshot, vm), source.status.migration_host
            found += self._hypervisor.refuses(name.removeprefix("vms/"), host, images)
        return {migration.id: tuple(found)}

    def _grounds(
        self, snapshot: Snapshot, vm: vm_pb2.Vm, domain: Domain | None
    ) -> tuple[object, ...]:
        """What a VM that is calm, and of which no operation goes on, is judged by; time is not
        among it."""
        run = self.memory.current(vm.name.removeprefix("vms/"))
        volumes = [disk.volume for disk in vm.spec.disks] + [x.volume for x in vm.status.disks]
        return (
            vm,
            domain,
            (run.asked, run.guest) if run is not None else None,
            self._sight.settled_in(snapshot),
            *(snapshot.find(storage_pb2.Volume, name) for name in volumes),
            *(snapshot.find(network_pb2.Network, nic.network) for nic in vm.spec.nics),
        )

    def _operations(self, snapshot: Snapshot) -> Operations:
        """As `unfinished`, counted together once for each state of their table, and the same
        mapping as before when none of them changed."""
        table = snapshot.tables.get("operations")
        known, found = self._unfinished
        if known is not table:
            fresh = unfinished(snapshot)
            found = found if fresh == found else fresh
            self._unfinished = (table, found)
        return found

    def _waiting_here(self, snapshot: Snapshot) -> Operations:
        """Those of them that this agent may have to end: the same mapping as before when none of
        them changed."""
        fresh = {
            target: some
            for target, some in self._operations(snapshot).items()
            if concerns(snapshot.find(vm_pb2.Vm, target), self._node, snapshot)
        }
        if fresh != self._here:
            self._here = fresh
        return self._here

    def _is_mine(self, vm: vm_pb2.Vm | None) -> bool:
        return vm is not None and vm.decision.node == self._node

    def _settle(
        self,
        lease: Lease,
        snapshot: Snapshot,
        operations: Operations,
        whose: Callable[[vm_pb2.Vm | None], bool],
    ) -> None:
        """Ends operations that have ended without anybody's looking at the domain."""
        for target, waiting in operations.items():
            vm = snapshot.find(vm_pb2.Vm, target)
            if any(settles(operation) for operation in waiting) and whose(vm):
                try:
                    self._ledger.settle_all(lease, vm, waiting)
                except Conflict as conflict:
                    log.debug("%s: %s; the next round looks again", target, conflict)


def is_restless(vm: vm_pb2.Vm) -> bool:
    """Time alone can bring something about: a back-off ends, a guest does not shut down."""
    wanted = vm.decision.power in ON
    calm = vm.status.state == (RUNNING if wanted else STOPPED)
    calm = calm and not vm.decision.HasField("migration")
    return not calm or vm.decision.power == vm_pb2.POWER_STATE_PAUSED


def is_between(vm: vm_pb2.Vm, node: str) -> bool:
    """Another node has a part in what it is: it moves, or has moved here."""
    if vm.decision.HasField("migration"):
        return True
    return vm.decision.node == node and vm.status.node not in ("", node)


def patience_s(vm: vm_pb2.Vm) -> float:
    """How long the VM may go without being looked at."""
    if vm.decision.HasField("migration"):
        return MOVING_S
    return RESTLESS_S if is_restless(vm) else CALM_S


def orphans(snapshot: Snapshot, domains: Mapping[str, Domain]) -> list[Domain]:
    """Domains that no VM stands behind, by name or by UUID."""
    return [
        domain
        for domain in domains.values()
        if snapshot.find(vm_pb2.Vm, f"vms/{domain.vm}") is None
        and not holders(snapshot, domain.uuid)
    ]


def left_alone(domain: Domain) -> str:
    """What is said of an orphan. A row goes only after its domain: what has none is there because
    the state was lost or put back, and its guest may be all that is left of somebody's work."""
    doing = "is defined" if domain.power is Power.OFF else "runs"
    return (
        f"the domain {domain.vm} {doing} and the cluster knows no such VM; it is left alone: "
        f"put the right state back, or end it with virsh undefine {domain.vm}"
    )


def former_of(vm: vm_pb2.Vm, snapshot: Snapshot, domain: Domain | None) -> Domain | None:
    """The domain that the VM had under the name it had before, given the one with its UUID."""
    if domain is None or domain.vm == vm.name.removeprefix("vms/"):
        return None
    return domain if snapshot.find(vm_pb2.Vm, f"vms/{domain.vm}") is None else None

"""The coordinator at work: it leads alone, writes under its lease, tells why, and tidies up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, meta_pb2, operation_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc.gateway.v1.gateway_pb2 import Gateway
from services.coordinator import loop
from services.coordinator.cluster_service import cluster_of
from services.coordinator.core import decide
from services.coordinator.core.expire import (
    DAY_S,
    EVENTS_KEPT_MAX,
    OPERATIONS_KEPT_S,
    REQUESTS_KEPT_MAX,
    ROWS_AT_ONCE,
    expired,
)
from services.coordinator.core.limits import DEFAULTS, Limits
from services.coordinator.core.methods import REMOVE
from services.coordinator.core.plan import DecideVm, Plan, Step
from services.coordinator.core.rounds import Round
from services.coordinator.core.world import World
from services.coordinator.loop import LEADER, TOGETHER, Coordinator
from services.mesh import rows
from services.mesh.clock import sortable_id
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Change, Conflict, Lease, Put, Snapshot
from services.state.table import Table


class ManualClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000
        self.ids = 0

    def now(self) -> Timestamp:
        return Timestamp(seconds=self.seconds)

    def monotonic(self) -> float:
        return float(self.seconds)

    def new_id(self) -> str:
        self.ids += 1
        return sortable_id(self.seconds * 1000, self.ids)


def cluster() -> tuple[MemoryCluster, MemoryStore]:
    """A cluster of one node with 4 GiB, whose agent is there."""
    shared = MemoryCluster()
    agent = MemoryStore(shared)
    node = cluster_pb2.Node(name="nodes/n1")
    node.status.memory_for_vms_mib = 4096
    node.status.cpus = 4
    agent.commit([Put(node)])
    agent.acquire("nodes/n1", "nodes/n1")
    return shared, agent


def vm(name: str, power: vm_pb2.PowerState.ValueType, asked: int) -> vm_pb2.Vm:
    row = vm_pb2.Vm(name=f"vms/{name}")
    row.spec.power, row.spec.power_request = power, asked
    row.spec.memory.memory_mib = 512
    return row


def test_it_brings_the_node_online_and_places_the_vm() -> None:
    shared, agent = cluster()
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_RUNNING, 1))])
    Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1").step()
    state = agent.snapshot()
    placed = state.find(vm_pb2.Vm, "vms/web")
    assert placed is not None and placed.decision.node == "nodes/n1"
    events = [f"{x.message}: {x.why}" for x in state.rows(event_pb2.Event)]
    assert events[0] == "node n1 NEW → ONLINE: it holds its session"
    assert events[-1].startswith("vm web nowhere → n1: placed on n1")
    assert all(x.cause == "coordinator n1" for x in state.rows(event_pb2.Event))


class Overtaken(MemoryStore):
    """A store in which somebody else writes the row first."""

    row = "vms/idle"
    times = 1

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        if any(
            isinstance(one, Put) and getattr(one.value, "name", "") == self.row for one in changes
        ):
            self.times -= 1
            self.row = self.row if self.times else ""
            raise Conflict("vms/idle")
        return super().commit(changes, held_by)


def test_a_plan_is_cut_where_somebody_was_quicker() -> None:
    """The node's row says that autostart was seen to: it must not, when a VM was left out."""
    shared, agent = cluster()
    node = agent.snapshot().find(cluster_pb2.Node, "nodes/n1")
    assert node is not None
    node.status.boot_id, node.decision.boot_id = "this", "the one before"
    node.decision.state = cluster_pb2.NODE_STATE_ONLINE
    idle = vm("idle", vm_pb2.POWER_STATE_RUNNING, 0)
    idle.spec.autostart = vm_pb2.AUTOSTART_NEVER
    idle.decision.node, idle.decision.power = "nodes/n1", vm_pb2.POWER_STATE_RUNNING
    agent.commit([Put(node), Put(idle)])
    coordinator = Coordinator(Overtaken(shared), ManualClock(), "nodes/n1")
    for _ in range(2):
        coordinator.step()
    seen = agent.snapshot().find(vm_pb2.Vm, "vms/idle")
    assert seen is not None and seen.decision.power == vm_pb2.POWER_STATE_OFF
    node = agent.snapshot().find(cluster_pb2.Node, "nodes/n1")
    assert node is not None and node.decision.boot_id == "this"


def test_only_one_leads_and_the_other_takes_over() -> None:
    shared, agent = cluster()
    clock, first_store = ManualClock(), MemoryStore(shared)
    first = Coordinator(first_store, clock, "nodes/n1")
    second = Coordinator(MemoryStore(shared), clock, "nodes/n2")
    first.step()
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_OFF, 0))])
    second.step()
    assert agent.snapshot().leases[LEADER] == "nodes/n1"
    assert not agent.snapshot().find(vm_pb2.Vm, "vms/web").decision.node  # type: ignore[union-attr]
    first_store.lose_session()
    second.step()
    assert agent.snapshot().leases[LEADER] == "nodes/n2"
    assert agent.snapshot().find(vm_pb2.Vm, "vms/web").decision.node  # type: ignore[union-attr]


def test_old_rows_are_dropped_and_running_ones_kept() -> None:
    shared, agent = cluster()
    clock = ManualClock()
    for number, ended in enumerate((0, 1)):
        row = operation_pb2.Operation(name=f"operations/{number}")
        if ended:
            row.end_time.seconds = 500
        agent.commit([Put(row)])
    clock.seconds += OPERATIONS_KEPT_S
    Coordinator(MemoryStore(shared), clock, "nodes/n1").step()
    assert [x.name for x in agent.snapshot().rows(operation_pb2.Operation)] == ["operations/0"]


def test_events_are_bounded_in_number() -> None:
    told = [
        event_pb2.Event(name=f"events/{n:06}", time=Timestamp(seconds=1000), meta=meta_pb2.Meta())
        for n in range(EVENTS_KEPT_MAX + 3)
    ]
    assert [x.name for x in expired(Timestamp(seconds=1000), [], told, [], [])] == [
        "events/000000",
        "events/000001",
        "events/000002",
    ]


def audited(*outcomes: AuditEntry.Outcome.ValueType) -> list[AuditEntry]:
    """Entries of the audit log, written down on the first day."""
    return [
        AuditEntry(name=f"auditEntries/{n:06}", outcome=outcome, time=Timestamp(seconds=0))
        for n, outcome in enumerate(outcomes)
    ]


DONE, REFUSED = AuditEntry.OUTCOME_SUCCEEDED, AuditEntry.OUTCOME_REFUSED


def test_refusals_do_not_push_out_what_was_done() -> None:
    kept, refusals = DEFAULTS.audit_kept_entries, DEFAULTS.audit_kept_entries // 5
    entries = audited(*[DONE] * 3, *[REFUSED] * (refusals + 2), *[DONE] * kept)
    now = Timestamp(seconds=DEFAULTS.audit_kept_days * DAY_S)
    few = entries[: refusals + 100]
    assert expired(now, [], [], [], few) == [entries[3], entries[4]], "the oldest refusals go"
    assert {x.name for x in expired(now, [], [], [], entries)} <= {x.name for x in entries[:2100]}
    now.seconds += 1
    assert expired(now, [], [], [], entries[-1:]) == entries[-1:], "it is too old"


def test_how_much_of_the_audit_log_is_kept_is_a_setting() -> None:
    limits = Limits(audit_kept_days=3, audit_kept_entries=100)
    entries = audited(*[DONE] * 90, *[REFUSED] * 30)
    now = Timestamp(seconds=3 * DAY_S)
    gone = [x.name for x in expired(now, [], [], [], entries, limits)]
    assert gone == [x.name for x in [*entries[:10], *entries[90:100]]]
    now.seconds += 1
    assert len(expired(now, [], [], [], entries, limits)) == len(entries)


def test_the_leader_keeps_as_much_of_the_audit_log_as_it_is_told() -> None:
    shared, agent = cluster()
    entries = audited(*[DONE] * 130)
    agent.commit([Put(row) for row in entries])
    spec = cluster_pb2.ClusterSpec(audit_kept_entries=110)
    agent.commit([Put(cluster_pb2.ClusterIdentity(name=rows.THIS_CLUSTER, spec=spec))])
    Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1").step()
    left = [x.name for x in agent.snapshot().rows(AuditEntry)]
    assert left == [x.name for x in entries[20:]]


def test_a_fault_of_a_gateway_is_one_of_the_cluster_while_its_node_is_there() -> None:
    shared, agent = cluster()
    agent.commit(
        [Put(Gateway(name=f"gateways/{n}", faults=["it cannot write"])) for n in ("n1", "n9")]
    )
    Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1").step()
    seen = cluster_of(agent.snapshot(), "home")
    assert list(seen.faults) == ["nodes/n1: it cannot write"]
    assert seen.health == cluster_pb2.Cluster.HEALTH_WARNING


def test_remembered_answers_are_bounded_in_number_too() -> None:
    answered = [
        operation_pb2.AnsweredRequest(
            name=f"requests/{REQUESTS_KEPT_MAX - n:06}",
            meta=meta_pb2.Meta(create_time=Timestamp(seconds=1000 + n)),
        )
        for n in range(REQUESTS_KEPT_MAX + 2)
    ]
    oldest = {answered[0].name, answered[1].name}
    assert {x.name for x in expired(Timestamp(seconds=20_000), [], [], answered, [])} == oldest


def test_tidying_keeps_up_with_whoever_makes_rows() -> None:
    shared, agent = cluster()
    old = [event_pb2.Event(name=f"events/{n:06}") for n in range(3 * ROWS_AT_ONCE + 1)]
    for start in range(0, len(old), 100):
        agent.commit([Put(row) for row in old[start : start + 100]])
    clock = ManualClock()
    clock.seconds = 10**9
    Coordinator(MemoryStore(shared), clock, "nodes/n1").step()
    assert all(x.time.seconds for x in agent.snapshot().rows(event_pb2.Event))


def test_a_vm_that_no_node_had_takes_its_snapshots_along() -> None:
    """Or the next VM of its name would find them."""
    shared, agent = cluster()
    gone = vm("web", vm_pb2.POWER_STATE_OFF, 0)
    gone.meta.delete_time.seconds = 1
    agent.commit([Put(gone), Put(vm_pb2.VmSnapshot(name="vms/web/snapshots/s1"))])
    Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1").step()
    state = agent.snapshot()
    assert not list(state.rows(vm_pb2.Vm)) and not list(state.rows(vm_pb2.VmSnapshot))


def test_a_vm_that_the_rules_fail_on_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared, agent = cluster()
    for name in ("a", "bad", "c"):
        agent.commit([Put(vm(name, vm_pb2.POWER_STATE_RUNNING, 1))])
    rule = decide.judge_vm

    def failing(round: Round, row: vm_pb2.Vm) -> Iterable[Step]:
        assert row.name != "vms/bad", "a rule that does not hold"
        return rule(round, row)

    monkeypatch.setattr(decide, "judge_vm", failing)
    coordinator = Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1")
    coordinator.step()
    coordinator.step()
    placed = {x.name for x in agent.snapshot().rows(vm_pb2.Vm) if x.decision.node}
    assert placed == {"vms/a", "vms/c"}
    assert [x.message for x in caplog.records].count(
        "vms/bad cannot be judged: a mistake in the rules"
    ) == 1


def test_the_cluster_at_a_glance() -> None:
    shared, agent = cluster()
    store = MemoryStore(shared)
    assert cluster_of(agent.snapshot(), "home").health == cluster_pb2.Cluster.HEALTH_ERROR
    agent.commit([Put(vm("big", vm_pb2.POWER_STATE_RUNNING, 1))])
    Coordinator(store, ManualClock(), "nodes/n1").step()
    seen = cluster_of(agent.snapshot(), "home")
    assert (seen.leader, seen.health) == ("nodes/n1", cluster_pb2.Cluster.HEALTH_OK)
    assert (dict(seen.nodes), seen.memory_promised_mib) == ({"ONLINE": 1}, 512)


# --- Of many, and at rest.


class Counting(MemoryStore):
    """A store that knows how large commits are."""

    def __init__(self, shared: MemoryCluster) -> None:
        super().__init__(shared)
        self.sizes: list[int] = []

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        self.sizes.append(len(changes))
        return super().commit(changes, held_by)


def test_decisions_about_many_vms_go_out_together() -> None:
    shared, agent = cluster()
    agent.commit([Put(vm(f"v{n:02}", vm_pb2.POWER_STATE_OFF, 1)) for n in range(20)])
    store = Counting(shared)
    Coordinator(store, ManualClock(), "nodes/n1").step()
    placed = [x for x in agent.snapshot().rows(vm_pb2.Vm) if x.decision.node]
    assert len(placed) == 20
    assert store.sizes.count(2 * TOGETHER) == 1 and max(store.sizes) == 2 * TOGETHER


def test_one_that_was_changed_meanwhile_does_not_hold_the_others() -> None:
    shared, agent = cluster()
    agent.commit([Put(vm(name, vm_pb2.POWER_STATE_OFF, 1)) for name in ("a", "idle", "z")])
    store = Overtaken(shared)
    store.times = 2  # together, and alone
    Coordinator(store, ManualClock(), "nodes/n1").step()
    placed = {x.name for x in agent.snapshot().rows(vm_pb2.Vm) if x.decision.node}
    assert placed == {"vms/a", "vms/z"}


def test_at_rest_nothing_is_judged_and_nothing_written(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, agent = cluster()
    store, clock, judged = Counting(shared), ManualClock(), [0]
    monkeypatch.setattr(loop, "decide", lambda now, world: judged.append(1) or ())
    coordinator = Coordinator(store, clock, "nodes/n1")
    coordinator.step()
    judged.clear()
    store.sizes.clear()
    for _ in range(3):
        coordinator.step()
    assert not judged and not store.sizes
    clock.seconds += 6
    coordinator.step()
    assert len(judged) == 1, "from time to time all the same"
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_OFF, 1))])
    coordinator.step()
    assert len(judged) == 2


def test_progress_of_an_operation_is_nothing_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, agent = cluster()
    judged: list[int] = []
    monkeypatch.setattr(loop, "decide", lambda now, world: judged.append(1) or ())
    coordinator = Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1")
    running = operation_pb2.Operation.STATE_RUNNING
    agent.commit([Put(operation_pb2.Operation(name="operations/1", state=running))])
    coordinator.step()
    for percent in (10, 20):
        row = agent.snapshot().find(operation_pb2.Operation, "operations/1")
        after = rows.copied(row) if row is not None else operation_pb2.Operation()
        after.percent = percent
        agent.commit([Put(after)])
        coordinator.step()
    assert len(judged) == 1
    after = rows.copied(agent.snapshot().find(operation_pb2.Operation, "operations/1") or after)
    after.cancel_requested = True
    agent.commit([Put(after)])
    coordinator.step()
    assert len(judged) == 2


def test_a_dead_nodes_vm_runs_elsewhere_and_events_tell_the_story() -> None:
    shared, agent = cluster()
    other = MemoryStore(shared)
    node = cluster_pb2.Node(name="nodes/n2")
    node.status.memory_for_vms_mib, node.status.cpus, node.status.session = 8192, 4, "s-n2"
    other.commit([Put(node)])
    other.acquire("nodes/n2", "nodes/n2")
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_RUNNING, 1))])
    clock = ManualClock()
    coordinator = Coordinator(MemoryStore(shared), clock, "nodes/n1")
    coordinator.step()
    web = agent.snapshot().find(vm_pb2.Vm, "vms/web")
    assert web is not None and web.decision.node == "nodes/n2"
    runs = rows.copied(web)
    runs.status.state, runs.status.node = vm_pb2.VM_STATE_RUNNING, "nodes/n2"
    other.commit([Put(runs)])
    other.close()
    for _ in range(3):
        coordinator.step()
        clock.seconds += 1
    dead = rows.copied(agent.snapshot().find(cluster_pb2.Node, "nodes/n2") or node)
    assert dead.decision.state == cluster_pb2.NODE_STATE_FENCING
    assert dead.decision.lost_session == "s-n2"
    dead.decision.proof.means = cluster_pb2.PROOF_MEANS_POWER
    dead.decision.proof.session, dead.decision.proof.text = "s-n2", "its power is off"
    agent.commit([Put(dead)])
    coordinator.step()
    web = agent.snapshot().find(vm_pb2.Vm, "vms/web")
    assert web is not None and web.decision.node == "nodes/n1"
    told = [f"{x.message}: {x.why}" for x in agent.snapshot().rows(event_pb2.Event)]
    assert told[-4:-1] == [
        "node n2 ONLINE → UNKNOWN: its session ended",
        "node n2 UNKNOWN → FENCING: its session ended; its death is being proven",
        "node n2 FENCING → FENCED: proven dead: its power is off",
    ]
    assert told[-1].startswith("vm web n2 → n1: n2 is dead; ")


def test_a_leader_that_lost_its_session_writes_nothing_and_leads_no_longer() -> None:
    shared, agent = cluster()
    first_store, clock = Deaf(shared), ManualClock()
    first = Coordinator(first_store, clock, "nodes/n1")
    first.step()
    first_store.deaf = agent.snapshot()
    first_store.lose_session()
    second = Coordinator(MemoryStore(shared), clock, "nodes/n2")
    second.step()
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_RUNNING, 1))])
    row = agent.snapshot().find(vm_pb2.Vm, "vms/web")
    first_store.deaf = Snapshot(
        first_store.deaf.revision,
        first_store.deaf.tables.set("vms", Table({"vms/web": row})),
        first_store.deaf.leases,
    )
    first.step()
    assert first.lead.lease is None
    web = agent.snapshot().find(vm_pb2.Vm, "vms/web")
    assert web is not None and not web.decision.node


class Deaf(MemoryStore):
    """A process whose mirror stands still, and that does not know that its session ended."""

    deaf: Snapshot | None = None
    lease: Lease | None = None

    def snapshot(self) -> Snapshot:
        return self.deaf or super().snapshot()

    def acquire(self, name: str, holder: str, heir_of: str = "") -> Lease | None:  # type: ignore[override]
        self.lease = self.lease if self.deaf else super().acquire(name, holder, heir_of)
        return self.lease

    def session(self) -> str:
        return "the old one" if self.deaf else super().session()


def test_an_event_names_the_operation_and_who_asked() -> None:
    shared, agent = cluster()
    asked = operation_pb2.Operation(
        name="operations/1", target="vms/web", power_request=1, caller="token ann"
    )
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_RUNNING, 1)), Put(asked)])
    Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1").step()
    told = [x for x in agent.snapshot().rows(event_pb2.Event) if x.subject == "vms/web"]
    assert [(x.operation, x.cause) for x in told] == [("operations/1", "token ann")]


def test_a_node_that_was_removed_is_forgotten() -> None:
    shared, agent = cluster()
    gone = cluster_pb2.Node(name="nodes/n2")
    gone.decision.state = cluster_pb2.NODE_STATE_JOINING
    gone.spec.leaving = True
    asked = operation_pb2.Operation(
        name="operations/1", target=gone.name, method=REMOVE, service="coordinator"
    )
    agent.commit([Put(gone), Put(asked)])
    Coordinator(MemoryStore(shared), ManualClock(), "nodes/n1").step()
    assert agent.snapshot().find(cluster_pb2.Node, gone.name) is None
    done = agent.snapshot().find(operation_pb2.Operation, asked.name)
    assert done is not None and done.state == operation_pb2.Operation.STATE_SUCCEEDED
    told = list(agent.snapshot().rows(event_pb2.Event))[-1]
    assert (told.message, told.operation) == ("node n2 has left the cluster", asked.name)


def test_rules_that_fight_are_told_and_do_not_write_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, agent = cluster()
    agent.commit([Put(vm("web", vm_pb2.POWER_STATE_OFF, 1))])

    def fights(now: Timestamp, world: World) -> Plan:
        row = rows.copied(world.vms["vms/web"])
        row.decision.why = "no" if row.decision.why == "yes" else "yes"
        return (DecideVm(row, "says", row.decision.why),)

    monkeypatch.setattr(loop, "decide", fights)
    store = Counting(shared)
    with pytest.raises(RuntimeError, match=r"after 64 rounds, at last: .*web.*says"):
        Coordinator(store, ManualClock(), "nodes/n1").step()
    assert len(store.sizes) == loop.ROUNDS_MAX

"""Jobs: every way an operation can end, and every way its worker can be cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1.vm_service_pb2 import StartVmRequest
from pvc.core.v1 import operation_pb2, reason_pb2
from services.mesh import rows
from services.mesh.clock import SystemClock
from services.mesh.desk import Call
from services.mesh.errors import PvcError
from services.mesh.jobs import Job, Jobs, Outcome, Task, request_of
from services.state.memory import MemoryStore
from services.state.store import Change, Conflict, Put
from tests.mesh.stores import FlakyStore
from tests.mesh.vms import vm

Operation = operation_pb2.Operation
METHOD = "pvc.compute.v1.VmService/StartVm"
CLOCK = SystemClock()


def accepted(store: MemoryStore, target: str = "vms/a", **fields: Any) -> str:
    """Puts a new operation into the store; returns its name."""
    call = Call(CLOCK.now(), "token ann", "nodes/n1", CLOCK.new_id)
    operation = rows.new_operation(
        call, StartVmRequest(name=target), method=METHOD, target=target,
        service="compute", node="nodes/n1",
    )  # fmt: skip
    for key, value in fields.items():
        setattr(operation, key, value)
    store.commit([Put(operation)])
    return operation.name


def now(store: MemoryStore, name: str) -> Operation:
    operation = store.snapshot().find(Operation, name)
    assert operation is not None
    return operation


def settled(jobs: Jobs) -> None:
    """Steps until nothing is being worked on."""
    jobs.step()
    end = time.monotonic() + 60
    while not jobs.idle():
        assert time.monotonic() < end
        time.sleep(0.002)


Make = Callable[..., Jobs]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes workers, ended with the test."""
    made: list[Jobs] = []

    def one(store: MemoryStore, job: Job, parallel: int = 4) -> Jobs:
        made.append(Jobs(store, CLOCK, "compute", "nodes/n1", {METHOD: job}, parallel))
        return made[-1]

    yield one
    for jobs in made:
        jobs.stop()


def cancelled_by_user(store: MemoryStore, name: str) -> None:
    while True:
        operation = rows.copied(now(store, name))
        operation.cancel_requested = True
        try:
            store.commit([Put(operation)])
        except Conflict:
            continue
        return


def test_success(make: Make) -> None:
    store = MemoryStore()

    def job(task: Task) -> Outcome:
        assert task.request(StartVmRequest).name == "vms/a"
        assert (task.target, task.caller, task.attempt) == ("vms/a", "token ann", 1)
        task.undo.callback(pytest.fail, "undone though it went well")
        task.stage("starting the emulator", 30)
        task.stage("waiting", 20)
        task.progress(50)
        task.log("it said hello")
        return Outcome(vm("a"), lambda: [Put(vm("a"))])

    name = accepted(store)
    settled(make(store, job))
    operation = now(store, name)
    assert operation.state == Operation.STATE_SUCCEEDED
    assert (operation.percent, operation.attempts, operation.stage) == (100, 1, "waiting")
    assert [line.text for line in operation.log] == [
        "starting the emulator",
        "waiting",
        "it said hello",
    ]
    result = vm_pb2.Vm()
    assert operation.result.Unpack(result) and result.name == "vms/a"
    assert store.snapshot().find(vm_pb2.Vm, "vms/a") is not None
    assert operation.HasField("start_time") and operation.HasField("end_time")
    assert request_of(operation) == StartVmRequest(name="vms/a")


def test_failure_is_undone_last_first(make: Make) -> None:
    store, undone = MemoryStore(), list[str]()

    def job(task: Task) -> None:
        task.undo.callback(undone.append, "first")
        task.undo.callback(undone.append, "second")
        raise PvcError(reason_pb2.REASON_OUT_OF_SPACE, "the pool is full", field="size_bytes")

    name = accepted(store)
    settled(make(store, job))
    operation = now(store, name)
    assert operation.state == Operation.STATE_FAILED
    error = PvcError.from_status(operation.error)
    assert (error.reason, error.field) == (reason_pb2.REASON_OUT_OF_SPACE, "size_bytes")
    assert undone == ["second", "first"]


def test_a_mistake_in_a_job_and_in_its_undo_are_both_told(make: Make) -> None:
    store = MemoryStore()

    def job(task: Task) -> None:
        task.undo.callback(lambda: 1 / 0)
        raise KeyError("oops")

    name = accepted(store)
    settled(make(store, job))
    error = PvcError.from_status(now(store, name).error)
    assert error.reason == reason_pb2.REASON_INTERNAL
    assert "oops" in error.message and "undoing it failed too (division by zero)" in error.message


def test_an_outcome_that_cannot_be_written_fails_and_is_undone(make: Make) -> None:
    store, undone = MemoryStore(), list[str]()

    def changes() -> list[Change]:
        raise PvcError(reason_pb2.REASON_NOT_FOUND, "vms/a is gone")

    def job(task: Task) -> Outcome:
        task.undo.callback(undone.append, "done")
        return Outcome(None, changes)

    name = accepted(store)
    settled(make(store, job))
    assert PvcError.from_status(now(store, name).error).reason == reason_pb2.REASON_NOT_FOUND
    assert undone == ["done"]


def test_cancelled_before_it_began(make: Make) -> None:
    store = MemoryStore()
    name = accepted(store, cancel_requested=True)
    settled(make(store, lambda task: pytest.fail("it ran")))
    operation = now(store, name)
    assert operation.state == Operation.STATE_CANCELLED
    assert PvcError.from_status(operation.error).reason == reason_pb2.REASON_CANCELLED


def test_cancelled_while_it_runs(make: Make) -> None:
    store, begun, undone = MemoryStore(), threading.Event(), list[str]()

    def job(task: Task) -> None:
        task.undo.callback(undone.append, "undone")
        begun.set()
        while True:
            task.check()
            time.sleep(0.002)

    name = accepted(store)
    jobs = make(store, job)
    jobs.step()
    assert begun.wait(60)
    cancelled_by_user(store, name)
    settled(jobs)
    assert now(store, name).state == Operation.STATE_CANCELLED
    assert undone == ["undone"]


def test_a_dead_workers_operation_is_taken_up_again(make: Make) -> None:
    store, attempts = MemoryStore(), list[int]()
    name = accepted(store, state=Operation.STATE_RUNNING, worker="dead", attempts=1)
    settled(make(store, lambda task: attempts.append(task.attempt)))
    operation = now(store, name)
    assert operation.state == Operation.STATE_SUCCEEDED
    assert attempts == [operation.attempts] == [2]
    assert operation.worker == store.session()


def test_what_killed_three_workers_is_given_up(make: Make) -> None:
    store = MemoryStore()
    name = accepted(store, state=Operation.STATE_RUNNING, worker="dead", attempts=3)
    settled(make(store, lambda task: pytest.fail("it ran")))
    operation = now(store, name)
    assert operation.state == Operation.STATE_FAILED
    error = PvcError.from_status(operation.error)
    assert error.reason == reason_pb2.REASON_INTERRUPTED and "3 times" in error.message


def test_a_lost_session_ends_the_attempt_and_the_next_begins_anew(make: Make) -> None:
    store, log = MemoryStore(), list[str]()

    def job(task: Task) -> None:
        task.undo.callback(log.append, f"undo {task.attempt}")
        log.append(f"do {task.attempt}")
        if task.attempt == 1:
            store.lose_session()
        task.check()

    name = accepted(store)
    jobs = make(store, job)
    settled(jobs)
    assert now(store, name).state == Operation.STATE_RUNNING
    settled(jobs)
    assert now(store, name).state == Operation.STATE_SUCCEEDED
    assert log == ["do 1", "undo 1", "do 2"]


@pytest.mark.parametrize("how", ["it looks", "its work fails"])
def test_a_job_that_was_given_to_another_node_stops_and_undoes_nothing(
    make: Make, how: str
) -> None:
    store, log = MemoryStore(), list[str]()

    def job(task: Task) -> None:
        task.undo.callback(log.append, "undo")
        operation = rows.copied(task.operation())
        operation.node = "nodes/n2"
        store.commit([Put(operation)])
        if how == "its work fails":
            raise PvcError(reason_pb2.REASON_STORAGE_FAILED, "the tool was killed")
        task.check()
        log.append("went on")

    name = accepted(store)
    jobs = make(store, job)
    settled(jobs)
    settled(jobs)
    assert log == []
    assert (now(store, name).state, now(store, name).attempts) == (Operation.STATE_RUNNING, 1)


def ends(changes: Sequence[Change]) -> bool:
    return any(
        isinstance(x, Put) and isinstance(x.value, Operation) and x.value.state in rows.FINAL
        for x in changes
    )


@pytest.mark.parametrize("written", [False, True])
def test_an_outcome_of_which_nothing_is_known_is_not_undone(make: Make, written: bool) -> None:
    """The commit that ends the operation gets no answer, and may have been done or not."""
    store, attempts = FlakyStore(), list[int]()

    def job(task: Task) -> None:
        attempts.append(task.attempt)
        task.undo.callback(pytest.fail, "undone though it may have succeeded")

    name = accepted(store)
    store.away, store.written = ends, written
    jobs = make(store, job)
    settled(jobs)
    store.away = lambda changes: False
    settled(jobs)
    assert now(store, name).state == Operation.STATE_SUCCEEDED
    assert attempts == ([1] if written else [1, 2])


def test_one_at_a_time_for_each_target_in_the_order_of_acceptance(make: Make) -> None:
    store, running, most = MemoryStore(), set[str](), list[int]()
    order, lock = list[str](), threading.Lock()

    def job(task: Task) -> None:
        with lock:
            assert task.target not in running
            running.add(task.target)
            most.append(len(running))
            order.append(task.name)
        time.sleep(0.02)
        with lock:
            running.remove(task.target)

    names = [accepted(store, f"vms/{target}") for target in "aaabbb"]
    jobs = make(store, job)
    end = time.monotonic() + 60
    while any(now(store, name).state not in rows.FINAL for name in names):
        jobs.step()
        time.sleep(0.002)
        assert time.monotonic() < end
    assert max(most) == 2
    for target in (names[:3], names[3:]):
        assert [name for name in order if name in target] == sorted(target)


def test_two_workers_do_an_operation_once(make: Make) -> None:
    store, ran = MemoryStore(), list[str]()
    name = accepted(store)
    workers = [make(store, lambda task: ran.append(task.name)) for _ in range(2)]
    threads = [threading.Thread(target=settled, args=[jobs]) for jobs in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran == [name]


def test_only_what_is_for_this_service_and_node(make: Make) -> None:
    store = MemoryStore()
    names = [
        accepted(store, node="nodes/n2"),
        accepted(store, service="storage"),
        accepted(store, method="pvc.compute.v1.VmService/Other"),
    ]
    settled(make(store, lambda task: pytest.fail("it ran")))
    assert all(now(store, name).state == Operation.STATE_PENDING for name in names)


def test_the_log_keeps_the_newest_lines(make: Make) -> None:
    store = MemoryStore()

    def job(task: Task) -> None:
        for number in range(120):
            task.log(f"line {number}")

    name = accepted(store)
    settled(make(store, job))
    lines = [line.text for line in now(store, name).log]
    assert lines == [f"line {number}" for number in range(20, 120)]


def test_final_operations_never_change() -> None:
    store = MemoryStore()
    name = accepted(store, state=Operation.STATE_SUCCEEDED)
    with pytest.raises(AssertionError, match="has ended"):
        rows.enter_operation(now(store, name), Operation.STATE_RUNNING, CLOCK.now())

"""What services/state/store.py promises, on every implementation."""

from __future__ import annotations

import base64
import random
import threading

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2
from services.state.changes import COMMIT_BYTES_MAX
from services.state.schema import ROW_BYTES_MAX
from services.state.store import ANY_VERSION, Conflict, Delete, Put, Store
from tests.state.places import WAIT_S, Place, described, eventually, refused, texts, vm


def noise(count: int) -> str:
    """Text that hardly shrinks when it is compressed: to 81 %."""
    return base64.b85encode(random.Random(1).randbytes(count)).decode()[:count]


def test_begins_empty(store: Store) -> None:
    assert store.snapshot().revision == 0
    assert list(store.snapshot().rows(vm_pb2.Vm)) == []
    assert store.snapshot().find(vm_pb2.Vm, "vms/web") is None
    assert store.commit([]) == 0


def test_a_commit_is_seen_when_it_returns(store: Store) -> None:
    revision = store.commit([Put(vm("web", "one"))])
    row = store.snapshot().find(vm_pb2.Vm, "vms/web")
    assert row is not None
    assert (row.spec.description, row.meta.etag) == ("one", str(revision))
    assert store.snapshot().revision == revision == 1
    assert store.snapshot().named("vms/web") is row


def test_a_snapshot_never_changes(store: Store) -> None:
    store.commit([Put(vm("web", "one"))])
    before = store.snapshot()
    store.commit([described(store, "web", "two"), Put(vm("db"))])
    assert [row.spec.description for row in before.rows(vm_pb2.Vm)] == ["one"]
    assert before.revision == 1


def test_what_is_handed_in_stays_the_callers(store: Store) -> None:
    mine = vm("web", "one")
    store.commit([Put(mine)])
    mine.spec.description = "changed later"
    assert mine.meta.etag == ""
    assert texts(store) == {"vms/web": "one"}


def test_rows_of_a_kind_come_by_name_and_parent(store: Store) -> None:
    names = ["vms/b/snapshots/1", "vms/a/snapshots/2", "vms/a/snapshots/1", "vms/ab/snapshots/1"]
    store.commit([Put(vm_pb2.VmSnapshot(name=name)) for name in names] + [Put(vm("a"))])
    snapshot = store.snapshot()
    assert [row.name for row in snapshot.rows(vm_pb2.VmSnapshot)] == sorted(names)
    under = [row.name for row in snapshot.rows(vm_pb2.VmSnapshot, parent="vms/a")]
    assert under == ["vms/a/snapshots/1", "vms/a/snapshots/2"]


def test_making_what_exists_is_a_conflict(store: Store) -> None:
    store.commit([Put(vm("web", "one"))])
    with pytest.raises(Conflict) as conflict:
        store.commit([Put(vm("db")), Put(vm("web", "two"))])
    assert conflict.value.name == "vms/web"
    assert texts(store) == {"vms/web": "one"}
    assert store.snapshot().revision == 1


@pytest.mark.parametrize("etag", ["1", "3", "x"])
def test_writing_another_version_is_a_conflict(store: Store, etag: str) -> None:
    store.commit([Put(vm("web", "one"))])
    store.commit([described(store, "web", "two")])
    with pytest.raises(Conflict):
        store.commit([Put(vm("web", "mine", etag))])
    with pytest.raises(Conflict):
        store.commit([Delete("vms/web", etag)])
    assert texts(store) == {"vms/web": "two"}


def test_changing_what_is_gone_is_a_conflict(store: Store) -> None:
    store.commit([Put(vm("web", "one"))])
    late = described(store, "web", "two")
    store.commit([Delete("vms/web", "1")])
    with pytest.raises(Conflict):
        store.commit([late])
    with pytest.raises(Conflict):
        store.commit([Delete("vms/web", "1")])
    assert texts(store) == {}


def test_a_name_can_be_used_again(store: Store) -> None:
    store.commit([Put(vm("web", "one"))])
    store.commit([Delete("vms/web", "1")])
    assert store.commit([Put(vm("web", "again"))]) == 3
    with pytest.raises(Conflict):
        store.commit([Put(vm("web", "of the first", "1"))])


def test_any_version_writes_and_deletes_whatever_is_there(store: Store) -> None:
    store.commit([Put(vm("web", "one", ANY_VERSION))])
    store.commit([Put(vm("web", "two", ANY_VERSION))])
    assert texts(store) == {"vms/web": "two"}
    store.commit([Delete("vms/web", ANY_VERSION)])
    assert store.commit([Delete("vms/web", ANY_VERSION)]) == 3, "no change, no revision"
    assert texts(store) == {}


def test_a_row_named_twice_is_a_mistake(store: Store) -> None:
    with pytest.raises(AssertionError, match="twice"):
        store.commit([Put(vm("web")), Delete("vms/web", ANY_VERSION)])
    assert store.snapshot().revision == 0


def test_a_row_in_the_wrong_place_is_a_mistake(store: Store) -> None:
    with pytest.raises(AssertionError, match="misplaced"):
        store.commit([Put(vm_pb2.Vm(name="nodes/n1"))])


def test_rows_of_several_kinds_change_together(store: Store) -> None:
    store.commit([Put(vm("web")), Put(cluster_pb2.Node(name="nodes/n1"))])
    store.commit([Delete("vms/web", "1"), Put(vm("db")), Delete("nodes/n1", "1")])
    assert texts(store) == {"vms/db": ""}
    assert list(store.snapshot().rows(cluster_pb2.Node)) == []


def test_too_large_a_row_is_refused(store: Store) -> None:
    with refused("TOO_LARGE"):
        store.commit([Put(vm("small")), Put(vm("web", noise(ROW_BYTES_MAX * 5 // 4)))])
    assert store.snapshot().revision == 0


def test_too_large_a_commit_is_refused(store: Store) -> None:
    half = noise(COMMIT_BYTES_MAX * 5 // 8)
    with refused("TOO_LARGE"):
        store.commit([Put(vm("a", half)), Put(vm("b", half))])
    assert store.snapshot().revision == 0


def test_the_largest_commit_goes_through(store: Store) -> None:
    """One large row, and hundreds of small ones for the rest."""
    large = noise(COMMIT_BYTES_MAX * 7 // 8)
    small = [Put(vm(f"vm-{number}", "x" * 100)) for number in range(250)]
    store.commit([Put(vm("large", large)), *small])
    assert texts(store)["vms/large"] == large
    assert len(texts(store)) == 251


def test_a_watch_sees_every_commit_once_and_in_order(store: Store) -> None:
    watch = store.watch(0)
    store.commit([Put(vm("web", "one")), Put(vm("db"))])
    store.commit([described(store, "web", "two")])
    store.commit([Delete("vms/web", "2")])
    seen = [watch.next(WAIT_S) for _ in range(3)]
    assert watch.next(0.01) is None
    story = [
        (c.revision, [(r.name, text(r.before), text(r.value)) for r in c.rows]) for c in seen if c
    ]
    assert story == [
        (1, [("vms/web", None, "one"), ("vms/db", None, "")]),
        (2, [("vms/web", "one", "two")]),
        (3, [("vms/web", "two", None)]),
    ]


def text(row: object) -> str | None:
    return row.spec.description if isinstance(row, vm_pb2.Vm) else None


def test_a_watch_resumes_after_a_revision(store: Store) -> None:
    for number in range(5):
        store.commit([Put(vm(f"vm-{number}"))])
    watch = store.watch(3)
    resumed = [watch.next(WAIT_S), watch.next(WAIT_S)]
    assert [commit.revision for commit in resumed if commit] == [4, 5]


def test_a_watch_from_the_future_is_refused(store: Store) -> None:
    with refused("REVISION_TOO_OLD"):
        store.watch(1)


def test_a_watch_from_too_long_ago_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = getattr(store, "_mirror", None) or store._cluster.mirror  # type: ignore[attr-defined]
    slow = store.watch(0)
    monkeypatch.setattr(mirror, "_commits", type(mirror._commits)(maxlen=3))
    for number in range(5):
        store.commit([Put(vm(f"vm-{number}"))])
    with refused("REVISION_TOO_OLD"):
        store.watch(1)
    with refused("REVISION_TOO_OLD"):
        slow.next(0.1)
    assert store.watch(2).next(0.1) is not None


def test_a_watch_waits_for_the_next_commit(store: Store) -> None:
    watch = store.watch(0)
    writer = threading.Timer(0.05, lambda: store.commit([Put(vm("web"))]))
    writer.start()
    commit = watch.next(WAIT_S)
    writer.join()
    assert commit is not None
    assert commit.revision == 1


def test_closing_ends_watches_and_writes(store: Store) -> None:
    watch = store.watch(0)
    closer = threading.Timer(0.05, store.close)
    closer.start()
    with refused("STORE_UNAVAILABLE"):
        watch.next(WAIT_S)
    closer.join()
    with refused("STORE_UNAVAILABLE"):
        store.commit([Put(vm("web"))])
    with refused("STORE_UNAVAILABLE"):
        store.acquire("leader", "n1")
    store.close()


def test_listeners_are_woken_until_they_leave(store: Store) -> None:
    woken = threading.Semaphore(0)
    leave = store.on_change(lambda: woken.release())
    store.commit([Put(vm("web"))])
    assert woken.acquire(timeout=WAIT_S)
    lease = store.acquire("leader", "n1")
    assert woken.acquire(timeout=WAIT_S)
    assert lease is not None
    leave()
    while woken.acquire(blocking=False):
        pass
    store.commit([Put(vm("db"))])
    assert not woken.acquire(timeout=0.05)


def test_a_failing_listener_harms_no_commit(store: Store) -> None:
    def broken() -> None:
        raise RuntimeError("a mistake")

    store.on_change(broken)
    assert store.commit([Put(vm("web"))]) == 1


def test_wait_returns_at_the_revision_or_says_so(store: Store) -> None:
    store.commit([Put(vm("web"))])
    store.wait(1, 0.01)
    with refused("STORE_UNAVAILABLE"):
        store.wait(2, 0.05)
    writer = threading.Timer(0.05, lambda: store.commit([Put(vm("db"))]))
    writer.start()
    store.wait(2, WAIT_S)
    writer.join()


def test_a_lease_has_one_holder(place: Place, store: Store) -> None:
    lease = store.acquire("nodes/n1", "a")
    assert lease is not None
    assert (lease.name, lease.holder) == ("nodes/n1", "a")
    assert store.acquire("nodes/n1", "a") is lease, "the same again"
    assert store.acquire("nodes/n1", "b") is None
    assert store.acquire("nodes/n2", "b") is not None
    assert dict(store.snapshot().leases) == {"nodes/n1": "a", "nodes/n2": "b"}
    assert place.open().acquire("nodes/n1", "a") is None, "another process"


def test_a_released_lease_can_be_acquired(store: Store) -> None:
    first = store.acquire("leader", "a")
    assert first is not None
    first.release()
    assert dict(store.snapshot().leases) == {}
    second = store.acquire("leader", "a")
    assert second is not None
    first.release()
    assert dict(store.snapshot().leases) == {"leader": "a"}, "an old lease ends no new one"
    assert store.commit([Put(vm("web"))], held_by=second) == 1
    with refused("NOT_LEADER"):
        store.commit([Put(vm("db"))], held_by=first)
    assert texts(store) == {"vms/web": ""}


def test_a_commit_without_changes_proves_a_lease(store: Store) -> None:
    lease = store.acquire("leader", "a")
    assert lease is not None
    assert store.commit([], held_by=lease) == 0
    lease.release()
    with refused("NOT_LEADER"):
        store.commit([], held_by=lease)


def test_a_lease_is_proven_while_it_is_held(place: Place, store: Store) -> None:
    lease = store.acquire("nodes/n1", "nodes/n1")
    assert lease is not None and lease.session == store.session()
    before = store.snapshot().revision
    store.prove(lease, WAIT_S)
    store.touch(WAIT_S)
    assert store.snapshot().revision == before, "neither writes a row"
    assert store.session_timeout_s > 0 and store.proof_lag_s >= 0
    lease.release()
    with refused("NOT_LEADER"):
        store.prove(lease, WAIT_S)
    again = store.acquire("nodes/n1", "nodes/n1")
    assert again is not None
    store.prove(again, WAIT_S)
    with refused("NOT_LEADER"):
        store.prove(lease, WAIT_S)
    store.close()
    with refused("STORE_UNAVAILABLE"):
        store.prove(again, WAIT_S)
    with refused("STORE_UNAVAILABLE"):
        store.touch(WAIT_S)


def test_a_lease_of_a_lost_session_is_not_proven(place: Place, store: Store) -> None:
    lease = store.acquire("nodes/n1", "nodes/n1")
    assert lease is not None
    place.lose_session(store)
    with refused("NOT_LEADER"):
        store.prove(lease, WAIT_S)


def test_anothers_lease_is_not_proven(place: Place, store: Store) -> None:
    """That it is held is true, and no sign of life of the session that holds it."""
    lease = store.acquire("nodes/n1", "nodes/n1")
    assert lease is not None
    with refused("NOT_LEADER"):
        place.open().prove(lease, WAIT_S)


def test_a_lease_passes_on_to_the_heir_of_a_dead_session(place: Place, store: Store) -> None:
    first = store.acquire("nodes/n1", "nodes/n1")
    assert first is not None
    heir = place.open()
    eventually(lambda: "nodes/n1" in heir.snapshot().leases)
    free: list[bool] = []
    forget = heir.on_change(lambda: free.append("nodes/n1" not in heir.snapshot().leases))
    assert heir.acquire("nodes/n1", "nodes/n1") is None
    assert heir.acquire("nodes/n1", "nodes/n1", "0" * 16) is None, "another's is not inherited"
    second = heir.acquire("nodes/n1", "nodes/n1", first.session)
    assert second is not None and second.session == heir.session()
    assert heir.acquire("nodes/n1", "nodes/n1", first.session) is second
    forget()
    assert not any(free), "it was never seen free"
    with refused("NOT_LEADER"):
        store.commit([Put(vm("web"))], held_by=first)
    assert heir.commit([Put(vm("db"))], held_by=second) == 1


def test_a_lease_ends_with_its_session(place: Place, store: Store) -> None:
    session = store.session()
    lease = store.acquire("leader", "a")
    assert lease is not None
    place.lose_session(store)
    with refused("NOT_LEADER"):
        store.commit([Put(vm("web"))], held_by=lease)
    assert store.session() not in ("", session)
    eventually(lambda: not store.snapshot().leases)
    assert store.commit([Put(vm("web"))]) == 1, "the store itself goes on"
    again = store.acquire("leader", "a")
    assert again is not None
    assert again is not lease


def test_a_stale_holder_is_refused_after_another_took_over(place: Place, store: Store) -> None:
    stale = store.acquire("leader", "a")
    assert stale is not None
    place.lose_session(store)
    other = place.open()
    fresh = other.acquire("leader", "b")
    assert fresh is not None
    with refused("NOT_LEADER"):
        store.commit([Put(vm("web", "stale"))], held_by=stale)
    stale.release()
    other.commit([Put(vm("web", "fresh"))], held_by=fresh)
    assert texts(other) == {"vms/web": "fresh"}


def test_closing_gives_up_leases(place: Place, store: Store) -> None:
    other = place.open()
    assert store.acquire("leader", "a") is not None
    eventually(lambda: dict(other.snapshot().leases) == {"leader": "a"})
    store.close()
    eventually(lambda: not other.snapshot().leases)
    assert other.acquire("leader", "b") is not None


def test_other_processes_see_each_commit_whole(place: Place, store: Store) -> None:
    other = place.open()
    halves: list[str] = []

    def look() -> None:
        pair = sorted(texts(other).values())
        if len(pair) != 2 or pair[0] != pair[1]:
            halves.append(str(pair))

    store.commit([Put(vm("a", "0")), Put(vm("b", "0"))])
    other.wait(1, WAIT_S)
    other.on_change(look)
    for number in range(1, 20):
        store.commit([described(store, "a", str(number)), described(store, "b", str(number))])
    other.wait(20, WAIT_S)
    assert halves == []
    assert texts(other) == {"vms/a": "19", "vms/b": "19"}


def test_another_processes_commit_is_a_conflict_and_a_next_revision(
    place: Place, store: Store
) -> None:
    other = place.open()
    store.commit([Put(vm("web", "one"))])
    other.wait(1, WAIT_S)
    mine, theirs = described(store, "web", "mine"), described(other, "web", "theirs")
    assert other.commit([theirs]) == 2
    with pytest.raises(Conflict):
        store.commit([mine])
    assert store.commit([Put(vm("db"))]) == 3
    other.wait(3, WAIT_S)
    assert texts(other) == texts(store) == {"vms/web": "theirs", "vms/db": ""}


def test_a_watch_follows_another_process(place: Place, store: Store) -> None:
    other = place.open()
    watch = other.watch(0)
    for number in range(10):
        store.commit([Put(vm(f"vm-{number}"))])
    seen = [watch.next(WAIT_S) for _ in range(10)]
    assert [commit.revision for commit in seen if commit] == list(range(1, 11))


@pytest.mark.parametrize("stores", [1, 2])
def test_no_update_is_lost(place: Place, store: Store, stores: int) -> None:
    store.commit([Put(vm("count", "0"))])
    all_stores = [store] + [place.open() for _ in range(stores - 1)]
    for one in all_stores:
        one.wait(1, WAIT_S)
    threads = [
        threading.Thread(target=increment, args=(one, 15)) for one in all_stores for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = 4 * 15 * stores
    for one in all_stores:
        one.wait(total + 1, WAIT_S)
        assert texts(one) == {"vms/count": str(total)}
        assert one.snapshot().revision == total + 1


def increment(store: Store, times: int) -> None:
    done = 0
    while done < times:
        try:
            store.commit([counted(store)])
            done += 1
        except Conflict:
            continue


def counted(store: Store) -> Put:
    row = vm_pb2.Vm()
    there = store.snapshot().find(vm_pb2.Vm, "vms/count")
    assert there is not None
    row.CopyFrom(there)
    row.spec.description = str(int(there.spec.description) + 1)
    return Put(row)


def test_labels_and_unicode_survive(store: Store) -> None:
    row = vm("web", "Größe ☃ \N{GRINNING FACE}")
    row.meta.MergeFrom(meta_pb2.Meta(labels={"tier": "gold", "a": "b"}, generation=7))
    store.commit([Put(row)])
    there = store.snapshot().find(vm_pb2.Vm, "vms/web")
    assert there is not None
    assert dict(there.meta.labels) == {"tier": "gold", "a": "b"}
    assert (there.spec.description, there.meta.generation) == (row.spec.description, 7)

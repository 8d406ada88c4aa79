"""Pages, orders and masks."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1.vm_service_pb2 import ListVmsRequest, ListVmsResponse
from pvc.core.v1 import reason_pb2
from pvc.gateway.v1 import token_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1.storage_service_pb2 import (
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    ListVolumesRequest,
    ListVolumesResponse,
)
from services.mesh import query
from services.mesh.errors import PvcError
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from tests.mesh.vms import store_with, vm


def listed(store: MemoryStore, **request: object) -> ListVmsResponse:
    asked = ListVmsRequest(**request)  # type: ignore[arg-type]
    return query.page(store.snapshot(), vm_pb2.Vm, asked, ListVmsResponse)


def walked(store: MemoryStore, **request: object) -> list[str]:
    """Names on all pages, in order."""
    names, token = list[str](), ""
    while True:
        answer = listed(store, page_token=token, **request)
        names += [row.name for row in answer.vms]
        token = answer.next_page_token
        if not token:
            return names


def refusal(**request: object) -> PvcError:
    with pytest.raises(PvcError) as caught:
        listed(store_with(vm("a"), vm("b")), **request)
    return caught.value


def test_a_page_says_how_many_match_and_at_which_revision() -> None:
    store = store_with(vm("a", 1), vm("b", 2), vm("c", 3))
    answer = listed(store, filter="spec.memory.memory_mib >= 2", page_size=1)
    assert [row.name for row in answer.vms] == ["vms/b"]
    assert (answer.total_size, answer.revision) == (2, store.snapshot().revision)
    assert answer.next_page_token


def test_a_hundred_by_default() -> None:
    store = store_with(*(vm(f"vm{i}") for i in range(150)))
    assert len(listed(store).vms) == 100
    assert len(listed(store, page_size=1000).vms) == 150
    assert refusal(page_size=1001).field == "page_size"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(64, 67), st.text(max_size=3)), max_size=30),
    st.integers(1, 7),
    st.sampled_from(
        ["", "name desc", "spec.memory.memory_mib desc, spec.description", "meta.labels.x desc",
         "meta.create_time desc,spec.memory.memory_mib", "spec.vnc, status.state desc, name desc"]
    ),
)  # fmt: skip
def test_pages_cover_every_row_once_in_order(
    rows: list[tuple[int, str]], page_size: int, order_by: str
) -> None:
    vms = []
    for place, (memory_mib, text) in enumerate(rows):
        row = vm(f"vm{place}", memory_mib, x=text)
        row.spec.description = text
        vms.append(row)
    store = store_with(*vms)
    names = walked(store, page_size=page_size, order_by=order_by)
    assert sorted(names) == sorted(row.name for row in vms)
    assert names == [row.name for row in listed(store, page_size=1000, order_by=order_by).vms]


def test_order_is_that_of_the_values() -> None:
    store = store_with(vm("a", 100), vm("b", 300), vm("c", 200), vm("d", 300))
    walk = walked(store, order_by="spec.memory.memory_mib desc, name", page_size=2)
    assert walk == ["vms/b", "vms/d", "vms/c", "vms/a"]
    assert walked(store, order_by="name desc")[0] == "vms/d"


def test_pages_stay_right_while_rows_come_and_go() -> None:
    store = store_with(*(vm(f"m{i}") for i in range(6)))
    first = listed(store, page_size=3)
    last = first.vms[-1]
    store.commit([Delete(last.name, last.meta.etag), Put(vm("a-new")), Put(vm("m9"))])
    second = listed(store, page_size=10, page_token=first.next_page_token)
    assert [row.name for row in second.vms] == ["vms/m3", "vms/m4", "vms/m5", "vms/m9"]


def test_a_token_of_another_query_is_refused() -> None:
    store = store_with(vm("a"), vm("b"))
    token = listed(store, page_size=1).next_page_token
    assert listed(store, page_size=5, page_token=token).vms[0].name == "vms/b"
    for other in ({"filter": "name = x*"}, {"order_by": "name desc"}):
        error = refusal(page_token=token, **other)
        assert error.reason == reason_pb2.REASON_INVALID_QUERY
        assert error.field == "page_token"


def forged(order_by: str, key: object) -> str:
    """A token with the right hash and any key."""
    store = store_with(vm("a"), vm("b"))
    token = listed(store, page_size=1, order_by=order_by).next_page_token
    of, _ = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return base64.urlsafe_b64encode(json.dumps([of, key]).encode()).decode()


@pytest.mark.parametrize("key", [None, [], {}, [1], ["x", "y", "z"], [[1, 2], 3], [None, "a"], "x"])
@pytest.mark.parametrize(
    "order_by", ["", "name desc", "spec.memory.memory_mib", "meta.create_time"]
)
def test_a_forged_token_never_crashes(order_by: str, key: object) -> None:
    error = refusal(order_by=order_by, page_token=forged(order_by, key))
    assert error.reason == reason_pb2.REASON_INVALID_QUERY


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda b: base64.b64encode(b).decode()))
def test_any_text_as_a_token_is_refused(token: str) -> None:
    if token:
        assert refusal(page_token=token).field == "page_token"


def test_tokens_stay_within_what_a_request_may_carry() -> None:
    store = store_with(vm("a"), vm("b"))
    fields = ["spec.description", "meta.labels.x", "spec.machine", "decision.why", "status.why"]
    long = vm("c" * 60, x="\U0001f600" * 250)
    for part in (long.decision, long.status):
        part.why = "\U0001f600" * 250
    long.spec.description = "\U0001f600" * 1000
    store.commit([Put(long)])
    for count in range(1, 6):
        order_by = ",".join(f"{field} desc" for field in fields[:count])
        token = listed(store, page_size=1, order_by=order_by).next_page_token
        assert len(token) <= 1024


@pytest.mark.parametrize(
    ("order_by", "words"),
    [
        ("spec.memori", 'did you mean "memory"'),
        ("spec.tags", "has no order"),
        ("spec.disks.id", "has no order"),
        ("meta.labels", "has no order"),
        ("spec", "has no order"),
        ("name down", "path desc"),
        (",".join(["name"] * 9), "at most 8"),
        ("..", "no field"),
    ],
)
def test_bad_orders_are_refused(order_by: str, words: str) -> None:
    error = refusal(order_by=order_by)
    assert (error.reason, error.field) == (reason_pb2.REASON_INVALID_QUERY, "order_by")
    assert words in error.message


def test_masks() -> None:
    row = vm("a", 512, ("x",), owner="ann")
    row.spec.vnc = False

    def cut(*paths: str) -> vm_pb2.Vm:
        return query.masked(row, FieldMask(paths=paths))

    assert cut() is row
    assert cut("*") == row
    assert cut("name") == vm_pb2.Vm(name="vms/a")
    assert cut("spec.memory.memoryMib").spec.memory.memory_mib == 512
    assert not cut("spec.memory").HasField("status")
    assert cut("spec", "spec.memory.memory_mib", "spec.tags").spec == row.spec
    assert list(cut("spec.tags").spec.tags) == ["x"]
    assert cut("meta.labels").meta.labels == {"owner": "ann"}
    disk = cut("spec.disks.id").spec.disks[0]
    assert (disk.id, disk.volume) == ("root", "")
    assert cut("spec.vnc").spec.HasField("vnc")
    assert not cut("spec.rng").spec.HasField("rng")
    assert not cut("status.guest.host_name").status.HasField("guest")


@pytest.mark.parametrize("path", ["nam", "spec.x", "name.x", "", ".", "meta.labels.x", "spec..cpu"])
def test_unknown_mask_paths_are_refused_by_name(path: str) -> None:
    error = refusal(read_mask=FieldMask(paths=["name", path]))
    assert (error.reason, error.field) == (reason_pb2.REASON_INVALID_FIELD, "read_mask")
    assert f'"{path}"' in error.message


def test_secrets_never_leave() -> None:
    row = token_pb2.Token(name="tokens/a", secret_hash=b"x" * 32)
    for mask in (FieldMask(), FieldMask(paths=["*"]), FieldMask(paths=["name"])):
        assert query.masked(row, mask) == token_pb2.Token(name="tokens/a")
    assert row.secret_hash
    with pytest.raises(PvcError):
        query.masked(row, FieldMask(paths=["secret_hash"]))


def pools() -> MemoryStore:
    store = MemoryStore()
    rows = [storage_pb2.Pool(name=f"pools/{pool}") for pool in ("a", "b", "empty")]
    volumes = [
        storage_pb2.Volume(name=f"pools/{pool}/volumes/{volume}")
        for pool in ("a", "b")
        for volume in ("x", "y")
    ]
    shots = [storage_pb2.Snapshot(name=f"{row.name}/snapshots/s") for row in volumes]
    store.commit([Put(row) for row in (*rows, *volumes, *shots)])
    return store


@pytest.mark.parametrize(
    ("parent", "count"), [("pools/a", 2), ("pools/-", 4), ("pools/empty", 0), ("pools/b", 2)]
)
def test_parents(parent: str, count: int) -> None:
    request = ListVolumesRequest(parent=parent)
    answer = query.page(pools().snapshot(), storage_pb2.Volume, request, ListVolumesResponse)
    assert answer.total_size == len(answer.volumes) == count
    assert all(parent.endswith("-") or row.name.startswith(parent) for row in answer.volumes)


@pytest.mark.parametrize(
    ("parent", "count"),
    [("pools/-/volumes/-", 4), ("pools/-/volumes/x", 2), ("pools/a/volumes/-", 2)],
)
def test_wildcards_in_deep_parents(parent: str, count: int) -> None:
    request = ListSnapshotsRequest(parent=parent, filter="name:*")
    answer = query.page(pools().snapshot(), storage_pb2.Snapshot, request, ListSnapshotsResponse)
    assert answer.total_size == count


@pytest.mark.parametrize(
    ("parent", "reason"),
    [("pools/gone", reason_pb2.REASON_NOT_FOUND), ("pools", reason_pb2.REASON_INVALID_FIELD)],
)
def test_a_missing_parent_is_an_error(parent: str, reason: reason_pb2.Reason.ValueType) -> None:
    request = ListVolumesRequest(parent=parent)
    with pytest.raises(PvcError) as caught:
        query.page(pools().snapshot(), storage_pb2.Volume, request, ListVolumesResponse)
    assert (caught.value.reason, caught.value.field) == (reason, "parent")

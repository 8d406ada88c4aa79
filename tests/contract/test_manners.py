"""Manners that all methods share, found by machine in the contracts: dry runs change nothing,
repeated requests are done once, versions are checked, and what reads the same tells the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.core.v1 import meta_pb2, secret_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc_client import Cluster, errors
from services.coordinator.core.node_edits import secret_name
from services.mesh.contract import rules
from tests.contract.cases import CASES
from tests.contract.stage import Stage
from tests.contract.ways import PUBLIC, Grpc, ended, takes
from tests.contract.whole import Whole


def having(*fields: str) -> list[str]:
    """Methods whose requests have the fields."""
    return sorted(
        name for name, method in PUBLIC.items() if all(takes(method, field) for field in fields)
    )


def holder_of_etag(name: str) -> str:
    """The field of an update that holds the resource with its etag; "" where there is none."""
    method = PUBLIC[name]
    first = method.request.DESCRIPTOR.fields[0]
    if not takes(method, "update_mask") or "meta" not in first.message_type.fields_by_name:
        return ""
    return str(first.name)


HOLDING = {name for name in having("update_mask") if holder_of_etag(name)}
WITH_ETAG = sorted({*having("etag"), *HOLDING})
NAMED = sorted({*having("name"), *HOLDING} - {n for n, m in PUBLIC.items() if m.by_secret})
"""What a secret lets in says nothing of what there is."""
TOLD_ONCE = {"AccessService/CreateToken", "NodeService/AddNode"}
"""Their answers carry a secret that is kept nowhere."""
UNCOUNTED = {"StorageService/DeleteFile", "NodeService/JoinNode"}
"""Asked again they do no harm: a file is gone already, a machine is known by its key."""
WITHOUT_DRY_RUN = {"OperationService/CancelOperation"}
"""Asks a worker to stop; there is nothing to check."""


@pytest.mark.parametrize("name", having("request_id"))
def test_a_change_keeps_its_manners(name: str, whole: Whole, stage: Stage, grpc_way: Grpc) -> None:
    """Nothing changes by a dry run, with another version, for what is not there; then it is done,
    once for however many requests."""
    request = CASES[name](stage)
    request.request_id = stage.fresh("request")
    before = whole.calm()
    _tried_dry(name, grpc_way, copied(request))
    if name in WITH_ETAG:
        _of_another_version(name, grpc_way, copied(request))
    if name in NAMED:
        _of_nothing(name, grpc_way, copied(request))
    assert whole.rows() == before, "nothing was changed"
    first = grpc_way.ask(PUBLIC[name], request)
    ended(whole, first)
    after = whole.calm()
    assert after != before
    _again(name, grpc_way, request, first)
    _reused(name, grpc_way, copied(request))
    assert whole.calm() == after, "it was done once"


def _tried_dry(name: str, grpc_way: Grpc, request: Any) -> None:
    if name in having("validate_only"):
        request.validate_only = True
        answer = grpc_way.ask(PUBLIC[name], request)
        assert not getattr(answer, "name", "").startswith("operations/"), "there is none to find"
        if isinstance(answer, Operation):
            assert answer.stage.startswith("would be accepted: ") and answer.target


def _of_another_version(name: str, grpc_way: Grpc, request: Any) -> None:
    outer = holder_of_etag(name)
    if outer:
        getattr(request, outer).meta.etag = "1"
    else:
        request.etag = "1"
    with pytest.raises(errors.EtagMismatch) as caught:
        grpc_way.ask(PUBLIC[name], request)
    assert caught.value.field.endswith("etag") and "again" in caught.value.message


def _of_nothing(name: str, grpc_way: Grpc, request: Any) -> None:
    outer = holder_of_etag(name)
    thing = getattr(request, outer) if outer else request
    thing.name = f"{thing.name.rpartition('/')[0]}/nowhere"
    with pytest.raises(errors.NotFound) as caught:
        grpc_way.ask(PUBLIC[name], request)
    assert thing.name in caught.value.message
    assert caught.value.field == (f"{outer}.name" if outer else "name")


def _again(name: str, grpc_way: Grpc, request: Any, first: Any) -> None:
    if name in TOLD_ONCE:
        with pytest.raises(errors.AlreadyExists, match=r"by this request before.*(delete|add)"):
            grpc_way.ask(PUBLIC[name], request)
        return
    assert same(grpc_way.ask(PUBLIC[name], request)) == same(first)


def _reused(name: str, grpc_way: Grpc, request: Any) -> None:
    outer = holder_of_etag(name)
    thing = getattr(request, outer) if outer else request
    assert _altered(thing)
    with pytest.raises(errors.RequestIdReused) as caught:
        grpc_way.ask(PUBLIC[name], request)
    assert caught.value.field == "request_id" and "use a new one" in caught.value.message


def _altered(message: Any) -> bool:
    """Changes a value of the message, if it has any."""
    for field, value in message.ListFields():
        if field.name == "request_id" or field.is_repeated:
            continue
        if isinstance(value, Message):
            if _altered(value):
                return True
            continue
        setattr(message, field.name, value + ("x" if isinstance(value, str) else 1))
        return True
    message.max_moves = 7  # all that is left where nothing was given
    return True


def copied(request: Any) -> Any:
    """A request to change."""
    other = type(request)()
    other.CopyFrom(request)
    return other


def same(answer: Any) -> Any:
    """What makes two answers the same: what they are about, not how far it has come."""
    if isinstance(answer, Operation):
        return answer.name, answer.method, answer.target
    answer = copied(answer)
    for field, value in answer.ListFields():
        if isinstance(value, Message) and "meta" in value.DESCRIPTOR.fields_by_name:
            getattr(answer, field.name).ClearField("meta")
    for field in ("meta", "secret"):
        if field in answer.DESCRIPTOR.fields_by_name:
            answer.ClearField(field)
    return answer


def test_every_change_can_be_tried_dry_and_repeated() -> None:
    streams = {"VmService/AttachConsole", "StorageService/UploadFile"}
    changing = {name for name, method in PUBLIC.items() if method.mutates} - streams
    assert changing - set(having("request_id")) == UNCOUNTED
    assert changing - set(having("validate_only")) == UNCOUNTED | WITHOUT_DRY_RUN


@pytest.mark.parametrize("name", sorted({*NAMED} - {*having("request_id")}))
def test_what_is_not_there_is_not_found(name: str, stage: Stage, grpc_way: Grpc) -> None:
    asked = CASES[name](stage)
    first = asked[0] if isinstance(asked, list) else asked
    first.name = f"{first.name.rpartition('/')[0]}/nowhere"
    with pytest.raises(errors.NotFound) as caught:
        grpc_way.ask(PUBLIC[name], asked)
    assert first.name in caught.value.message and caught.value.field == "name"


@pytest.mark.parametrize("name", having("parent"))
def test_what_is_in_nothing_is_not_found(name: str, stage: Stage, grpc_way: Grpc) -> None:
    request = CASES[name](stage)
    outer = "pools/nowhere" if "Volume" in name else "vms/nowhere"
    if "VmSnapshot" not in name and "Snapshot" in name:
        outer = "pools/local/volumes/nowhere"
    request.parent = outer
    with pytest.raises((errors.NotFound, errors.DanglingReference)) as caught:
        grpc_way.ask(PUBLIC[name], request)
    assert outer in caught.value.message and caught.value.field == "parent"


# What reads.

LISTS = having("page_size")
WATCHES = sorted(name for name in PUBLIC if "/Watch" in name)


def rows_of(page: Any) -> list[Any]:
    """The resources of a page."""
    (field,) = [f for f in page.DESCRIPTOR.fields if f.is_repeated]
    return list(getattr(page, field.name))


def populated(name: str, stage: Stage) -> Any:
    """A request to list or watch what has two members at least."""
    make: dict[str, Callable[[], object]] = {
        "ListVms": stage.vm, "ListNetworks": stage.network, "ListImages": stage.image,
        "ListPools": stage.pool, "ListTokens": stage.token, "ListVolumes": stage.volume,
        "ListOperations": stage.operation, "ListEvents": stage.vm,
    }  # fmt: skip
    for _ in range(2):
        make.get(name.partition("/")[2].replace("Watch", "List"), lambda: None)()
    return CASES[name](stage)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_whole_page_by_page_and_ordered(
    name: str, whole: Whole, stage: Stage, grpc_way: Grpc
) -> None:
    method, request = PUBLIC[name], populated(name, stage)
    whole.calm()
    page = grpc_way.ask(method, request)
    names = [row.name for row in rows_of(page)]
    assert names == sorted(names) and page.total_size >= len(names) > 0
    request.page_size = 1
    found = []
    for _ in range(3):
        page = grpc_way.ask(method, request)
        found += [row.name for row in rows_of(page)]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == names[: len(found)]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_filtered_ordered_and_cut_down(
    name: str, whole: Whole, stage: Stage, grpc_way: Grpc
) -> None:
    method, request = PUBLIC[name], populated(name, stage)
    whole.calm()
    first = rows_of(grpc_way.ask(method, request))[0]
    request.order_by = "name desc"
    names = [row.name for row in rows_of(grpc_way.ask(method, request))]
    assert names == sorted(names, reverse=True)
    request.filter = f'name = "{first.name}"'
    request.read_mask.CopyFrom(FieldMask(paths=["name"]))
    (row,) = rows_of(grpc_way.ask(method, request))
    assert row == type(first)(name=first.name)


@pytest.mark.parametrize("name", sorted({*LISTS, *WATCHES}))
@pytest.mark.parametrize(
    ("field", "value"),
    [("filter", "nonsense = 1"), ("filter", "name = ("), ("order_by", "nonsense"),
     ("page_token", "nonsense")],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(
    name: str, field: str, value: str, stage: Stage, grpc_way: Grpc
) -> None:
    if not takes(PUBLIC[name], field):
        return
    request = CASES[name](stage)
    setattr(request, field, value)
    with pytest.raises(errors.InvalidQuery) as caught:
        grpc_way.ask(PUBLIC[name], request)
    assert caught.value.field == field, caught.value.message


@pytest.mark.parametrize("name", having("read_mask"))
def test_a_mask_of_unknown_fields_is_refused(name: str, stage: Stage, grpc_way: Grpc) -> None:
    request = CASES[name](stage)
    request.read_mask.CopyFrom(FieldMask(paths=["nonsense"]))
    with pytest.raises(errors.InvalidRequest) as caught:
        grpc_way.ask(PUBLIC[name], request)
    assert caught.value.field.startswith("read_mask") and "nonsense" in caught.value.message


@pytest.mark.parametrize("name", WATCHES)
def test_get_list_and_watch_agree(name: str, whole: Whole, stage: Stage, grpc_way: Grpc) -> None:
    listing = name.replace("Watch", "List")
    getting = name.replace("Watch", "Get").removesuffix("s")
    asked = populated(listing, stage)
    whole.calm()
    listed = rows_of(grpc_way.ask(PUBLIC[listing], asked))
    *told, bookmark = grpc_way.ask(PUBLIC[name], CASES[name](stage))
    assert bookmark.kind == meta_pb2.CHANGE_KIND_BOOKMARK
    assert {change.kind for change in told} == {meta_pb2.CHANGE_KIND_PRESENT}
    watched = {row.name: row for row in (resource_of(change) for change in told)}
    for row in listed:
        if row.name.startswith(("nodes/", "pools/local/volumes/")) and row.name not in watched:
            continue
        assert watched[row.name] == row
    if getting in PUBLIC:
        for row in listed[:3]:
            request = PUBLIC[getting].request(name=row.name)  # type: ignore[call-arg]
            assert grpc_way.ask(PUBLIC[getting], request) == row


def resource_of(change: Any) -> Any:
    """What a watch's answer is about."""
    (row,) = [v for f, v in change.ListFields() if isinstance(v, Message)]
    return row


@pytest.mark.parametrize("name", WATCHES)
def test_a_watch_goes_on_from_where_it_was(
    name: str, whole: Whole, stage: Stage, grpc_way: Grpc
) -> None:
    request = populated(name, stage)
    whole.calm()
    *_, bookmark = grpc_way.ask(PUBLIC[name], request)
    request.from_revision = bookmark.revision
    told = grpc_way.ask(PUBLIC[name], request)
    assert {change.kind for change in told} == {meta_pb2.CHANGE_KIND_BOOKMARK}


def test_no_answer_carries_a_secret(stage: Stage, grpc_way: Grpc) -> None:
    """Whatever is marked secret is in no answer but the one that makes it."""
    for name in [*LISTS, *WATCHES, *having("name", "read_mask")]:
        answer = grpc_way.ask(PUBLIC[name], CASES[name](stage))
        for one in answer if isinstance(answer, list) else [answer]:
            assert not list(secrets_in(one)), name


def test_the_password_of_a_controller_is_kept_sealed(
    whole: Whole, stage: Stage, cluster: Cluster
) -> None:
    name = stage.controlled_node()
    there = cluster.nodes.get(name)
    assert there.spec.power_control.address and not there.spec.power_control.password
    assert cluster.nodes.check_power(name).on
    assert not [row for row in whole.rows().values() if b"s3cr3t" in row]
    assert b"s3cr3t" not in whole.store.snapshot().named(name).SerializeToString()  # type: ignore[union-attr]
    there.spec.power_control.user, there.meta.etag = "root", ""
    cluster.nodes.update(there, ["spec.power_control"])
    assert cluster.nodes.check_power(name).on, "the password stays when none is given"
    there.spec.power_control.password = "another"
    cluster.nodes.update(there, ["spec.power_control.password"])
    with pytest.raises(errors.PowerFailed, match="refuses the user or the password"):
        cluster.nodes.check_power(name)
    there.spec.ClearField("power_control")
    cluster.nodes.update(there, ["spec.power_control"])
    assert whole.store.snapshot().find(secret_pb2.Secret, secret_name(name)) is None
    with pytest.raises(errors.PowerFailed, match="no controller"):
        cluster.nodes.check_power(name)


def secrets_in(message: Message) -> list[str]:
    """Paths of secret fields that have values."""
    found: list[str] = []
    for field, value in message.ListFields():
        if rules(field).secret:
            found.append(field.full_name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else [value]:
            found += secrets_in(inner)
    return found

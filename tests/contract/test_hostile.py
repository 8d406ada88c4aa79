"""Hostile values in every string of every request: refused with the field named and nothing
changed, or carried as they are. What happened then, happened to no more than that request."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any
from urllib.parse import quote

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.storage.v1 import storage_service_pb2
from pvc_client import Cluster, errors
from tests.contract.cases import CASES
from tests.contract.hostile import VALUES, Place, places
from tests.contract.stage import WAIT_S, Stage
from tests.contract.ways import PUBLIC, Grpc, Rest, takes
from tests.contract.whole import Whole

CLEAN = (
    errors.InvalidRequest, errors.NotFound, errors.Refused, errors.EtagMismatch,
    errors.AlreadyExists, errors.Unauthenticated, errors.PowerFailed,
)  # fmt: skip
FOR_REAL = ("xml", "path")
"""What is not only tried dry."""
CARRIED = ("description", "labels", "request_id", "source_name", "user_data", "meta_data",
           "network_data", "why", "password")  # fmt: skip
"""Fields that may hold anything readable."""
IGNORED = {"name"}
"""The name of what is made from an id."""
MEANINGFUL = {
    ("parent", "wildcard"), ("parent", "wrong kind"), ("node", "wrong kind"),
    ("name", "wrong kind"), ("address", "wrong kind"), ("address", "wildcard"),
    ("nodes", "wrong kind"),
}  # fmt: skip
"""Values that are none of the hostile ones where they fit."""


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_hostile_values_do_nothing(name: str, whole: Whole, stage: Stage, grpc_way: Grpc) -> None:
    asked = CASES[name](stage)
    first = asked[0] if isinstance(asked, list) else asked
    rest = asked[1:] if name == "StorageService/UploadFile" else ()
    before = settled(whole.calm())
    for place in places(first):
        for key, value in place.values.items():
            request = type(first)()
            request.CopyFrom(first)
            place.put(request, value)
            whole_asked = [request, *rest] if isinstance(asked, list) else request
            if takes(PUBLIC[name], "validate_only"):
                request.validate_only = True
            refused = _refused(name, place, key, whole_asked, grpc_way)
            if refused and key in FOR_REAL and takes(PUBLIC[name], "validate_only"):
                request.validate_only = False
                assert _refused(name, place, key, whole_asked, grpc_way)
    assert settled(whole.rows()) == before


def settled(rows: dict[str, bytes]) -> dict[str, bytes]:
    """Without what is remembered of requests that were accepted though their id is strange."""
    return {name: row for name, row in rows.items() if not name.startswith("requests/")}


def _refused(name: str, place: Place, key: str, request: Any, grpc_way: Grpc) -> bool:
    """Whether it was; checks that the refusal names the field, or that it may be accepted."""
    where = f"{name} {place.path} {key}"
    try:
        grpc_way.ask(PUBLIC[name], request)
    except CLEAN as error:
        assert names(error.field, place.path), f"{where}: {type(error).__name__} {error.field}"
        assert error.message and len(error.message) < 2100, where
        assert not set(error.message) & set("\0\x1b\u202e\r"), f"{where}: {error.message!r}"
        return True
    accepted = (
        key == "empty"
        or place.is_text
        or place.field.name in CARRIED
        or (place.field.name in IGNORED and place.path.count(".") == 1)
        or (place.field.name, key) in MEANINGFUL
    )
    assert accepted, f"{where} is accepted"
    return False


def names(field: str, path: str) -> bool:
    """Whether an error's field is the place, or what it is part of: "read_mask" for a path in it,
    "vm.meta.labels" for a key."""
    plain = path.replace("[key]", "")
    return bool(field) and (field.startswith(plain) or plain.startswith(field.split("[")[0]))


ALL = "\n".join(VALUES[key] for key in ("xml", "shell", "path", "yaml", "wrong kind"))


def test_texts_are_carried_as_they_are(whole: Whole, stage: Stage, cluster: Cluster) -> None:
    labels = {VALUES["xml"]: VALUES["shell"], VALUES["path"]: VALUES["yaml"]}
    vm_id = stage.fresh("vm")
    spec = vm_pb2.VmSpec(description=ALL)
    made = cluster.vms.create(vm_id, spec, start=True, labels=labels).result(WAIT_S)
    assert (made.spec.description, dict(made.meta.labels)) == (ALL, labels)
    assert made.status.state == vm_pb2.VM_STATE_RUNNING
    domain = ET.fromstring(cluster.vms.domain_xml(vm_id))
    assert [one.text for one in domain.iter("emulator")] != ["/tmp/x"]
    assert whole.hypervisor.domains()[vm_id].vm == vm_id


@pytest.mark.parametrize(
    "name", sorted(n for n, m in PUBLIC.items() if m.http and takes(m, "name"))
)
def test_hostile_paths_over_rest(name: str, whole: Whole, rest_way: Rest) -> None:
    method = PUBLIC[name]
    assert method.http is not None
    verb = str(method.http.WhichOneof("pattern"))
    template = getattr(method.http, verb)
    before = whole.rows()
    for key in ("xml", "path", "nul", "bidi", "newline"):
        head, _, tail = template.partition("{")
        path = f"{head}{_collection(tail)}{quote(VALUES[key], safe='')}{tail.partition('}')[2]}"
        with pytest.raises(CLEAN):
            rest_way.raw(verb.upper(), path, "{}" if method.http.body else None)
    assert whole.rows() == before


def _collection(variable: str) -> str:
    """The fixed beginning of a path variable: "name=pools/*/volumes/*}" → "pools/a/volumes/"."""
    return variable.partition("=")[2].partition("}")[0].removesuffix("*").replace("*", "a")


def test_after_the_storm_everything_works(whole: Whole, stage: Stage, cluster: Cluster) -> None:
    vm_id = stage.vm_with_disk(on=True)
    cluster.vms.snapshots.create(f"{vm_id}/one").result(WAIT_S)
    cluster.vms.stop(vm_id).result(WAIT_S)
    cluster.vms.snapshots.rollback(f"{vm_id}/one").result(WAIT_S)
    cluster.vms.delete(vm_id, delete_volumes=True).result(WAIT_S)
    image = stage.image()
    cluster.vms.provision(stage.fresh("vm"), image, start=True).result(WAIT_S)
    assert cluster.status().nodes["ONLINE"] > 0
    assert not whole.hypervisor.script("any").start_fails


def test_a_stream_that_is_refused_half_way_says_why(grpc_way: Grpc) -> None:
    """However much of it is still being sent: the service's words are not lost on the way."""
    piece = storage_service_pb2.UploadFileRequest(data=b"x")
    wrong = storage_service_pb2.UploadFileRequest(size_bytes=1000, sha256="x")
    for _ in range(60):
        with pytest.raises(errors.InvalidField) as caught:
            grpc_way.ask(PUBLIC["StorageService/UploadFile"], [wrong, *[piece] * 5])
        assert caught.value.field == "sha256"

"""Rules of the contracts: each one once, then everything hostile in every request."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.coordinator.v1.coordinator_service_pb2 import WaitOperationRequest
from pvc.core.v1 import meta_pb2, options_pb2, reason_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from services.mesh import values
from services.mesh.contract import rules
from services.mesh.errors import PvcError
from services.mesh.validate import (
    MESSAGE_BYTES_MAX,
    changed_immutable,
    check_message,
    check_request,
    check_unchanged,
)
from tests.mesh.contracts import hostile, modules, requests, strings


def refusal(request: Any) -> PvcError:
    with pytest.raises(PvcError) as caught:
        check_request(request)
    return caught.value


def create(vm_id: str = "web", **spec: Any) -> api.CreateVmRequest:
    return api.CreateVmRequest(vm_id=vm_id, vm=vm_pb2.Vm(spec=vm_pb2.VmSpec(**spec)))


IMPORT = api.ImportVmRequest(xml="<domain/>", vm_id="b", volumes={"r": "../x"})


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (create(""), "vm_id", "must be given"),
        (create("We b"), "vm_id", 'must be lower-case letters, digits and hyphens, 1 to 63, not'),
        (create("We b"), "vm_id", '(got "We b")'),
        (create("web\n"), "vm_id", '(got "web\\n")'),
        (create("x" * 64), "vm_id", "at most 63 characters"),
        (api.CreateVmRequest(vm_id="web"), "vm", "must be given"),
        (api.CreateVmRequest(vm_id="web", vm={}), "vm.spec", "must be given"),
        (create(description="a\0b"), "vm.spec.description", "no control characters but tabs"),
        (create(description="\x1b[2J"), "vm.spec.description", "no control characters but tabs"),
        (create(tags=["web", "\u202ebew"]), "vm.spec.tags[1]", "control, format"),
        (create(tags=["cafe\u0301"]), "vm.spec.tags[0]", "NFC"),
        (create(tags=["a", "b", "a"]), "vm.spec.tags[2]", "differ from those before"),
        (create(tags=["a b"]), "vm.spec.tags[0]", "letters, digits, dots"),
        (create(tags=[""]), "vm.spec.tags[0]", "letters, digits, dots"),
        (create(tags=[f"t{i}" for i in range(65)]), "vm.spec.tags", "at most 64 items (got 65)"),
        (create(cpu={"vcpus": 513}), "vm.spec.cpu.vcpus", "be between 1 and 512 (got 513)"),
        (create(cpu={"vcpus": -1}), "vm.spec.cpu.vcpus", "be between 1 and 512"),
        (create(firmware=9), "vm.spec.firmware", "be one of BIOS, UEFI (got 9)"),
        (create(disks=[{"volume": "pools/a/volumes/b"}]), "vm.spec.disks[0].id", "must be given"),
        (
            create(disks=[{"id": "a"}, {"id": "b", "volume": "pools/../volumes/b"}]),
            "vm.spec.disks[1].volume",
            "be the name of a resource, pools/{pool}/volumes/{volume}",
        ),
        (create(disks=[{"id": "a"}, {"id": "a"}]), "vm.spec.disks[1].id", "differ"),
        (
            create(nics=[{"id": "n", "network": "networks/n", "mac": "01:00:5e:00:00:01"}]),
            "vm.spec.nics[0].mac",
            "unicast MAC",
        ),
        (api.GetVmRequest(name="vms/-"), "name", "vms/{vm}"),
        (api.GetVmRequest(name="vms/a/"), "name", "vms/{vm}"),
        (api.GetVmRequest(name="vms/" + "a" * 200), "name", "vms/{vm}"),
        (api.ListVmsRequest(page_size=-1), "page_size", "between 1 and 1000"),
        (api.ListVmsRequest(order_by="x" * 257), "order_by", "at most 256"),
        (api.ListVmsRequest(filter="x" * 2049), "filter", "at most 2048"),
        (api.UpdateVmRequest(), "vm", "must be given"),
        (api.UpdateVmRequest(vm={"spec": {}}), "vm.name", "must be given"),
        (
            api.UpdateVmRequest(vm={"name": "vms/a", "spec": {"disks": [{}]}}),
            "vm.spec.disks[0].id",
            "must be given",
        ),
        (
            api.UpdateVmRequest(vm={"name": "vms/a", "meta": {"labels": {"a\n": "b"}}}),
            "vm.meta.labels",
            "no control characters",
        ),
        (
            api.UpdateVmRequest(vm={"name": "vms/a", "meta": {"labels": {"a": "\x07"}}}),
            'vm.meta.labels["a"]',
            "no control characters",
        ),
        (
            api.UpdateVmRequest(vm={"name": "vms/a", "meta": {"labels": {"": "b"}}}),
            "vm.meta.labels",
            "no empty key",
        ),
        (IMPORT, 'volumes["r"]', "pools/{pool}/volumes/{volume}"),
        (storage_api.CreateVolumeRequest(parent="pools/-"), "parent", "pools/{pool}"),
        (
            storage_api.ResizeVolumeRequest(name="pools/a/volumes/b", size_bytes=1048577),
            "size_bytes",
            "multiple of 512",
        ),
        (storage_api.ResizeVolumeRequest(name="pools/a/volumes/b"), "size_bytes", "must be given"),
        (api.SnapshotOpenVolumesRequest(snapshot_id="a"), "volumes", "must be given"),
        (api.AttachConsoleRequest(data=b"x" * 65537), "data", "at most 65536 bytes"),
        (
            WaitOperationRequest(name="operations/a", timeout={"seconds": 1 << 62}),
            "timeout",
            "years 1 to 9999",
        ),
    ],
)  # fmt: skip
def test_refused(request_: Any, field: str, words: str) -> None:
    error = refusal(request_)
    assert error.reason == reason_pb2.REASON_INVALID_FIELD
    assert error.field == field
    assert error.message.startswith(f"{field} must ") and words in error.message


@pytest.mark.parametrize(
    "request_",
    [
        create("a"),
        create(description="Zeile\n\tzwei ü 🐙", tags=["web", "v1.2_x"]),
        create(cpu={"vcpus": 512}, machine="pc-q35-7.2", disks=[{"id": "cd"}]),
        create(nics=[{"id": "n", "network": "networks/n", "mac": "52:54:00:12:34:56"}]),
        api.UpdateVmRequest(vm={"name": "vms/a", "meta": {"labels": {"Besitzerin": "Zoë"}}}),
        api.ListVmsRequest(),
        api.AttachConsoleRequest(data=b"\0\xff"),
        storage_api.ListVolumesRequest(parent="pools/-"),
        storage_api.ListSnapshotsRequest(parent="pools/-/volumes/-"),
        storage_api.DownloadFileRequest(name="files/a", offset=0),
        WaitOperationRequest(name="operations/a", timeout={"seconds": 5}),
    ],
)
def test_accepted(request_: Any) -> None:
    before = type(request_).FromString(request_.SerializeToString())
    check_request(request_)
    assert request_ == before


def test_what_the_cluster_writes_is_cleared_and_not_refused() -> None:
    request = create()
    request.vm.name = "whatever it is\0"
    request.vm.status.state = 99
    request.vm.decision.node = "\0"
    request.vm.meta.uid = "\0"
    request.vm.meta.etag = "5"
    request.vm.spec.power = vm_pb2.POWER_STATE_RUNNING
    check_request(request)
    assert request == api.CreateVmRequest(
        vm_id="web", vm={"spec": {}, "meta": meta_pb2.Meta(etag="5")}
    )


def test_a_huge_request_is_refused() -> None:
    error = refusal(api.AttachConsoleRequest(data=b"x" * (MESSAGE_BYTES_MAX + 1)))
    assert error.reason == reason_pb2.REASON_TOO_LARGE


def test_hostile_values_are_shown_safely_and_short() -> None:
    message = refusal(create("\u202e\x1b[2J\n" + "x" * 70_000)).message
    assert message.isprintable() and len(message) < 300


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (
            options_pb2.Rules.FORM_IPV4,
            ["10.0.0.1", "255.255.255.255"],
            ["10.0.0.01", "10.0.0", "::1", "10.0.0.1/24", "١0.0.0.1", "1"],
        ),
        (
            options_pb2.Rules.FORM_IPV4_NETWORK,
            ["10.0.0.0/24", "0.0.0.0/0"],
            ["10.0.0.1/24", "10.0.0.0", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "fe80::/10"],
        ),
        (
            options_pb2.Rules.FORM_MAC,
            ["52:54:00:12:34:56"],
            ["52-54-00-12-34-56", "52:54:00:12:34:5G", "01:00:00:00:00:00", "00:00:00:00:00:00"],
        ),
        (
            options_pb2.Rules.FORM_DOMAIN,
            ["example.org", "a", "x1.y-z.de"],
            ["Example.org", "-a.org", "a..b", ".a", "a." * 130 + "a", "a_b", "é.org", "a.org\n"],
        ),
    ],
)
def test_forms(form: options_pb2.Rules.Form.ValueType, good: list[str], bad: list[str]) -> None:
    check = values._FORMS[form]
    assert [x for x in good if check(x)] == []
    assert [x for x in bad if not check(x)] == []


def test_networks_are_checked_by_form() -> None:
    with pytest.raises(PvcError, match="be a domain name") as caught:
        check_message(network_pb2.NetworkSpec(domain="UP"), "network.spec")
    assert caught.value.field == "network.spec.domain"


def test_immutable_fields() -> None:
    before = vm_pb2.Vm(spec={"uuid": "a", "machine": "q35"})
    after = vm_pb2.Vm(spec={"uuid": "a", "machine": "pc"})
    check_unchanged(before, after)
    after.spec.uuid = "b"
    assert changed_immutable(before, after) == "spec.uuid"
    with pytest.raises(PvcError) as caught:
        check_unchanged(before, after, "vm")
    assert caught.value.reason == reason_pb2.REASON_IMMUTABLE_FIELD
    assert caught.value.field == "vm.spec.uuid"


def test_every_pattern_of_the_contracts_compiles() -> None:
    found = 0
    for module in modules():
        for kind in module.DESCRIPTOR.message_types_by_name.values():
            for field in kind.fields:
                found += bool(values.checks_of(field) and rules(field).pattern)
    assert found > 20


@pytest.mark.parametrize("kind", requests(), ids=lambda kind: kind.name)
def test_every_id_in_a_request_has_its_pattern(kind: Descriptor) -> None:
    """Ids become file names, names of snapshots and arguments of the emulator."""
    loose = [
        field.name
        for field in kind.fields
        if field.name.endswith("_id") and field.name != "request_id" and not rules(field).pattern
    ]
    assert not loose


@pytest.mark.parametrize("kind", requests(), ids=lambda kind: kind.name)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_hostile_requests_are_refused_in_words_or_accepted(kind: Descriptor, seed: int) -> None:
    request = hostile(kind, random.Random(seed))
    try:
        check_request(request)
    except PvcError as error:
        assert error.reason in (reason_pb2.REASON_INVALID_FIELD, reason_pb2.REASON_TOO_LARGE)
        assert error.message.isprintable() and len(error.message) < 700
        assert error.field or error.reason == reason_pb2.REASON_TOO_LARGE
    else:
        for field, text in strings(request):
            assert "\0" not in text and "\x1b" not in text, field.full_name
            assert rules(field).text or text.isprintable(), field.full_name

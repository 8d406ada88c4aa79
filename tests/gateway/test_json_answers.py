"""JSON answers, compared with what protobuf's own library makes of the same messages."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from google.protobuf import empty_pb2, json_format, timestamp_pb2
from google.protobuf.any_pb2 import Any as Packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2, vm_service_pb2
from pvc.core.v1 import operation_pb2
from services.gateway.json_answers import Told, dumped, to_json
from services.gateway.methods import METHODS
from tests.gateway.messages import messages
from tests.shell.rows import VMS, parsed

TYPES = {
    kind.DESCRIPTOR.full_name: kind for m in METHODS.values() for kind in (m.request, m.response)
}


def by_the_book(message: Any) -> Any:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


@pytest.mark.parametrize("name", sorted(TYPES))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_answers_are_by_the_book(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(TYPES[name]))
    assert json.loads(dumped(to_json(message))) == by_the_book(message)


@pytest.mark.parametrize(
    "inner", [vm_pb2.Vm(name="vms/a"), timestamp_pb2.Timestamp(seconds=1), empty_pb2.Empty()]
)
def test_what_is_packed_is_shown_with_its_type(inner: Any) -> None:
    operation = operation_pb2.Operation(name="operations/x")
    operation.result.Pack(inner)
    assert to_json(operation) == by_the_book(operation)


def test_what_is_packed_and_unknown_stays_bytes() -> None:
    packed = Packed(type_url="type.googleapis.com/nobody.Knows", value=b"\1")
    assert to_json(packed) == {"@type": packed.type_url, "value": "AQ=="}
    broken = Packed(type_url="type.googleapis.com/pvc.compute.v1.Vm", value=b"\xff")
    assert to_json(broken)["value"] == "/w=="


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 0.1, 1.0])
def test_numbers_that_json_lacks(value: float) -> None:
    verdict = vm_pb2.NodeVerdict(score=value)
    assert to_json(verdict) == by_the_book(verdict)


def test_an_enum_of_a_newer_version_is_a_number() -> None:
    assert to_json(vm_pb2.VmStatus(state=99))["state"] == 99  # type: ignore[arg-type]


def test_a_thousand_vms_take_little_time() -> None:
    page = vm_service_pb2.ListVmsResponse(vms=parsed(vm_pb2.Vm, VMS[0]) * 1000)
    to_json(page)
    began = time.process_time()
    dumped(to_json(page))
    assert time.process_time() - began < 5


def test_a_row_that_was_told_before_is_told_the_same_until_it_changes() -> None:
    page = vm_service_pb2.ListVmsResponse(vms=parsed(vm_pb2.Vm, VMS[0]))
    first = dumped(to_json(page))
    assert dumped(to_json(page)) == first and json.loads(first) == by_the_book(page)
    page.vms[0].spec.description = "another"
    assert json.loads(dumped(to_json(page))) == by_the_book(page)
    # Bytes mean nothing without their type: the same ones are another row elsewhere.
    one, other = vm_pb2.Vm(name="x"), operation_pb2.Operation(name="x")
    told = Told()
    assert one.SerializeToString() == other.SerializeToString()
    assert json.loads(bytes(told.text(one))) == by_the_book(one)
    assert json.loads(bytes(told.text(other))) == by_the_book(other)


def test_what_was_told_takes_no_more_room_than_it_may() -> None:
    told = Told(room_bytes=2_000)
    rows = [vm_pb2.Vm(name=f"vms/{number}") for number in range(100)]
    for row in rows:
        told.text(row)
        assert told.size_bytes <= 2_000
    assert 5 < len(told._kept) < 100
    assert [key[1] for key in told._kept][-1] == rows[-1].SerializeToString()
    huge = vm_pb2.Vm(name="vms/huge", spec=vm_pb2.VmSpec(description="x" * 30_000))
    assert json.loads(bytes(told.text(huge))) == by_the_book(huge)
    assert told.size_bytes == 0

"""Errors: what they carry goes through a Status and back, for every reason."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from pvc.core.v1 import reason_pb2
from services.mesh.edge import on_the_wire
from services.mesh.errors import PvcError, nearest, not_found, refuse, shown

REASONS = [number for number in reason_pb2.Reason.values() if number]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_code_and_comes_back(reason: reason_pb2.Reason.ValueType) -> None:
    error = PvcError(reason, "what, why, what next", field="vm.spec", metadata={"a": "b"})
    assert error.code not in (code_pb2.OK, code_pb2.UNKNOWN)
    again = PvcError.from_status(error.to_status())
    assert (again.reason, again.message) == (reason, error.message)
    assert (again.field, again.metadata) == ("vm.spec", {"a": "b"})
    assert error.grpc_code.value[0] == error.code


def test_refusing_and_not_finding() -> None:
    with pytest.raises(PvcError) as caught:
        refuse(reason_pb2.REASON_BUSY, "x", "f")
    assert (caught.value.reason_name, caught.value.field) == ("BUSY", "f")
    assert not_found("vms/a").message == "vms/a does not exist"


def test_foreign_statuses_become_the_nearest_reason() -> None:
    names = {
        code_pb2.UNAVAILABLE: "UNREACHABLE",
        code_pb2.DEADLINE_EXCEEDED: "DEADLINE",
        code_pb2.UNKNOWN: "INTERNAL",
    }
    for code, name in names.items():
        assert PvcError.from_status(status_pb2.Status(code=code)).reason_name == name


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_shown_is_printable_short_and_quoted(value: str | bytes) -> None:
    text = shown(value, 20)
    assert text.isprintable() and text.startswith('"') and len(text) < 230


def test_shown_keeps_what_people_can_read() -> None:
    assert shown("We b") == '"We b"'
    assert shown('Zoë "x"\n\u202e') == '"Zoë \\"x\\"\\n\\u202e"'


def test_nearest() -> None:
    assert nearest("memry", ["memory", "cpu"]) == '; did you mean "memory"?'
    assert nearest("zzz", ["memory", "cpu"]) == "; there are: cpu, memory"
    assert nearest("zzz", [f"w{i}" for i in range(30)]).endswith(", …")


@pytest.mark.parametrize("length", [10, 500, 3000, 100_000])
def test_any_error_fits_into_trailers(length: int) -> None:
    error = PvcError(reason_pb2.REASON_NO_NODE_FITS, "ü" * length, field="vm")
    details, status = on_the_wire(error)
    assert len(details.encode()) * 3 + len(status) * 4 / 3 < 10_000
    again = PvcError.from_status(status_pb2.Status.FromString(status))
    assert (again.reason, again.field) == (error.reason, "vm")

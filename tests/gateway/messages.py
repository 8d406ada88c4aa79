"""Messages of any type, drawn by hypothesis from their descriptors."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS: dict[int, st.SearchStrategy[Any]] = {
    Field.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    Field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    Field.TYPE_UINT32: st.integers(0, 2**32 - 1),
    Field.TYPE_UINT64: st.integers(0, 2**64 - 1),
    Field.TYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    Field.TYPE_BOOL: st.booleans(),
    Field.TYPE_STRING: TEXT,
    Field.TYPE_BYTES: st.binary(max_size=20),
}
KNOWN: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "google.protobuf.Timestamp": st.fixed_dictionaries(
        {"seconds": st.integers(0, 2**32), "nanos": st.integers(0, 999_999_999)}
    ),
    "google.protobuf.Duration": st.fixed_dictionaries(
        {"seconds": st.integers(0, 2**32), "nanos": st.integers(0, 999_999_999)}
    ),
    "google.protobuf.FieldMask": st.just({"paths": ["name", "spec.max_vcpus"]}),
    "google.protobuf.Any": st.just({}),
}
DEPTH = 4


def messages(kind: Any, depth: int = DEPTH) -> st.SearchStrategy[Any]:
    """Any message of that type."""
    return st.builds(lambda fields: kind(**fields), fields_of(kind.DESCRIPTOR, depth))


def fields_of(descriptor: Any, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    if descriptor.full_name in KNOWN:
        return KNOWN[descriptor.full_name]
    optional = {
        field.name: value_of(field, depth)
        for field in descriptor.fields
        if depth or field.message_type is None
        if field.containing_oneof is None or field is field.containing_oneof.fields[0]
    }
    return st.fixed_dictionaries({}, optional=optional)


def value_of(field: Any, depth: int) -> st.SearchStrategy[Any]:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        value = single(inner.fields_by_name["value"], depth)
        return st.dictionaries(TEXT, value, max_size=2)
    one = single(field, depth)
    return st.lists(one, max_size=2) if field.is_repeated else one


def single(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return fields_of(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return NUMBERS[field.type]

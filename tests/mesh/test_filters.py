"""Filters: what they select, what they refuse, and that no text at all can upset them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.gateway.v1 import token_pb2
from services.mesh.errors import PvcError
from services.mesh.filter_syntax import And, Comparison, Not, Or, parse, render
from services.mesh.filters import compiled
from tests.mesh.vms import vm


def selects(text: str, row: vm_pb2.Vm) -> bool:
    test = compiled(vm_pb2.Vm.DESCRIPTOR, text)
    return test is None or test(row)


WEB = vm("web", 2048, ("web", "prod"), owner="ann")
WEB.spec.description = 'a "quoted" * star'
WEB.status.guest.host_name = "web"
WEB.spec.vnc = False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "status.state = RUNNING",
        "status.state = VM_STATE_RUNNING",
        "status.state:running",
        "status.state != STOPPED",
        'name = "vms/w*"',
        "name = vms/*",
        "name=*eb",
        "name=*s/*",
        "spec.tags:web",
        "spec.tags:w*",
        "NOT spec.tags:db",
        "-spec.tags:db",
        "spec.tags:*",
        "spec.memory.memory_mib >= 2048",
        "spec.memory.memoryMib>2047.5",
        "spec.memory.memory_mib < 2049 AND spec.memory.memory_mib <= 2048",
        "meta.labels.owner = ann",
        "meta.labels.owner:*",
        "meta.labels:owner",
        'meta.labels."owner" = "ann"',
        "meta.labels.nobody != ann",
        "spec.disks.volume = pools/a/volumes/web",
        'spec.disks.volume:"pools/a/*"',
        "meta.create_time > 2026-02-01",
        'meta.create_time = "2026-03-01T13:00:00+01:00"',
        "meta.create_time<=2026-03-01T12:00:00Z",
        "NOT meta.delete_time < 2036-01-01",
        "NOT meta.delete_time:*",
        "status.guest:*",
        "spec.vnc = false",
        "spec.vnc:*",
        "NOT spec.rng:*",
        'spec.description = "a \\"quoted\\" \\* star"',
        "name = nothing OR name = vms/web AND spec.tags:web",
        "(name = nothing OR name = vms/web) AND (spec.tags:web OR spec.tags:db)",
        "NOT (name = a AND name = b)",
    ],
)
def test_selects(text: str) -> None:
    assert selects(text, WEB)


@pytest.mark.parametrize(
    "text",
    [
        "status.state = STOPPED",
        "status.state != RUNNING",
        "name = vms/w",
        'name = "vms/we*eb"',
        "spec.tags:we",
        "spec.tags != web",
        "NOT spec.tags:*",
        "spec.memory.memory_mib > 2048",
        "meta.labels.owner = bob",
        "meta.labels:own",
        "meta.delete_time < 2036-01-01",
        "meta.delete_time >= 1970-01-01",
        "spec.vnc = true",
        "name = vms/web AND spec.tags:db",
        "name = vms/web OR spec.tags:db AND name = x",
        'name < "vms/a"',
    ],
)
def test_leaves_out(text: str) -> None:
    assert not selects(text, WEB)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spec.memori.memory_mib = 1", 'did you mean "memory"?'),
        ("nam = x", 'did you mean "name"?'),
        ("status.state = RUNING", 'did you mean "RUNNING"?'),
        ("status.state > RUNNING", "= or !="),
        ("spec.memory.memory_mib = many", "is a number"),
        ("spec.memory.memory_mib = 1*", "wildcards"),
        ("spec.vnc = yes", "true or false"),
        ("meta.create_time > yesterday", "2026-01-31T12:00:00Z"),
        ("meta.create_time.seconds > 1", "no fields of its own"),
        ("name.x = 1", "no fields of its own"),
        ("status.guest = 1", "status.guest:*"),
        ("meta.labels = 1", "meta.labels:*"),
        ("name", "after name should be"),
        ("name =", "should be a value"),
        ("name = x y", "after y should be"),
        ("name = x OR", "name of a field"),
        ("(name = x", "closing parenthesis"),
        ("name = x)", "AND, OR or the end"),
        ('name = "x', "should be a value"),
        ("AND", "name of a field"),
        ("(" * 100 + "name=x" + ")" * 100, "nested"),
        ("NOT " * 100 + "name=x", "nested"),
    ],
)
def test_refuses_in_words(text: str, words: str) -> None:
    with pytest.raises(PvcError) as caught:
        selects(text, WEB)
    assert caught.value.reason == reason_pb2.REASON_INVALID_QUERY
    assert caught.value.field == "filter"
    assert words in caught.value.message


def test_numbered_and_secret_fields() -> None:
    refused = pytest.raises(PvcError, match='no field "secret_hash"')
    with refused as caught:
        compiled(token_pb2.Token.DESCRIPTOR, "secret_hash:*")
    assert "secret" not in caught.value.message.partition(";")[2]
    test = compiled(operation_pb2.Operation.DESCRIPTOR, "percent >= 50 AND request:*")
    assert test is not None
    operation = operation_pb2.Operation(percent=60)
    assert not test(operation)
    operation.request.Pack(operation)
    assert test(operation)


def test_hostile_wildcards_take_no_time() -> None:
    row = vm("a")
    row.spec.description = "a" * 1024
    began = time.perf_counter()
    assert not selects('spec.description = "' + "*a" * 500 + '*b"', row)
    assert time.perf_counter() - began < 10, "it would take years if it tried every way"


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("AND", "OR", "NOT")
)
keys = st.one_of(names, st.text(min_size=1, max_size=5))
comparisons = st.builds(
    Comparison,
    st.tuples(names, keys) | st.tuples(names),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", ":"]),
    st.lists(st.text(max_size=6), min_size=1, max_size=3).map(tuple),
)
trees = st.recursive(
    comparisons,
    lambda below: st.one_of(
        st.builds(Not, below),
        st.builds(And, st.lists(below, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(below, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(trees)
def test_what_is_rendered_parses_to_the_same(tree: Comparison | Not | And | Or) -> None:
    assert parse(render(tree)) == tree


WORDS = [
    *["name", "spec.tags", "meta.labels.a", "status.state", "meta", "spec", ".", "AND", "OR"],
    *[
        "NOT",
        "(",
        ")",
        "=",
        "<",
        ":",
        "!=",
        '"',
        "'",
        "*",
        "\\",
        "1",
        "-",
        " ",
        "\0",
        "é",
        "\u202e",
    ],
]


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        selects(text, WEB)
    except PvcError as error:
        assert error.reason == reason_pb2.REASON_INVALID_QUERY
        assert error.message.isprintable()

"""Columns, orders and filters by the names that people use."""

from __future__ import annotations

from typing import Any

import click
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.filter_syntax import parse
from services.mesh.filters import compiled
from services.mesh.order import ordered as server_order
from shell import columns, fields
from shell.choices import Unknown, order_by, ordered, picked, sort_keys
from shell.filters import BadFilter, Words, translated
from shell.render import View, json_text, many, one, told_of
from tests.shell.rows import AROUND, NOW, ROWS, node_columns

VM = vm_pb2.Vm.DESCRIPTOR
WORDS = Words(columns.VM, VM, "vms", NOW)


def names(rows: list[Any]) -> list[str]:
    return [row.name.rpartition("/")[2] for row in rows]


def sorted_names(text: str, kind: str = "vm") -> list[str]:
    rows, told = ROWS[kind]
    return names(ordered(rows, sort_keys(told, rows[0].DESCRIPTOR, text), View(now=NOW)))


@pytest.mark.parametrize(
    ("asked", "titles"),
    [
        ("name,state", ["NAME", "STATE"]),
        ("Node, MEMORY", ["NODE", "MEMORY"]),
        ("tag,address,ip", ["TAGS", "ADDRESS", "ADDRESS"]),
        ("host-name,HOST_NAME", ["HOST NAME", "HOST NAME"]),
        ("spec.cpu.vcpus,spec.memory.memoryMib", ["SPEC.CPU.VCPUS", "SPEC.MEMORY.MEMORYMIB"]),
        ("meta.labels.owner", ["META.LABELS.OWNER"]),
    ],
)
def test_columns_by_any_of_their_names(asked: str, titles: list[str]) -> None:
    assert [column.title for column in picked(columns.VM, VM, asked)] == titles


def test_columns_beside_the_usual_ones() -> None:
    usual = [column.title for column in columns.VM if column.level == 0]
    shown = [column.title for column in picked(columns.VM, VM, "+uuid,spec.machine")]
    assert shown == [*usual, "UUID", "SPEC.MACHINE"]


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("nam", "'name'"),
        ("stat", "'state'"),
        ("vcpu_s", "'cpus'"),
        ("spec.memroy", "'spec.memory'"),
        ("spec.cpu.vcpu", "'spec.cpu.vcpus'"),
        ("memory_mib", "'spec.memory.memory_mib'"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_what_is_near(asked: str, near: str) -> None:
    with pytest.raises(Unknown, match="no column or field") as refused:
        picked(columns.VM, VM, f"name,{asked}")
    assert near in refused.value.format_message()


def test_secrets_are_no_columns() -> None:
    controller = cluster_pb2.Node.DESCRIPTOR
    found = [path for path in fields.paths(controller) if "password" in path or "secret" in path]
    assert found == []
    with pytest.raises(click.UsageError):
        picked(columns.VM, VM, " , ")


def test_every_column_shows_a_field_that_exists() -> None:
    """The paths of columns are words of the contract."""
    for kind, (rows, told) in ROWS.items():
        for column in told:
            if column.path:
                field = fields.find(rows[0].DESCRIPTOR, column.path)
                assert field.path == column.path, f"{kind} {column.title}"


@pytest.mark.parametrize("kind", ROWS)
def test_every_path_of_every_kind_can_be_a_column(kind: str) -> None:
    rows, told = ROWS[kind]
    descriptor = rows[0].DESCRIPTOR
    every = ",".join(fields.paths(descriptor))
    chosen = picked(told, descriptor, every)
    for format in ("table", "csv", "json", "yaml"):
        assert many(rows, chosen, View(format, 10_000, chosen=True))


def test_a_chosen_column_for_programs_is_its_value() -> None:
    rows, told = ROWS["vm"]
    chosen = picked(told, VM, "name,memory,spec.cpu.vcpus,spec.tags,status.state,meta.create_time")
    assert json_text(told_of(rows[0], chosen, View(chosen=True))) == (
        '{"name": "web", "memory": "768M", "spec.cpu.vcpus": 2, "spec.tags": ["prod", "web"], '
        '"status.state": "VM_STATE_RUNNING", "meta.create_time": "2027-01-15T05:58:20Z"}'
    )
    bare = View(header=False, chosen=True)
    assert one(rows[0], picked(told, VM, "memory,address"), bare) == "768M\n10.64.0.10\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name", ["db", "hostile", "moving", "new", "web"]),
        ("-name", ["web", "new", "moving", "hostile", "db"]),
        ("-memory", ["db", "moving", "new", "web", "hostile"]),
        ("memory desc", ["db", "moving", "new", "web", "hostile"]),
        ("spec.cpu.vcpus,-spec.memory.memory_mib", ["moving", "new", "web", "db", "hostile"]),
        ("state,name", ["db", "moving", "web", "hostile", "new"]),
        ("uptime", ["web", "db", "moving", "new", "hostile"]),
    ],
)
def test_orders(text: str, expected: list[str]) -> None:
    assert sorted_names(text) == expected


def test_computed_columns_sort_by_how_large_they_are() -> None:
    rows, _ = ROWS["node"]
    told = node_columns.columns(AROUND)
    for text, expected in (
        ("-vms", ["n1", "n2", "n3", "n4"]),
        ("memory", ["n2", "n1", "n3", "n4"]),
    ):
        keys = sort_keys(told, rows[0].DESCRIPTOR, text)
        assert names(ordered(rows, keys, View())) == expected
        assert order_by(keys, rows[0].DESCRIPTOR) is None, "only this side can tell"


@pytest.mark.parametrize("text", ["-memory,name", "-cpus", "age", "name desc", "uptime", "name"])
def test_the_cluster_sorts_as_this_side_does(text: str) -> None:
    rows, told = ROWS["vm"]
    there = [row for row in rows if row.status.HasField("start_time") or "time" not in text]
    there = there if text == "uptime" else rows[:3]
    keys = sort_keys(told, VM, text)
    order = order_by(keys, VM)
    assert order is not None
    theirs = sorted(there, key=server_order(VM, order).key)
    mine = ordered(sorted(there, key=lambda row: row.name), keys, View(now=NOW))
    assert names(mine) == names(theirs)


def matching(text: str, words: Words = WORDS, kind: str = "vm") -> list[str]:
    """The names of the rows that pass, as the cluster has it."""
    test = compiled(words.kind, translated(text, words))
    return [name for row in ROWS[kind][0] if test is None or test(row)
            for name in names([row])]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["web", "db", "moving", "new", "hostile"]),
        ("state=running", ["web", "moving"]),
        ("state=running memory>2G", ["moving"]),
        ("state=RUNNING AND memory <= 768M", ["web"]),
        ("state=running,crashed", ["web", "db", "moving"]),
        ("state!=running,crashed", ["new", "hostile"]),
        ("tag:web", ["web"]),
        ("tag:w*", ["web"]),
        ("NOT tag:*", ["db", "moving", "new"]),
        ("-tag:*", ["db", "moving", "new"]),
        ("node=n1", ["web", "db", "moving"]),
        ("node=nodes/n1", ["web", "db", "moving"]),
        ("node=n*", ["web", "db", "moving"]),
        ("name=web", ["web"]),
        ("name=vms/web", ["web"]),
        ("name~ov", ["moving"]),
        ("description~'far too'", ["web"]),
        ("age>1h", ["web", "db", "moving"]),
        ("age<1h", []),
        ("uptime<5m", ["web"]),
        ("created<2030-01-01", ["web", "db", "moving"]),
        ("label.owner=ann", ["web", "db", "moving"]),
        ("cpus>=2 (state=crashed OR tag:prod)", ["web", "db"]),
        ("status.state = CRASHED OR spec.cpu.vcpus = 2", ["web", "db"]),
        ("meta.labels.owner = ann", ["web", "db", "moving"]),
        ("firmware=uefi", ["web"]),
        ("disk:web-root", ["web"]),
        ("disk=local/web-root", ["web"]),
        ('description="a*"', ["hostile"]),
    ],
)
def test_filters(text: str, expected: list[str]) -> None:
    assert matching(text) == expected


def test_filters_on_what_is_inside_of_others() -> None:
    words = Words(columns.VOLUME, storage_pb2.Volume.DESCRIPTOR, "pools/*/volumes", NOW)
    for text in ("name=web-root", "name=local/web-*", "size>=20G", "used>=700M", "pool~loc"):
        if text.startswith("pool"):
            continue
        assert matching(text, words, "volume") == ["web-root"], text
    assert matching("state=failed", words, "volume") == ["bad"]


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("stat=running", 0, "Did you mean 'state'"),
        ("state=running memroy>2G", 14, "Did you mean 'memory'"),
        ("state=runing", 6, "Did you mean 'running'"),
        ("state", 0, "after state should be one of"),
        ("memory>lots", 7, "is no size"),
        ("memory>", 7, "here should be a value"),
        ("cpus=many", 5, "is a number"),
        ("(state=running", 0, "is not closed"),
        ("state=running)", 13, "no parenthesis"),
        ("AND state=running", 0, "name of a column or field"),
        ("state=running AND", 17, "name of a column or field"),
        ("description='a", 12, "quote is not closed"),
        ("age=1h", 4, "ages are compared with"),
        ("memory~2", 7, "looks into texts"),
        ("move=x", 0, "made of several things"),
        ("state=running,", 14, "here should be a value"),
        ("status=running", 7, "status has several fields. Did you mean 'state'"),
        ("meta.labels=ann", 12, "Did you mean 'meta.labels.KEY'"),
    ],
)
def test_what_is_wrong_in_a_filter_is_shown_where_it_is(text: str, at: int, what: str) -> None:
    with pytest.raises(BadFilter) as refused:
        translated(text, WORDS)
    message, shown, caret = refused.value.format_message().split("\n")
    assert what in message
    assert shown == f"  {text}" and caret.index("^") == at + 2


def test_quotes_stay_texts() -> None:
    words = Words(columns.VM, VM, "vms", NOW)
    assert translated("""description='say "a"'""", words) == (
        'spec.description = "say \\"a\\""'
    )  # fmt: skip
    row = text_format.Parse('name: "vms/q" spec { description: "say \\"a\\"" }', vm_pb2.Vm())
    test = compiled(VM, translated("""description='say "a"'""", words))
    assert test is not None and test(row)


WRITTEN = st.lists(
    st.sampled_from(
        ["state", "memory", "tag", "name", "age", "label.a", "spec.cpu.vcpus", "=", "!=", ">", ":",
         "~", "running", "2G", "1h", "web*", '"a b"', "'", '"', "(", ")", " ", " AND ", " OR ",
         " NOT ", "-", ",", "\\", "*", ".", "\n", "é"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=500)
@given(st.one_of(WRITTEN, st.text(max_size=30)))
def test_whatever_is_written_is_refused_in_words_or_understood_by_the_cluster(text: str) -> None:
    try:
        query = translated(text, WORDS)
    except click.UsageError as refused:
        assert "--filter: " in refused.format_message()
        return
    parse(query)

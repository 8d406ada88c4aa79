"""What follows from rows is the same whether it was kept along or made anew, and only rows that
changed are looked at."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from services.state.table import BEHIND_MAX, BY_NAME, Extract, Following, Index, Row, Table

NAMES = st.sampled_from([f"vms/{letter}" for letter in "abcdef"])
TAGS = st.none() | st.lists(st.sampled_from(["x", "y", "z"]), max_size=3)
STORIES = st.lists(st.tuples(NAMES, TAGS, st.booleans()), max_size=100)


def row(name: str, tags: Sequence[str], text: str = "") -> vm_pb2.Vm:
    return vm_pb2.Vm(name=name, spec=vm_pb2.VmSpec(tags=tags, description=text))


def commit(table: Table, name: str, value: Message | None) -> Table:
    return table.changed((Row(name, value, table.get(name)),))


def tags_of(vm: vm_pb2.Vm) -> tuple[str, ...] | None:
    return tuple(vm.spec.tags) or None


TAGGED = Extract(vm_pb2.Vm, tags_of)
BY_TAG = Index(vm_pb2.Vm, lambda vm: vm.spec.tags)
ALL: tuple[Following[object], ...] = (BY_NAME, TAGGED, BY_TAG)


@given(STORIES)
def test_kept_along_it_is_what_it_would_be_anew(
    story: list[tuple[str, list[str] | None, bool]],
) -> None:
    table, model = Table({}), dict[str, Message]()
    for name, tags, asked in story:
        table = commit(table, name, None if tags is None else row(name, tags))
        model.pop(name, None)
        if tags is not None:
            model[name] = row(name, tags)
        if asked:
            assert [table.follow(what) for what in ALL] == [Table(model).follow(x) for x in ALL]
    assert list(table.items()) == sorted(model.items()) and len(table) == len(model)
    assert [table.follow(what) for what in ALL] == [Table(model).follow(what) for what in ALL]


def test_the_table_before_stays_as_it_was() -> None:
    before = commit(Table({}), "vms/a", row("vms/a", ["x"]))
    assert before.follow(BY_TAG).get("x") == (row("vms/a", ["x"]),)
    after = commit(before, "vms/a", row("vms/a", ["y"]))
    assert not after.follow(BY_TAG).get("x") and after.follow(TAGGED).values == (("y",),)
    assert before.follow(BY_TAG).get("x") == (row("vms/a", ["x"]),)
    assert before.follow(TAGGED).values == (("x",),) and "vms/a" in before


def test_only_rows_that_changed_are_looked_at() -> None:
    looked: list[str] = []

    def make(vm: vm_pb2.Vm) -> str:
        looked.append(vm.name)
        return vm.spec.description

    what = Extract(vm_pb2.Vm, make)
    table = Table({name: row(name, []) for name in (f"vms/{i:04}" for i in range(1000))})
    table.follow(what)
    looked.clear()
    table = commit(table, "vms/0500", row("vms/0500", [], "new"))
    assert table.follow(what).values[500] == "new"
    assert set(looked) == {"vms/0500"}


def test_it_is_the_same_object_as_long_as_it_says_the_same() -> None:
    table = Table({name: row(name, ["x"]) for name in ("vms/a", "vms/b")})
    tagged, names = table.follow(TAGGED), table.follow(BY_NAME).names
    indexed = table.follow(BY_TAG)
    table = commit(table, "vms/a", row("vms/a", ["x"], "another text"))
    assert table.follow(TAGGED) is tagged and table.follow(BY_NAME).names is names
    table = commit(table, "vms/c", row("vms/c", ["y"]))
    assert table.follow(BY_TAG)["x"][0].spec.description == "another text"
    before = table.follow(BY_TAG)["x"]
    table = commit(table, "vms/c", row("vms/c", ["z"]))
    assert table.follow(BY_TAG)["x"] is before and indexed["x"] is not before


def test_what_nobody_asks_for_is_not_kept_along_for_ever() -> None:
    table = Table({"vms/a": row("vms/a", ["x"])})
    table.follow(TAGGED)
    for number in range(BEHIND_MAX):
        table = commit(table, "vms/a", row("vms/a", ["x"], str(number)))
    assert len(table._behind[TAGGED][1]) == BEHIND_MAX
    table = commit(table, "vms/a", row("vms/a", ["y"]))
    assert TAGGED not in table._behind and table.follow(TAGGED).values == (("y",),)


def test_what_cannot_be_made_of_a_row_is_told_to_whoever_asks_and_to_nobody_else() -> None:
    what = Extract(vm_pb2.Vm, lambda vm: 1 // len(vm.spec.tags))
    table = Table({"vms/a": row("vms/a", ["x"])})
    table.follow(what)
    table = commit(table, "vms/a", row("vms/a", []))
    for _ in range(2):
        try:
            table.follow(what)
        except ZeroDivisionError:
            continue
        raise AssertionError("it was said all the same")
    assert commit(table, "vms/a", row("vms/a", ["x", "y"])).follow(BY_TAG)["y"]

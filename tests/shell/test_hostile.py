"""Whatever a guest or a user wrote: no format lets it reach the terminal, none loses it."""

from __future__ import annotations

import csv
import io
import json
import unicodedata

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from shell import columns, render
from shell.choices import picked
from shell.render import FORMATS, View

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HOSTILE = "\x1b[2J\x07\x9b31m\x7f\u202e\u200b\U000e0001\r\n\tend"


def vm(text: str) -> vm_pb2.Vm:
    row = vm_pb2.Vm(name="vms/x")
    row.spec.description = text
    row.spec.tags.append(text)
    row.status.guest.os = text
    row.meta.labels[text] = text
    return row


def obeyed(text: str) -> list[str]:
    return [one for one in text if one != "\n" and unicodedata.category(one) in render.HOSTILE]


@given(TEXTS)
@example(HOSTILE)
def test_no_format_lets_anything_through(text: str) -> None:
    row = vm(text)
    for format in FORMATS:
        for view in (View(format), View(format, chosen=True), View(format, header=False)):
            shown = render.many([row], columns.VM, view) + render.one(row, columns.VM, view)
            assert not obeyed(shown), format


@given(TEXTS)
@example(HOSTILE)
def test_formats_for_programs_lose_nothing(text: str) -> None:
    row = vm(text)
    shown = json.loads(render.one(row, columns.VM, View("json")))
    assert shown["spec"]["description"] == text
    shown = yaml.safe_load(render.one(row, columns.VM, View("yaml")))
    assert shown["spec"]["description"] == text and shown["meta"]["labels"] == {text: text}


@given(TEXTS)
def test_a_cell_of_csv_is_one_cell(text: str) -> None:
    chosen = picked(columns.VM, vm_pb2.Vm.DESCRIPTOR, "name,spec.description,tags")
    shown = render.many([vm(text)], chosen, View("csv", chosen=True))
    lines = list(csv.reader(io.StringIO(shown)))
    assert [len(line) for line in lines] == [3, 3]


@given(TEXTS, st.integers(10, 200))
@example("\u2028", 80)
def test_no_table_is_broken_by_a_wide_text(text: str, width: int) -> None:
    shown = render.many([vm(text), vm("plain")], columns.VM, View("table", width))
    assert len(shown.splitlines()) == 3

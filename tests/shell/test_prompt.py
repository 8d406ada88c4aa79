"""The parts of the prompt without a terminal: help pane, status line, colours of a line, history,
pager, what was left behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pvc.compute.v1.vm_pb2 import Vm
from pvc.core.v1.operation_pb2 import Operation
from shell.live import Link, Rows
from shell.main import pvc
from shell.prompt import pager
from shell.prompt.jobs import Jobs, sentence
from shell.prompt.kinds import KINDS
from shell.prompt.lexer import LineLexer
from shell.prompt.offers import spot_of
from shell.prompt.pane import LINES_MAX, pane
from shell.prompt.past import KEPT_MAX, Past, found_in, read, without_secrets
from shell.prompt.speech import Plain
from shell.prompt.status import Doing, Fragments, Keys, Picture, status_line
from shell.render import cells_wide


def web() -> Vm:
    row = Vm(name="vms/web")
    row.status.state, row.status.vcpus, row.status.memory_mib = 3, 2, 768
    row.decision.node = "nodes/n1"
    row.spec.tags.append("prod")
    return row


def helped(line: str, width: int = 80, height: int = 20) -> list[str]:
    """The pane for the cursor at the | or the end."""
    at = line.index("¦") if "¦" in line else len(line)
    spot = spot_of(pvc, line.replace("¦", ""), at, Plain())
    found = {("vms", "web"): web()}
    lines = pane(spot, lambda path, name: found.get((path, name)), width, height)
    return ["".join(text for _, text in one).strip() for one in lines]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "Type a command  Tab completes"),
        ("vm", "vm  [OPTIONS] COMMAND [ARGS]..."),
        ("vm star", "vm start  [OPTIONS]"),
        ("vm start", "e.g.  vm start web"),
        ("vm start ", "NAMES"),
        ("vm start web", "State running   Node n1   CPUs 2   Memory 768M   Tags prod"),
        ("vm start w¦eb", "NAMES"),
        ("vm list --format", "-f --format [table|wide|json|yaml|csv|name]  default table"),
        ("vm list -f js", "json          everything, for programs"),
        ("vm list -f json", "json          everything, for programs"),
        ("vm start web --no-wait", "--wait --no-wait  default --wait"),
        ("vm create x --tag ", "--tag TEXT  may be given several times"),
        ("vm fly", "vm  [OPTIONS] COMMAND [ARGS]..."),
        ("vm fly web", "There is no such command here."),
        ("vm list > x", "The file that the answer goes to."),
        ("vm list --filter 'state=running", "running       Running"),
        ("vm list --filter memory>2G state=running", "running       Running"),
        ("vm list state=running", "running       Running"),
        ("vm list --sort -mem¦ory", "--sort NAMES"),
        ("vm list --sort memory", "memory  spec.memory.memory_mib"),
    ],
)
def test_the_pane_tells_of_what_is_under_the_cursor(line: str, expected: str) -> None:
    assert any(expected in text for text in helped(line))


def test_the_pane_fits() -> None:
    for line in ("", "vm create ", "vm create x --", "vm list --filter", "node set"):
        for width, height in ((80, 5), (40, 3), (200, 20)):
            shown = helped(line, width, height)
            assert len(shown) <= min(height, LINES_MAX)
            assert all(cells_wide(text) < width for text in shown), line
    assert "--help tells all" in helped("vm create x --disk ", 80, 1)[0]


def test_nothing_hostile_reaches_the_screen() -> None:
    row = web()
    row.spec.tags.append("\x1b[2Jx")
    spot = spot_of(pvc, "vm start web", 12, Plain())
    told = pane(spot, lambda *_: row, 80, 9)
    assert not any("\x1b" in text for line in told for _, text in line)
    assert "\x1b" not in shown(Picture(Link.UP, name="\x1b[2J", faults=("\x1b[1m",)))


PICTURE = Picture(
    Link.UP, "h:1", "lab", "ok", "n1", 3, 3, 12, 14, Doing("MigrateVm web", 40), 3
)  # fmt: skip


def shown(picture: Picture, width: int = 120, **keys: Any) -> str:
    return text_of(status_line(picture, Keys(**keys), width))


def text_of(line: Fragments) -> str:
    return "".join(text for _, text in line)


def test_the_status_line() -> None:
    assert (
        shown(PICTURE)
        .strip()
        .startswith("lab ok │ leader n1 │ nodes 3/3 │ VMs 12/14 │ MigrateVm web 40% +2")
    )
    assert shown(PICTURE).rstrip().endswith("F2 hide help  F4 emacs")
    assert "vi normal" in shown(PICTURE, vi=True, mode="normal")
    assert "no leader" in shown(Picture(Link.UP, name="lab"))
    assert shown(Picture(address="h:1")).strip().startswith("connecting to h:1 …")


def test_faults_and_a_lost_connection_stand_out() -> None:
    bad = Picture(Link.UP, "h:1", "lab", "error", "n1", 2, 3, faults=("n3 is gone", "b"))
    styles = dict((text, style) for style, text in status_line(bad, Keys(), 120))
    assert styles["n3 is gone +1"] == "class:status.fault"
    assert styles["nodes 2/3"] == "class:status.bad"
    away = Picture(Link.LOST, "h:1", "lab", nodes=3, vms=14)
    assert (
        shown(away).strip().startswith("lab is away, reconnecting … │ last seen: 3 nodes, 14 VMs")
    )
    refused = Picture(Link.REFUSED, "h:1", refused="the token has expired")
    assert "h:1: the token has expired" in shown(refused)


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20])
def test_the_status_line_fits_and_the_cluster_stays(width: int) -> None:
    full = Picture(Link.UP, "h:1", "lab", "warning", "n1", 2, 3, 12, 14, Doing("StartVm x", 5), 9,
                   ("a fault that has a great deal to say about itself " * 4,))  # fmt: skip
    line = shown(full, width, context="vm/web")
    assert cells_wide(line) < width + 1 and line.strip().startswith("lab")


def styles(line: str, rows: Rows | None = None) -> dict[str, str]:
    lexer = LineLexer(pvc, lambda path: rows if path == "vms" else None, Plain())
    return {text: style.removeprefix("class:line.") for style, text, *_ in lexer.styled(line)}


def test_colours_of_a_line() -> None:
    rows = Rows(KINDS["vms"])
    rows.put(web())
    rows.complete()
    found = styles("vm start web old 'x' --no-wait --nope; vm fly # why", rows)
    assert found["vm"] == found["start"] == "command"
    assert (found["web"], found["old"]) == ("name", "missing")
    assert (found["--no-wait"], found["--nope"]) == ("option", "wrong")
    assert (found["fly"], found[";"], found[" # why"]) == ("wrong", "sign", "comment")


def test_a_word_that_is_being_typed_is_not_wrong_yet() -> None:
    rows = Rows(KINDS["vms"])
    rows.complete()
    assert styles("vm sta", rows)["sta"] == ""
    assert styles("vm xyz", rows)["xyz"] == "wrong"
    assert styles("vm start we", rows)["we"] == "value"
    assert styles("vm list --fo", rows)["--fo"] == "option"
    assert styles("vm list -f jsn x", rows)["jsn"] == "wrong"
    assert styles("vm start we ", None)["we"] == "value", "what is not known cannot be missing"


def test_all_of_a_line_keeps_its_text() -> None:
    lexer = LineLexer(pvc, lambda path: None, Plain())
    for line in ("", " ", "vm  list |", "a 'b\nc' \\\n d # e", "!ls | x > y", "vm 'open"):
        assert "".join(text for _, text, *_ in lexer.styled(line)) == line


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("vm list", "vm list"),
        ("bmc set n1 --user root --password hunter2", "bmc set n1 --user root --password"),
        ("bmc set n1 --password=hunter2 --user root", "bmc set n1 --password= --user root"),
        ("x --api-token 'a b' y", "x --api-token  y"),
        ("login ann~01k5f3q8z7x2w4v6t9r1p3m5n7", "login"),
        ("x --token-file /etc/t --secret a | grep b", "x --token-file /etc/t --secret  | grep b"),
        ("vm start web-01k5f3q8z7x2w4v6t9r1p3m5n7", "vm start web-01k5f3q8z7x2w4v6t9r1p3m5n7"),
    ],
)  # fmt: skip
def test_secrets_are_not_kept(line: str, kept: str) -> None:
    assert without_secrets(line) == kept


def test_history_keeps_each_line_once_and_the_newest_last(tmp_path: Path) -> None:
    path = tmp_path / "history"
    past = Past(path)
    for line in ("a", "b\nc", "a", " hidden", "", "x --password y"):
        past.append_string(line)
    assert list(Past(path).load_history_strings()) == ["x --password", "a", "b\nc"]
    assert past.get_strings() == ["b\nc", "a", "x --password"]
    assert "y" not in path.read_text()


def test_history_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"\n# \n+line {n}\n" for n in range(2 * KEPT_MAX + 5)))
    assert len(list(Past(path).load_history_strings())) == KEPT_MAX
    kept = read(path)
    assert (len(kept), kept[-1]) == (KEPT_MAX, f"line {2 * KEPT_MAX + 4}")


def test_history_without_a_place_to_be(tmp_path: Path) -> None:
    for path in (None, tmp_path / "no" / "where"):
        past = Past(path)
        past.append_string("vm list")
        assert past.get_strings() == ["vm list"]


def test_the_search_in_the_history_finds_near_lines_first() -> None:
    lines = ["vm list", "vm start web", "node list", "vm stop web", "vm list"]
    assert [line for line, _ in found_in(lines, "web")] == ["vm stop web", "vm start web"]
    assert [line for line, _ in found_in(lines, "list")] == ["vm list", "node list"]
    assert next(line for line, _ in found_in(lines, "vsw")) == "vm stop web"
    assert found_in(lines, "xyz") == []


def test_what_is_longer_than_the_terminal() -> None:
    assert not pager.is_longer("a\n" * 23, 24, 80)
    assert pager.is_longer("a\n" * 24, 24, 80)
    assert pager.is_longer("a" * 81, 24, 80)
    assert not pager.is_longer("\x1b[31m" + "a" * 78, 24, 80)


def test_which_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager.shutil, "which", lambda word: f"/bin/{word}")
    for wanted, expected in (
        ("", pager.LESS), ("less", pager.LESS), ("cat", ()), ("most -x", ["most", "-x"]),
        ("'broken", pager.LESS),
    ):  # fmt: skip
        monkeypatch.setenv("PAGER", wanted)
        assert list(pager.pager()) == list(expected), wanted
    monkeypatch.setattr(pager.shutil, "which", lambda word: None)
    assert pager.pager() == ()


def operation(state: int, message: str = "") -> Operation:
    row = Operation(name="operations/a", method="pvc.compute.v1.VmService/StartVm")
    row.target, row.state = "vms/web", state  # type: ignore[assignment]
    row.error.message = message
    return row


def test_what_was_left_behind_is_told_once_when_it_ends() -> None:
    rows = Rows(KINDS["operations"])
    going = {"operations/a", "operations/elsewhere"}
    jobs = Jobs(going, lambda: SimpleNamespace(rows=lambda path: rows))  # type: ignore[return-value]
    rows.put(operation(2))
    assert jobs.ended() == []
    rows.put(operation(4, "no node has room"))
    assert jobs.ended() == [(1, "[failed] StartVm web: no node has room")]
    assert jobs.ended() == [] and going == {"operations/elsewhere"}
    assert sentence(operation(3)) == (0, "[done] StartVm web")

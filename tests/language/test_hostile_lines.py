"""Any line whatsoever runs, or is refused with a sentence; the shell never trips over itself."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shell.language.runner import Runner
from shell.language.words import quoted
from tests.contract.whole import Whole

COMMANDS = (
    "vm list", "vm list -f json", "vm list -f name", "vm list --columns name,memory", "vm info web",
    "vm info web -f yaml", "vm dump web", "node list -f wide", "event list -l 5", "whoami",
    "cluster status", "vm list nothing*", "connection list", "history", "set", "alias", "use",
    "use vm web", "unuse", "vm start", "help sort", "vm info nowhere", "network list -f csv",
)  # fmt: skip
STAGES = (
    "grep e", "grep -v e", "grep -i '^NAME'", "where memory>1G", "where state=running", "where a",
    "where name~e OR (cpus>1 NOT tags:prod)", "where age<1h", "where node=*", "where 'x'",
    "where spec.tags=prod", "where spec.nics:x", "where meta.create_time>2020-01-01T00:00:00Z",
    "sort", "sort -memory", "sort name desc", "sort state,-age", "columns name", "columns +state",
    "columns spec.cpu.vcpus,name", "columns ,", "head 1", "head 0", "tail 1", "tail", "count",
    "json", "yaml", "csv", "table", "wide", "name", "grep (", "nope", "head -1", "sort --help",
)  # fmt: skip
stage = st.one_of(
    st.sampled_from(STAGES),
    st.tuples(st.sampled_from(["grep", "where", "sort", "columns", "head"]), st.text(max_size=6))
    .map(lambda pair: f"{pair[0]} {quoted(pair[1])}"),
)  # fmt: skip
lines = st.tuples(st.sampled_from(COMMANDS), st.lists(stage, max_size=4)).map(
    lambda parts: " | ".join([parts[0], *parts[1]])
)
CODES = (0, 1, 2, 3, 4, 5)


@pytest.fixture
def quiet_runner(runner: Runner) -> Runner:
    runner.session.asks = False
    return runner


def said(runner: Runner, line: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = runner.run_line(line)
    runner.is_leaving = False
    return code, out.getvalue() + err.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_stage_behind_every_command(quiet_runner: Runner, command: str) -> None:
    for stage in STAGES:
        for line in (f"{command} | {stage}", f"{command} | where state=x | {stage} | {stage}"):
            quiet_runner.run_line("unuse")
            code, text = said(quiet_runner, line)
            assert code in CODES
            assert "mistake" not in text and "Traceback" not in text, f"{line}\n{text}"


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(line=lines)
def test_any_stages_behind_any_command(quiet_runner: Runner, line: str) -> None:
    code, text = said(quiet_runner, line)
    assert code in CODES
    assert "mistake" not in text and "Traceback" not in text, f"{line}\n{text}"


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(line=st.text(alphabet="ab|;'\"\\$# \n=<&()*>.-x", max_size=30) | st.text(max_size=30))
def test_any_text(
    quiet_runner: Runner, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    quiet_runner.interactive = False
    code, text = said(quiet_runner, line)
    assert code in CODES
    assert "mistake" not in text and "Traceback" not in text, f"{line!r}\n{text}"


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(words=st.lists(st.sampled_from(
    ["vm", "start", "info", "-f", "json", "--", "web", "x", "snapshot", "create", "--all", "tag",
     "add", "use", "watch", "-n", "time", "help", "pvc", "", "--node", "wait", "\\", "ll"]),
    max_size=6))  # fmt: skip
def test_any_words_have_a_place(quiet_runner: Runner, whole: Whole, words: list[str]) -> None:
    quiet_runner.run_line("use vm web")
    found = quiet_runner.expanded(words)
    assert [one for one in found if one not in ("vm", "web")] == [
        one for one in (words[1:] if words[:1] == ["pvc"] else words) if one not in ("vm", "web")
    ]

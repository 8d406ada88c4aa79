"""Whatever is typed, wherever the cursor is: offers, colours, help and history never fail, lose no
letter of the line, and stay within the screen."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shell.language.context import Context
from shell.language.runner import Runner
from shell.language.settings import Settings
from shell.live import Rows
from shell.main import pvc
from shell.prompt.kinds import KINDS
from shell.prompt.lexer import LineLexer
from shell.prompt.offers import OFFERED_MAX, Offers, spot_of
from shell.prompt.pane import pane
from shell.prompt.past import found_in, without_secrets
from shell.render import cells_wide
from shell.session import Session
from tests.shell.test_live import vm
from tests.shell.test_suggest import Known

TYPED = """
vm vms start list info snapshot create volume node operation event use set alias ll watch time help
run big source connection apply web web-2 it's nothing 漢字 é - -- -f -fjson -n --format --format=js
--filter --sort --columns name,state -memory state=running node= memory>2G AND ( ) ' " \\ | > >> ; #
! !ls = $1 where sort grep count json keys vi .."""
WORDS = (*TYPED.split(), "\x1b[2J", "\n", "\t")
LINES = st.lists(
    st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=9
).flatmap(lambda words: st.sampled_from(["", " "]).map(lambda gap: gap.join(words)))  # fmt: skip


@cache
def speech() -> Runner:
    kept = Settings(Path(mkdtemp()) / "shell.toml")
    kept.define("aliases", "ll", "vm list -f wide")
    kept.define("aliases", "two", "vm start $1; vm stop $2")
    kept.define("queries", "big", "vm list --filter 'memory>$1'")
    return Runner(Session("unix:/nowhere"), interactive=True, settings=kept)


@cache
def rows() -> Rows:
    found = Rows(KINDS["vms"])
    for name in ("web", "web-2", "it's"):
        found.put(vm(name))
    found.complete()
    return found


@settings(max_examples=400, deadline=None)
@given(line=LINES, place=st.floats(0, 1), used=st.booleans(), width=st.integers(30, 200))
@example(line="use ", place=1.0, used=True, width=80)
@example(line="two a", place=1.0, used=True, width=80)
@example(line="set keys ", place=1.0, used=False, width=80)
def test_any_line(line: str, place: float, used: bool, width: int) -> None:
    runner = speech()
    runner.used = Context("vm", "vms", "web") if used else Context()
    at = round(place * len(line))
    found = Offers(pvc, Known(), runner).at(line, at)
    assert len(found) <= OFFERED_MAX
    assert all(0 <= offer.back <= at and offer.ready for offer in found)
    pieces = LineLexer(pvc, lambda path: rows() if path == "vms" else None, runner).styled(line)
    assert "".join(text for _, text, *_ in pieces) == line
    shown = pane(spot_of(pvc, line, at, runner), lambda _, name: rows().row(name), width, 7)
    assert len(shown) <= 7
    for one in shown:
        text = "".join(piece for _, piece in one)
        assert cells_wide(text) <= max(width, 42) and "\x1b" not in text and "\n" not in text


@settings(max_examples=200, deadline=None)
@given(line=LINES, secret=st.text("abcdefgh0123456789", min_size=8, max_size=12))
def test_no_secret_is_kept(line: str, secret: str) -> None:
    kept = without_secrets(f"bmc set n1 --password {secret} {line}")
    assert secret not in kept or secret in line
    assert without_secrets(line) == line or len(without_secrets(line)) < len(line)


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(LINES, max_size=20), typed=st.text(max_size=5))
def test_any_search_in_the_history(lines: list[str], typed: str) -> None:
    found = [line for line, _ in found_in(lines, typed)]
    assert len(set(found)) == len(found) and set(found) <= set(lines)

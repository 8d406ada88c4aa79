"""The screen and the language together: contexts, aliases, pipes, settings of a real runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from shell.language.context import Context
from shell.language.runner import Runner
from shell.language.settings import Settings
from shell.main import pvc
from shell.prompt.lexer import LineLexer
from shell.prompt.offers import Offers
from shell.session import Session
from tests.shell.test_suggest import Known


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    settings = Settings(tmp_path / "shell.toml")
    settings.define("aliases", "ll", "vm list -f wide")
    settings.define("queries", "big", "vm list --filter 'memory>$1'")
    return Runner(Session("unix:/nowhere"), interactive=True, settings=settings)


def texts(runner: Runner, line: str) -> list[str]:
    return [offer.text for offer in Offers(pvc, Known(), runner).at(line, len(line))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ll --so", ["--sort"]),
        ("vm list | ", ["where", "sort", "columns"]),
        ("vm list | wh", ["where"]),
        ("vm list | sort -mem", ["memory"]),
        ("vm list | columns na", ["name"]),
        ("vm list | where sta", ["state"]),
        ("vm list | where state = ru", ["running"]),
        ("vm list | where state=ru", ["running"]),
        ("vm list | where node=", ["n1", "n2"]),
        ("ll | where state=ru", ["running"]),
        ("vm list | json > ", ["a file", "folder/"]),
        ("watch vm sta", ["start"]),
        ("watch -n 5 vm list --sta", ["--state"]),
        ("time vm start ", ["web", "web-2", "db"]),
        ("help vm cre", ["create"]),
        ("use v", ["vm", "volume"]),
        ("use vm we", ["web", "web-2"]),
        ("use connection p", ["prod"]),
        ("set ke", ["keys"]),
        ("set keys ", ["emacs", "vi"]),
        ("run b", ["big"]),
        ("unalias ", ["ll"]),
        ("source ", ["a file", "folder/"]),
        ("exi", ["exit"]),
    ],
)
def test_offers(runner: Runner, line: str, expected: list[str]) -> None:
    found = texts(runner, line)
    assert [one for one in found if one in expected] == expected or set(expected) <= set(found)
    assert found[0] in expected


def test_in_a_context(runner: Runner) -> None:
    assert "console" not in texts(runner, "cons")
    runner.used = Context("vm", "vms", "web")
    assert texts(runner, "cons")[0] == "console"
    assert texts(runner, "migrate --time")[0] == "--timeout"
    assert texts(runner, "info ")[0].startswith("--"), "the name is given already"
    assert texts(runner, "info d") == ["db"]
    assert texts(runner, "node rea")[0] == "ready"


def test_colours(runner: Runner) -> None:
    runner.used = Context("vm", "vms", "web")

    def styles(line: str) -> dict[str, str]:
        found = LineLexer(pvc, lambda _: None, runner).styled(line)
        return {text: style.removeprefix("class:line.") for style, text, *_ in found}

    assert styles("use vm web")["use"] == "command"
    assert styles("ll ")["ll"] == "command"
    assert styles("console ")["console"] == "command"
    assert styles("nothing ")["nothing"] == "wrong"
    found = styles("vm list | grep x | nope y > 'z z'")
    assert (found["grep"], found["nope"], found["'z z'"]) == ("command", "wrong", "file")
    assert styles("watch vm list")["list"] == "command"

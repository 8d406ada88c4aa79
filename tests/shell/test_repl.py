"""pvc-shell's entry point: what it takes for a question for help."""

from __future__ import annotations

from shell.repl import asks_for_help


def test_what_only_asks_for_help() -> None:
    for line in ("help", "help vm create", "vm create --help", "vm -h"):
        assert asks_for_help(line)
    for line in ("", "vm list", "vm --help | grep x", "vm --help; vm start web", "# help"):
        assert not asks_for_help(line)

"""Lines that run: pipes, files, context, aliases, saved queries, the shell's own commands."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from shell.language.runner import Runner
from shell.toml_file import TomlFile
from tests.contract.whole import Whole
from tests.language.conftest import Say


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vm list | name", "db\nold\nweb\n"),
        ("vm list | grep -v old | name", "db\nweb\n"),
        ("vm list | grep -i 'RUNN' | name", "web\n"),
        ("vm list | grep -F 'w*b' | name", ""),
        ("vm list | where memory>=1G | sort -memory | name", "db\nweb\n"),
        ("vm list | where 'memory >= 1G AND NOT state=running' | name", "db\n"),
        ("vm list | where memory > 600M cpus<4 | name", "web\n"),
        ("vm list | where name=w* OR name=old | name", "old\nweb\n"),
        ("vm list | where name=web,db | name", "db\nweb\n"),
        ("vm list | where name!=web,db | name", "old\n"),
        ("vm list | where tags:prod state=stopped | name", "db\n"),
        ("vm list | where spec.cpu.vcpus=2 | name", "web\n"),
        ("vm list | where node=n1 (cpus=1 OR cpus=4) | name", "db\nold\n"),
        ("vm list | where spec.tags=* | name", "db\nweb\n"),
        ("vm list | where NOT spec.tags=* | name", "old\n"),
        ("vm list | where name~e | name", "web\n"),
        ("vm list | where age<1h | count", "3\n"),
        ("vm list | where 'age > 1h' | count", "0\n"),
        ("vm list | sort memory desc | head 1 | name", "db\n"),
        ("vm list | sort | tail 1 | name", "web\n"),
        ("vm list | head 0 | name", ""),
        ("vm list | tail 0 | count", "0\n"),
        ("vm list | columns name,memory | csv", "name,memory\ndb,4G\nold,512M\nweb,1G\n"),
        ("vm list -f name | grep e | count", "1\n"),
        ("vm info web | grep -i '^memory: '", "Memory: 1G\n"),
        ("vm info web -f yaml | grep '^name:'", "name: vms/web\n"),
        ("vm dump web | grep -F '<name>' | count", "1\n"),
        ("vm list | name | head 1", "db\n"),
        ("pvc vm list 'w*' | name", "web\n"),
        ("vm list --filter memory>1G -f name", "db\n"),
        ("vm list --filter=memory>=1G memory<4G | name", "web\n"),
        ("vm list memory>600M cpus<4 | name", "web\n"),
        ("vm list -f name --filter memory>1G| head 1", "db\n"),
        ("vms list -f name; node list -f name", "db\nold\nweb\nn1\n"),
        ("vm list | json | where cpus=4 | name", "db\n"),
    ],
)
def test_answers_go_through_stages(say: Say, line: str, expected: str) -> None:
    said = say(line)
    assert (said.code, said.out) == (0, expected), said.err


def test_a_filter_is_no_way_into_a_file(say: Say, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert say("vm list --filter memory>2G -f name > found").code == 0
    assert say("alias large = vm list memory>$1 -f name").code == 0
    assert say("large 2G").out == "db\n"
    assert say("vm list --filter memory>2G>3G").code == 2
    assert say("vm list --filter memory > 2G").code == 2, "with a blank it is a file, as always"
    assert [one.name for one in folder.iterdir()] == ["found"] and Path(
        "found"
    ).read_text() == "db\n"


def test_rows_stay_rows_in_every_format(say: Say) -> None:
    (row,) = json.loads(say("vm list | where cpus=4 | json").out)
    assert row["name"] == "vms/db"
    assert [one["name"] for one in yaml.safe_load(say("vm list | yaml").out)] == [
        "vms/db", "vms/old", "vms/web",
    ]  # fmt: skip
    table = say("vm list | where cpus=4").out.splitlines()
    assert table[0].startswith("NAME") and len(table) == 2


def test_nothing_left_is_said_once(say: Say) -> None:
    said = say("vm list | where memory>1T")
    assert (said.code, said.out, said.err) == (0, "", "nothing found\n")
    assert say("vm list | where memory>1T | json").out == "[]\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vm list | where", "Missing argument 'CONDITION"),
        ("vm list | where state", "after state should be one of"),
        ("vm list | where state=", "is missing at the end"),
        ("vm list | where (state=running", "not closed"),
        ("vm list | where state=running )", "no parenthesis that ) closes"),
        ("vm list | where memory>much", "memory is a number, and 'much' is none"),
        ("vm list | where nope=1", "there is no column or field 'nope'"),
        ("vm list | where memroy=1", "Did you mean 'memory'"),
        ("vm list | sort nope", "there is no column or field 'nope'"),
        ("vm list | columns nope", "there is no column or field 'nope'"),
        ("vm list | grep '('", "is no regular expression"),
        ("vm list | nope", "There is no command 'nope'"),
        ("vm list | head x", "is not a valid integer"),
        ("vm start web | json", "json needs rows"),
        ("vm list | count | where a=1", "where needs rows"),
        ("vm list | 'x", "is not closed"),
        ("nope", "there is no command 'nope'"),
        ("alais ll = vm list", "Did you mean 'alias'"),
        ("vmm list", "Did you mean 'vm"),
        ("use vm web; strat", "Did you mean 'start'"),
        ("--nope", "No such option"),
        ("vm list>f", "leave a blank before >: list > f"),
        ("vm list | json>f", "leave a blank before >: json > f"),
        ("vm info web>f", "leave a blank before >: web > f"),
        ("vm start web --timeout 1>f", "leave a blank before >"),
        ("history>f", "leave a blank before >: history > f"),
        ("nope>f", "leave a blank before >: nope > f"),
        ("use vm web; info>f", "leave a blank before >: info > f"),
        ("time vm info web>f", "leave a blank before >: web > f"),
    ],
)
def test_what_cannot_be_understood(say: Say, line: str, message: str) -> None:
    said = say(line)
    assert said.code == 2
    assert message in said.err
    assert said.out == ""


def test_a_stage_that_does_not_fit_is_refused_before_anything_is_done(
    say: Say, whole: Whole
) -> None:
    before = whole.rows()
    assert say("vm start old | json").code == 2
    assert say("vm start old | nope").code == 2
    assert say("vm start old > /nowhere/at/all").code == 2
    assert whole.rows() == before


def test_files_are_written_whole_or_not_at_all(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    assert say(f"vm list | name > '{file}'").code == 0
    assert file.read_text() == "db\nold\nweb\n"
    again = say(f"node list | name > '{file}'")
    assert again.code == 3 and "write >| instead" in again.err
    assert file.read_text() == "db\nold\nweb\n"
    file.chmod(0o640)
    assert say(f"node list | name >| '{file}'").code == 0
    assert file.read_text() == "n1\n" and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert say(f"vm list -f name >> '{file}'").code == 0
    assert file.read_text() == "n1\ndb\nold\nweb\n"
    failed = say(f"vm info nowhere >| '{file}'")
    assert failed.code == 4 and "was not written" in failed.err
    assert file.read_text() == "n1\ndb\nold\nweb\n"
    assert say(f"vm start old nowhere > '{tmp_path}/never'; ").code == 4
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["a file"]
    assert say("vm stop old --yes").code == 0


def test_files_that_are_none(say: Say, tmp_path: Path) -> None:
    assert "is a folder" in say(f"vm list > {tmp_path}").err
    assert "no folder" in say(f"vm list > {tmp_path}/a/b").err
    assert say("vm list > /dev/null").code == 0
    link = tmp_path / "link"
    (tmp_path / "real").write_text("x")
    link.symlink_to(tmp_path / "real")
    assert say(f"vm list | name >| {link}").code == 0
    assert link.is_symlink() and (tmp_path / "real").read_text() == "db\nold\nweb\n"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    assert say(f"vm list | name > {fifo}").code == 0
    reader.join(60)
    assert got == ["db\nold\nweb\n"]


def test_a_file_nobody_may_write_changes_nothing(say: Say) -> None:
    said = say("vm list >> /proc/version")
    assert said.code == 1 and "/proc/version" in said.err


def test_with_confirm_off_files_are_overwritten(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("before")
    assert say(f"set confirm off; vm list | name > {file}").code == 0
    assert file.read_text() == "db\nold\nweb\n"


def test_context_gives_the_name(say: Say, runner: Runner) -> None:
    assert say("use").out == "nothing is used: use vm NAME\n"
    assert say("use vm web").code == 0
    assert (runner.context, runner.place) == ("vm/web", ("vm",))
    assert say("info | grep '^Name'").out == "Name: web\n"
    assert say("vm info | grep '^Name'").out == "Name: web\n"
    assert say("info db | grep '^Name'").out == "Name: db\n"
    assert say("list | name").out == "db\nold\nweb\n"
    assert say("node list | name").out == "n1\n"
    assert say("modify --add-tag extra").code == 0
    assert say("info -f json | columns tags").code == 0
    assert say("snapshot create before").out == "snapshot web/before is taken\n"
    assert say("snapshot list | count").out == "1\n"
    assert say("snapshot remove before --yes").code == 0
    assert say("modify --remove-tag extra").code == 0
    assert say("use").out == "vm/web\n"
    assert say("use vm nowhere").code == 4
    assert runner.context == "vm/web"
    assert say("use vms/db").code == 0 and runner.context == "vm/db"
    assert say("use node n1; info | grep '^Name'").out == "Name: n1\n"
    assert say("use ..").code == 0 and runner.context == ""
    assert say("use flower").code == 2
    assert say("info").code == 2


def test_the_context_goes_on_under_a_new_name_and_ends_with_what_it_names(
    say: Say, runner: Runner
) -> None:
    assert say("vm create brief; volume create local/brief 1M; use vm brief").code == 0
    assert say("rename short --dry-run").code == 0 and runner.context == "vm/brief"
    assert say("rename short").code == 0 and runner.context == "vm/short"
    assert say("info | grep '^Name'").out == "Name: short\n"
    assert say("rename web").code == 1 and runner.context == "vm/short"
    assert say("vm clone short copy; vm rename copy other").code == 0
    assert runner.context == "vm/short", "another one was renamed"
    assert say("delete --no-wait --yes --dry-run").code == 0 and runner.context == "vm/short"
    assert say("delete short other --yes").code == 0 and runner.context == ""
    assert say("use volume local/brief; rename longer").code == 0
    assert runner.context == "volume/local/longer"
    assert say("pvc vm create longer; vm delete longer --yes").code == 0
    assert runner.context == "volume/local/longer", "of another kind"
    assert say("delete --yes").code == 0 and runner.context == ""


def test_the_context_stands_where_the_tree_has_it(runner: Runner) -> None:
    runner.run_line("use vm web")
    for words, expected in (
        (["start"], ["vm", "start", "web"]),
        (["rename", "www"], ["vm", "rename", "web", "www"]),
        (["rename", "db", "www"], ["vm", "rename", "db", "www"]),
        (["start", "db"], ["vm", "start", "db"]),
        (["start", "--all"], ["vm", "start", "--all"]),
        (["start", "--filter", "state=stopped"], ["vm", "start", "--filter", "state=stopped"]),
        (["snapshot", "create", "x"], ["vm", "snapshot", "create", "web", "x"]),
        (["snapshot", "create", "db", "x"], ["vm", "snapshot", "create", "db", "x"]),
        (["vm", "snapshot", "create", "db"], ["vm", "snapshot", "create", "db"]),
        (["vm", "snapshot", "create"], ["vm", "snapshot", "create", "web"]),
        (["tag", "add", "red", "blue"], ["vm", "tag", "add", "web", "red", "blue"]),
        (["vm", "tag", "add", "db", "red"], ["vm", "tag", "add", "db", "red"]),
        (["modify", "db", "--memory", "2G"], ["vm", "modify", "db", "--memory", "2G"]),
        (["modify", "--memory", "2G"], ["vm", "modify", "web", "--memory", "2G"]),
        (["attach-disk", "--id", "q", "local/x"],
         ["vm", "attach-disk", "web", "--id", "q", "local/x"]),
        (["start", "--", "db"], ["vm", "start", "--", "db"]),
        (["create", "other"], ["vm", "create", "other"]),
        (["pvc", "snapshot", "list"], ["snapshot", "list"]),
        (["log", "-l"], ["vm", "log", "web", "-l"]),
        (["use"], ["use"]),
        ([], []),
    ):  # fmt: skip
        assert runner.expanded(words) == expected


def test_aliases(say: Say, own_files: Path) -> None:
    assert say("alias ll = vm list -f wide | sort memory").code == 0
    assert say("ll | name").out == "old\nweb\ndb\n"
    assert say("alias first = vm list | head $1").code == 0
    assert say("first 2 | name").out == "db\nold\n"
    assert "first needs one word" in say("first").err
    assert "and no more" in say("first 1 2").err
    assert say("alias named = vm list | where name=$1 | name").code == 0
    assert say("named web").out == "web\n"
    assert say("named 'web OR name=db'").out == ""
    assert say('alias quoted = vm list | grep "^$1 " | name').code == 0
    assert say("quoted web").out == "web\n"
    assert say("alias tell = vm info $* -f name").code == 0
    assert say("tell web").out == "web\n"
    assert say("alias two = vm list -f name; node list -f name").code == 0
    assert say("two").out == "db\nold\nweb\nn1\n"
    assert "several commands" in say("two | count").err
    assert say("alias one = ll | head 1 | name").code == 0
    assert say("one").out == "old\n"
    assert say("alias one").out == "alias one = ll | head 1 | name\n"
    assert [line.split(" ")[1] for line in say("alias").out.splitlines()] == [
        "first", "ll", "named", "one", "quoted", "tell", "two",
    ]  # fmt: skip
    assert stat.S_IMODE((own_files / "shell.toml").stat().st_mode) == 0o600
    assert say("unalias one").code == 0 and say("one").code == 2
    assert say("unalias one").code == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alias vm = node list", "vm is a command already"),
        ("alias vms = node list", "vms is a command already"),
        ("alias use = node list", "use is a command already"),
        ("alias grep = node list", "grep is a command already"),
        ("alias a = a", "stands for itself: a → a"),
        ("alias b = node list; b x | head", "itself"),
        ("alias a = vm list | 'x", "not closed"),
    ],
)
def test_aliases_that_cannot_be(say: Say, own_files: Path, line: str, message: str) -> None:
    said = say(line)
    assert said.code == 2 and message in said.err
    assert not (own_files / "shell.toml").exists()


def test_aliases_in_a_circle_are_found_also_in_the_file(say: Say, own_files: Path) -> None:
    assert say("alias p = q").code == 0
    assert "p → q" in say("alias q = p").err or "q → p → q" in say("alias q = p").err
    with TomlFile(own_files / "shell.toml").changed() as document:
        document["aliases"]["q"] = "p"
    say("alias other = vm list")  # reads the file again
    assert "stands for itself" in say("p").err


def test_a_command_of_the_context_goes_before_an_alias(say: Say) -> None:
    assert say("alias info = node list -f name").code == 0
    assert say("info").out == "n1\n"
    assert say("use vm web; info -f name").out == "web\n"
    assert say("use node n1; info -f name").out == "n1\n"


def test_what_has_the_terminal_to_itself_goes_nowhere_else(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as nothing:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", nothing)
        said = say("vm console web | grep x")
    assert said.code == 2 and "nothing can follow it" in said.err


def test_a_watched_list_goes_through_stages(say: Say) -> None:
    assert say("vm list --watch -f name | head 2 | count").out == "2\n"


def test_saved_queries(say: Say) -> None:
    assert say("save big = vm list | where memory>$1 | name").code == 0
    assert say("run big 2G").out == "db\n"
    assert say("\\big 600M").out == "db\nweb\n"
    assert say("\\big 600M | count").out == "2\n"
    assert say("save all = vm list").code == 0
    assert say("run all -f name").out == "db\nold\nweb\n"
    assert say("run all | count").out == "3\n"
    assert say("save").out.splitlines()[1] == "save big = vm list | where memory>$1 | name"
    assert "there is no saved query 'x'; there are: " in say("run x").err
    assert say("unsave big").code == 0 and say("\\big 1").code == 2


def test_settings(say: Say, runner: Runner, own_files: Path) -> None:
    assert say("set format csv; node list | columns name").out == "name\nn1\n"
    assert say("vm list -f name").out == "db\nold\nweb\n"
    assert say("set format table").code == 0
    assert "format is one of table" in say("set format nice").err
    assert say("set nope x").code == 2
    assert say("timing on; node list -f name").err.endswith(" s\n")
    assert say("timing").code == 0 and not runner.settings.is_on("timing")
    assert not (own_files / "shell.toml").exists()
    assert say("set --keep keys vi").code == 0
    assert Runner(runner.session, interactive=True).settings["keys"] == "vi"
    assert Runner(runner.session).settings["keys"] == "emacs"
    assert "keys      vi" in say("show settings").out


def test_a_broken_file_of_settings_is_told_and_left_alone(
    whole: Whole, runner: Runner, say: Say, own_files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own_files.mkdir()
    broken = "[aliases]\nll = vm list\n"
    (own_files / "shell.toml").write_text(broken)
    Runner(runner.session, interactive=True)
    assert "line 2" in capfd.readouterr().err
    said = say("alias x = vm list")
    assert said.code == 1 and "line 2" in said.err
    assert (own_files / "shell.toml").read_text() == broken
    (own_files / "shell.toml").write_text("[settings]\nkeys = 'nano'\n")
    Runner(runner.session, interactive=True)
    assert "keys is one of emacs, vi" in capfd.readouterr().err


def test_questions_without_anybody_to_ask_are_declined(say: Say, whole: Whole) -> None:
    said = say("vm stop web")
    assert said.code == 3 and "Cut the power of web?" in said.err
    assert say("vm stop web --yes; vm start web").code == 0
    assert say("set confirm off; vm stop web; vm start web").code == 0


def test_a_line_stops_at_the_first_error_unless_told_otherwise(say: Say) -> None:
    said = say("vm info nowhere; node list -f name")
    assert (said.code, said.out) == (4, "")
    assert say("set on-error continue; vm info nowhere; node list -f name").out == "n1\n"


def test_commands_of_this_machine(say: Say, runner: Runner) -> None:
    assert say("!printf '%s|' 'a b' '$HOME' '*'").out == "a b|$HOME|*|"
    assert say("vm list -f name | !sort -r").out == "web\nold\ndb\n"
    assert say("vm list | !cat | grep web | count").out == "1\n"
    assert say(f"!{sys.executable} -c 'import sys; sys.exit(7)'").code == 7
    assert say("vm list | !no-such-thing").code == 2
    assert say("vm list -f name | !true").code == 0
    runner.interactive = False
    assert "at the prompt" in say("!ls").err


def test_help(say: Say) -> None:
    alone = say("help").out
    assert "Virtual machines" in alone and "grep" in alone and "alias" in alone
    assert "Switch VMs on." in say("help vm start").out
    assert "Keep the rows that a condition holds for" in say("help where").out
    assert "Go on about one thing" in say("help use").out
    assert "Go on about one thing" in say("use --help").out


def test_history_source_and_exit(say: Say, runner: Runner, tmp_path: Path) -> None:
    runner.history = lambda: ["vm list", "vm start web"]
    assert say("history 1").out == "    2  vm start web\n"
    script = tmp_path / "s.pvc"
    script.write_text(f"vm list -f name\nsource {script}\n")
    said = say(f"source {script}")
    assert said.code == 2 and said.out == "db\nold\nweb\n"
    assert "is being read already" in said.err and f"{script}:2: stopped" in said.err
    assert say("vm info nowhere").code == 4
    assert say("exit").code == 4 and runner.is_leaving
    assert say("exit 9").code == 9


def test_time_tells_how_long(say: Say) -> None:
    said = say("time vm list | name")
    assert said.out == "db\nold\nweb\n" and said.err.endswith(" s\n")

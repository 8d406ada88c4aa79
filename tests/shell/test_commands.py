"""The commands against a real gateway: what they print, what they ask, how they end."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from pvc.storage.v1 import storage_pb2
from services.state.store import Put
from shell import main
from shell.commands.table import CALLS, canonical
from shell.contract.methods import methods
from shell.failures import hint_for
from tests.doors.world import World, world_in


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("shell")) as world:
        yield world


class Outcome:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def pvc(world: World, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PVC_CONNECTION", f"unix:{world.socket}")

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = main.run(arguments)
        return Outcome(code, *capfd.readouterr())

    return call


def test_a_life_in_commands(pvc: Any, tmp_path: Path) -> None:
    user_data = tmp_path / "web.yaml"
    user_data.write_text("#cloud-config\n")
    made = pvc(
        "vm", "create", "web", "--image", "debian-12", "--memory", "768M", "--vcpus", "2",
        "--user-data", str(user_data), "--start",
    )  # fmt: skip
    assert (made.code, made.out) == (0, "vm web runs\n")
    assert "web: starting the emulator" in made.err
    assert pvc("vm", "start", "web").out == "vm web runs\n"
    assert pvc("vm", "modify", "web", "--memory", "2G", "--add-tag", "prod").code == 0
    vm = json.loads(pvc("vm", "info", "web", "-f", "json").out)
    assert vm["spec"]["memory"]["memoryMib"] == "2048"
    assert vm["spec"]["cpu"]["vcpus"] == 2
    assert vm["spec"]["tags"] == ["prod"]
    assert vm["status"]["state"] == "VM_STATE_RUNNING"
    assert pvc("vm", "dump", "web").out == "<domain><name>web</name></domain>\n"
    assert pvc("vm", "log", "web", "-l", "1").out == "[    5.0] line 5\r\n"
    assert pvc("vm", "delete", "web", "--yes", "--force").out == "vm web is gone\n"
    assert pvc("vm", "info", "web").code == 4


def test_what_create_asks_for(pvc: Any, world: World, tmp_path: Path) -> None:
    user_data = tmp_path / "u"
    user_data.write_text("#cloud-config\n")
    pvc("vm", "create", "asked", "--image", "debian-12", "--root-size", "20", "--pool", "fast",
        "--network", "lan", "--tag", "a", "--user-data", str(user_data), "--firmware", "uefi",
        "--autostart", "last-state")  # fmt: skip
    request = world.vms.requests[-1]
    assert (request.image, request.pool) == ("images/debian-12", "pools/fast")
    assert request.root_size_bytes == 20 * 1024**3
    assert request.network == "networks/lan"
    assert request.cloud_init.user_data == "#cloud-config\n"
    assert (list(request.spec.tags), request.spec.firmware) == (["a"], 2)
    assert request.spec.autostart == 1
    pvc("vm", "create", "own", "--disk", "local/r", "--disk", "local/d", "--network", "lan",
        "--label", "owner=ann", "--start")  # fmt: skip
    request = world.vms.requests[-1]
    assert [d.id for d in request.vm.spec.disks] == ["root", "disk1"]
    assert request.vm.spec.disks[0].volume == "pools/local/volumes/r"
    assert request.vm.spec.nics[0].network == "networks/lan"
    assert dict(request.vm.meta.labels) == {"owner": "ann"}
    assert request.start


def test_lists(pvc: Any) -> None:
    for name in ("list-a", "list-b"):
        pvc("vm", "create", name, "--tag", "listed")
    pvc("vm", "start", "list-b")
    assert pvc("vm", "list", "list-*", "-f", "name").out == "list-a\nlist-b\n"
    assert pvc("vm", "list", "-g", "listed", "--sort", "name desc", "-f", "name").out == (
        "list-b\nlist-a\n"
    )
    assert pvc("vm", "list", "list-*", "-s", "running", "-f", "name").out == "list-b\n"
    filtered = pvc("vm", "list", "--filter", "status.state = RUNNING AND spec.tags:listed")
    lines = filtered.out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "NODE", "CPUS", "MEMORY", "ADDRESS", "TAGS", "AGE"]
    assert lines[1].startswith("list-b  running")
    assert "\x1b" not in filtered.out
    shown = yaml.safe_load(pvc("vms", "list", "list-a", "-f", "yaml").out)
    assert shown[0]["name"] == "vms/list-a"
    assert pvc("vm", "list", "list-a", "-f", "csv").out.startswith("name,state,node,")
    nothing = pvc("vm", "list", "none-*")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing found\n")
    assert json.loads(pvc("vm", "list", "none-*", "-f", "json").out) == []


def test_a_list_as_it_is_asked_for(pvc: Any) -> None:
    for name, memory in (("as-a", "1G"), ("as-b", "3G"), ("as-c", "2G")):
        pvc("vm", "create", name, "--memory", memory, "--tag", "as")
    asked = pvc("vm", "list", "--filter", "tag:as memory>1G", "--sort", "-memory",
                "--columns", "name,spec.memory.memory_mib", "-f", "csv")  # fmt: skip
    assert asked.out == "name,spec.memory.memory_mib\nas-b,3072\nas-c,2048\n"
    few = pvc("vm", "list", "as-*", "--limit", "2", "--sort", "name desc", "-f", "name")
    assert few.out == "as-c\nas-b\n"
    bare = pvc("vm", "list", "as-a", "--columns", "name,memory", "--no-header")
    assert bare.out == "as-a  1G\n"
    none = pvc("vm", "list", "none", "--columns", "name", "-f", "csv")
    assert (none.code, none.out) == (0, "name\n")
    assert pvc("vm", "info", "as-a", "--columns", "memory", "--no-header").out == "1G\n"
    assert pvc("vm", "info", "as-a", "--columns", "mem").code == 2
    assert json.loads(pvc("vm", "list", "as-a", "--columns", "name,memory", "-f", "json").out) == [
        {"name": "as-a", "memory": "1G"}
    ]  # fmt: skip


def test_events_as_they_are_asked_for(pvc: Any) -> None:
    for name in ("ev-1", "ev-2", "ev-3"):
        pvc("token", "create", name, "--role", "viewer")
    asked = pvc("event", "list", "--filter", "subject=tokens/ev-* severity=info", "--limit", "2",
                "--columns", "subject", "--no-header")  # fmt: skip
    assert asked.out == "tokens/ev-2\ntokens/ev-3\n", "the newest, the oldest of them first"
    assert pvc("event", "list", "--filter", "subjekt=x").code == 2


def test_a_pattern_with_quotes_stays_a_pattern(pvc: Any) -> None:
    assert pvc("vm", "list", '" OR name:"').out == ""


def test_exit_codes(pvc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pvc("vm", "create", "bad")
    failed = pvc("vm", "start", "bad")
    assert failed.code == 1
    assert "error: QEMU said: no such machine" in failed.err
    assert re.search(r"hint: see what it did: pvc operation info \w+", failed.err)
    assert pvc("vm", "create").code == 2
    assert pvc("vm", "create", "x", "--memory", "lots").code == 2
    missing = pvc("vm", "start", "nowhere")
    assert missing.code == 4
    assert "error: vms/nowhere does not exist" in missing.err
    assert "hint: see what there is: pvc vm list" in missing.err
    monkeypatch.setattr("pvc_client.transport.TRIES", 1)
    away = pvc("-c", "127.0.0.1:1", "vm", "list")
    assert away.code == 5
    assert "127.0.0.1:1 does not answer" in away.err


def test_who_has_no_token_is_told_how_to_get_one(pvc: Any, world: World) -> None:
    refused = pvc("-c", world.grpc_address, "whoami")
    assert refused.code == 1
    assert "pvc token create" in refused.err


def test_destructive_commands_ask_and_name_what_they_hit(
    pvc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pvc("vm", "create", "ask", "--disk", "local/ask-root", "--disk", "local/ask-data")
    unasked = pvc("vm", "remove", "ask")
    assert unasked.code == 3
    assert "Volumes lost for ever: local/ask-root, local/ask-data." in unasked.err
    assert "add --yes" in unasked.err
    answers = iter(["n\n", "\n", "", "yes\n"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin.readline", lambda: next(answers))
    for _ in range(3):
        assert pvc("vm", "remove", "ask").code == 3
    gone = pvc("vm", "remove", "ask")
    assert (gone.code, gone.out) == (0, "vm ask is gone\n")
    assert "Remove ask?" in gone.err


def test_nothing_is_asked_for_what_is_not_there(pvc: Any) -> None:
    assert pvc("vm", "delete", "nowhere").code == 4


def test_a_dry_run_changes_nothing(pvc: Any) -> None:
    planned = pvc("vm", "create", "dry", "--dry-run")
    assert planned.out == "vms/dry: this would be accepted; nothing was changed\n"
    assert pvc("vm", "info", "dry").code == 4
    pvc("vm", "create", "real")
    assert pvc("vm", "remove", "real", "--dry-run").code == 0
    assert pvc("vm", "info", "real").code == 0


def test_not_waiting_gives_the_operation(pvc: Any) -> None:
    pvc("vm", "create", "quick")
    begun = pvc("vm", "start", "quick", "--no-wait")
    operation = begun.out.strip().removeprefix("operations/")
    assert f"pvc operation info {operation}" in begun.err
    assert pvc("task", "wait", operation).out == f"{operation} is done\n"
    assert "StartVm" in pvc("operation", "list", "--all", operation, "-f", "wide").out
    info = pvc("operation", "info", operation).out
    assert re.search(r"^Log: +\d\d:\d\d:\d\d  choosing a node$", info, re.M)
    assert "has ended already: succeeded" in pvc("operation", "cancel", operation).out


def test_ctrl_c_while_waiting_says_that_it_goes_on(
    pvc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pvc("vm", "create", "held")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pvc_client.Pending.result", interrupted)
        ended = pvc("vm", "start", "held")
    assert ended.code == 130
    operation = re.search(r"pvc operation wait (\w+)", ended.err)
    assert operation and "the operation goes on" in ended.err
    assert pvc("operation", "wait", operation.group(1)).code == 0


def test_several_at_once(pvc: Any) -> None:
    for name in ("many-1", "many-2"):
        pvc("vm", "create", name)
    assert pvc("vm", "start", "many-1", "many-2").out == "vm many-1 runs\nvm many-2 runs\n"


def test_cluster_node_and_events(pvc: Any) -> None:
    status = pvc("cluster", "status")
    assert re.search(r"^Name: +test$", status.out, re.M)
    assert json.loads(pvc("cluster", "status", "-f", "json").out)["name"] == "test"
    assert pvc("node", "list").code == 0
    assert pvc("event", "list", "--since", "1h").code == 0
    assert pvc("whoami").out == (
        "Caller:  local root\nRole:    admin\nCluster: test\nVersion: 2.0\n"
    )


def test_tokens(pvc: Any, world: World, tmp_path: Path) -> None:
    made = pvc("token", "create", "ci", "--role", "viewer", "--ttl", "1h")
    assert made.out.startswith("ci~") and len(made.out) == 36
    secret = tmp_path / "secret"
    pvc("token", "create", "file", "--role", "admin", "--output", str(secret))
    assert secret.stat().st_mode & 0o777 == 0o600
    me = pvc("-c", world.grpc_address, "--token-file", str(secret), "whoami", "-f", "json")
    assert json.loads(me.out)["caller"] == "token file"
    assert "never" in pvc("token", "list", "file").out
    assert pvc("token", "revoke", "file", "--yes").code == 0
    assert pvc("-c", world.grpc_address, "--token-file", str(secret), "whoami").code == 1
    events = pvc("event", "list", "--subject", "tokens/file").out
    assert "token file made, role admin" in events and "token file revoked" in events


def test_files(pvc: Any, world: World, tmp_path: Path) -> None:
    source = tmp_path / "disk.raw"
    source.write_bytes(b"x" * 4096)
    missing = pvc("volume", "import", str(source), "nowhere/new")
    assert missing.code == 4 and not world.storage.files, "nothing is sent for a pool that is not"
    world.store.commit([Put(storage_pb2.Pool(name="pools/local"))])
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in pvc("volume", "import", str(empty), "local/new").err
    result = pvc("volume", "import", str(source), "local/new")
    assert world.storage.sent == [source.read_bytes()]
    assert result.code == 1, "the test's storage service cannot import"
    assert not world.storage.files, "what was sent in vain is not left there"
    assert pvc("volume", "export", "local/new", str(source)).code == 2, "never over a file"
    assert pvc("volume", "export", "local/new", "/nowhere/at/all").code == 2


def test_one_of_several_that_is_refused_is_told_and_the_others_go_on(pvc: Any) -> None:
    for name in ("some-1", "some-2"):
        pvc("vm", "create", name)
    ended = pvc("vm", "start", "some-1", "nowhere", "some-2", "some-1")
    assert ended.out == "vm some-1 runs\nvm some-2 runs\n"
    assert ended.code == 4 and "error: vms/nowhere does not exist" in ended.err


def test_wrong_settings_are_told_in_words(
    pvc: Any, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = pvc("--ca", "/nowhere", "whoami")
    assert refused.code == 2 and "CA's file cannot be read" in refused.err
    monkeypatch.setenv("PVC_TOKEN", "gr\xfc\xdfe")
    refused = pvc("-c", world.grpc_address, "whoami")
    assert refused.code == 2 and "PVC_TOKEN holds no token" in refused.err
    (tmp_path / "t").write_text("two\nlines")
    assert pvc("--token-file", str(tmp_path / "t"), "whoami").code == 2


def test_who_sees_no_operation_is_told_where_the_ended_ones_are(pvc: Any) -> None:
    assert "--all shows what has ended" in pvc("operation", "list", "none").err
    assert pvc("operation", "list", "none", "--all").err == "nothing found\n"


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('"images/a" does not exist', "pvc image list"),
        ("pools/a/volumes/b/snapshots/c does not exist", "pvc snapshot list a/b"),
        ("vms/a/snapshots/b does not exist", "pvc vm snapshot list a"),
        ("something does not exist", ""),
    ],
)
def test_what_is_missing_is_hinted_at(message: str, hint: str) -> None:
    from pvc_client.errors import DanglingReference, NotFound

    for kind in (NotFound, DanglingReference):
        assert hint_for(kind(message)).removeprefix("see what there is: ") == hint


def test_unknown_commands_get_the_nearest(pvc: Any) -> None:
    assert "Did you mean 'start'?" in pvc("vm", "strat", "web").err
    assert "Did you mean 'volume'?" in pvc("volum", "list").err


def test_init_without_services_says_so(pvc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shell.commands.cluster_machine.INIT", "services.nothing_here")
    refused = pvc("cluster", "init", "--yes")
    assert refused.code == 1
    assert "only the client" in refused.err


def every_command() -> Iterator[tuple[str, click.Command]]:
    def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from walk(inner, f"{path} {name}")
        else:
            yield path, command

    return walk(main.pvc, "pvc")


@pytest.mark.parametrize(("path", "command"), list(every_command()), ids=lambda v: str(v))
def test_every_command_has_help_with_an_example_that_parses(
    path: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("web.xml", "web.yaml", "disk.vmdk", "disk.qcow2", "mine.toml", "lab.toml",
                 "lab.yaml"):  # fmt: skip
        Path(name).touch()
    shown: Result = CliRunner().invoke(main.pvc, [*path.split()[1:], "--help"])
    assert shown.exit_code == 0
    assert "Examples:\n  " in shown.output, f"{path} shows no example"
    assert command.help, f"{path} says nothing of itself"
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{path} does not explain {parameter.name}"
    for example in command.examples:
        words = in_words(example)
        if words[0] == "pvc":
            name = path.split()[-1]
            assert name in words[:4], "an example of something else"
            command.make_context(path, words[words.index(name) + 1 :])


def test_every_command_that_changes_something_has_a_dry_run() -> None:
    known = {name.rpartition("/")[2]: method for name, method in methods().items()}
    for path, command in every_command():
        asked = CALLS.get(canonical(path.partition(" ")[2]), "").split()
        requests = [known[one].input_type for one in asked]
        if any("validate_only" in request.fields_by_name for request in requests):
            spellings = [one for option in command.params for one in option.opts]
            assert "--dry-run" in spellings, f"{path} cannot be tried"


def test_the_commands_in_the_documentation_are_there() -> None:
    text = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    shown = re.findall(r"^\$ pvc (.*)$", text, re.M)
    assert len(shown) > 10
    for line in shown:
        words = shlex.split(line.split(" | ")[0])
        context = main.pvc.make_context("pvc", words)
        while isinstance(group := context.command, click.Group):
            name, command, words = group.resolve_command(context, [*context._protected_args,
                                                                   *context.args])  # fmt: skip
            assert command is not None
            context = command.make_context(name, list(words), parent=context)


def in_words(example: str) -> list[str]:
    """The words of the `pvc` in an example."""
    line = re.sub(r" > [\w./~]+$", "", example.removeprefix("sudo ").split("| ")[-1])
    return shlex.split(line, comments=True)


def test_names_are_completed_live(world: World, pvc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    for name in ("tab-1", "tab-2"):
        pvc("vm", "create", name)
    complete = ShellComplete(main.pvc, {}, "pvc", "_PVC_COMPLETE").get_completions
    assert [i.value for i in complete(["vm", "start"], "tab")] == ["tab-1", "tab-2"]
    assert "start" in [i.value for i in complete(["vm"], "sta")]
    assert "--memory" in [i.value for i in complete(["vm", "create"], "--mem")]
    assert complete(["-c", "127.0.0.1:1", "vm", "start"], "tab") == []


def test_completion_scripts(pvc: Any) -> None:
    for kind in ("bash", "zsh", "fish"):
        assert "_PVC_COMPLETE" in pvc("completion", kind).out

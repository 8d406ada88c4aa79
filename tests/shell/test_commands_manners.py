"""What all commands have in common: dry runs, waiting, how results are shown, what is asked before
something is lost, several things at once. Against a whole PVC."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from pvc.coordinator.v1 import cluster_pb2
from shell.commands.table import CALLS
from shell.contract.methods import methods
from tests.contract.stage import Stage
from tests.shell.test_commands_reach import COMMANDS

METHODS = {name.partition("/")[2]: method for name, method in methods().items()}
FIRST = {path: METHODS[line.split(" ")[0]] for path, line in CALLS.items() if path in COMMANDS}
CHANGES = {path: m for path, m in FIRST.items() if "validate_only" in m.input_type.fields_by_name}
LONG = {path: m for path, m in CHANGES.items() if m.output_type.name == "Operation"}
HERE_AT_ONCE = {"volume export"}
"""What it makes comes to this machine: nobody could leave it to itself."""
LOSING = {
    "vm delete", "vm remove", "vm stop", "vm reset", "vm snapshot remove", "vm snapshot rollback",
    "volume delete", "snapshot delete", "snapshot rollback", "image remove", "network delete",
    "pool delete", "node remove", "node confirm-dead", "cluster maintenance", "cluster ha",
    "cluster leave", "vm edit", "network edit", "pool edit", "node edit", "vm modify",
}  # fmt: skip
"""Commands that ask."""


def spelled(command: Any) -> set[str]:
    return {one for param in command.params for one in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("path", sorted(CHANGES))
def test_every_change_can_be_tried_without_changing_anything(path: str) -> None:
    assert "--dry-run" in spelled(COMMANDS[path])


@pytest.mark.parametrize("path", sorted(set(LONG) - HERE_AT_ONCE))
def test_everything_long_can_be_waited_for_or_not(path: str) -> None:
    there = spelled(COMMANDS[path])
    assert {"--wait", "--no-wait", "--timeout", "--format"} <= there


@pytest.mark.parametrize("path", sorted(LOSING & set(COMMANDS)))
def test_what_loses_something_can_be_answered_beforehand(path: str) -> None:
    assert {"-y", "--yes"} <= spelled(COMMANDS[path])


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Has somebody at a terminal who types."""
    typed = io.StringIO("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)


def short(name: str) -> str:
    return "/".join(name.split("/")[1::2])


def asked_before(stage: Stage) -> Sequence[tuple[tuple[str, ...], Sequence[str]]]:
    """Commands, and what their questions name."""
    vm, running = stage.vm_with_disk(), stage.vm(on=True)
    disk = short(stage.cluster.vms.get(vm).spec.disks[0].volume)
    taken = stage.vm_snapshot()
    owner = taken.split("/")[1]
    volume, snapshot = short(stage.volume()), short(stage.snapshot())
    image, pool, node = stage.image(), stage.pool(), stage.added_node().node.name
    network = stage.network()
    stage.cluster.volumes.create(f"{short(pool)}/data", stage.cluster.volumes.get(volume).spec
                                 ).result(20)  # fmt: skip
    of_volume, own = snapshot.rpartition("/")[0], snapshot.rpartition("/")[2]
    return [
        (("vm", "remove", vm), [f"Remove {vm}?", f"lost for ever: {disk} (2M"]),
        (("vm", "delete", vm), [f"Volumes that stay: {disk}"]),
        (("vm", "delete", running, "--force"), [f"Running now: {running}"]),
        (("vm", "remove", owner), [f"Snapshots that go: {short(taken)}"]),
        (("vm", "stop", running), [f"Cut the power of {running}?"]),
        (("vm", "reset", running), [f"Reset {running}?"]),
        (("vm", "disable", running, "--force"), [f"Cut the power of {running}?"]),
        (("volume", "delete", volume), [f"Remove {volume} (2M", "All that is stored is lost"]),
        (("snapshot", "delete", of_volume, own), [f"Remove the snapshot {snapshot} ("]),
        (("snapshot", "rollback", of_volume, own), ["What was written since then is lost"]),
        (("image", "remove", short(image)), ["Volumes lost for ever: local/image-"]),
        (("network", "delete", short(network)), [f"Remove the network {short(network)}?"]),
        (("pool", "delete", short(pool)), [f"Its volumes: {short(pool)}/data (2M"]),
        (("node", "remove", short(node)), [f"Take {short(node)} out of the cluster?"]),
        (("cluster", "maintenance", "on"), ["Stop fencing, recovery and balancing"]),
        (("cluster", "ha", "disarm"), ["Leave the VMs of nodes that fail"]),
    ]


def test_what_destroys_something_asks_and_names_what_it_hits(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, told in asked_before(stage):
        before = stage.whole.calm()
        answers(monkeypatch, "n")
        err = pvc(*words, code=3)[1]
        assert all(one in err for one in told), err
        assert stage.whole.calm() == before, f"{words}: declined, and yet something changed"


def test_what_stays_of_a_node_that_is_taken_out_is_named(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = stage.vm()
    monkeypatch.setattr("sys.stdin", io.StringIO())
    err = pvc("node", "remove", "n1", code=3)[1]
    assert vm in err and "Pool local holds" in err and "add --yes" in err


def test_nothing_is_asked_where_nothing_is_lost(pvc: Any, stage: Stage) -> None:
    off, other = stage.vm(), stage.vm_with_disk()
    assert pvc("vm", "stop", off)[0] == f"vm {off} is off\n"
    pvc("vm", "disable", off)
    assert pvc("vm", "detach-disk", other, "data")[0] == f"vm {other} has no data any more\n"
    pvc("cluster", "maintenance", "off")
    assert json.loads(pvc("vm", "info", off, "-f", "json")[0])["spec"]["autostart"] == (
        "AUTOSTART_NEVER"
    )


def test_several_at_once_by_names_patterns_tags_filters_or_all(pvc: Any, stage: Stage) -> None:
    names = [stage.vm(tags=["crowd"]) for _ in range(3)]
    apart = stage.vm()
    pvc("vm", "start", "-g", "crowd")
    running = pvc("vm", "list", "-s", "running", "-g", "crowd", "-f", "name")[0].split()
    assert sorted(running) == sorted(names)
    assert pvc("vm", "info", apart, "--columns", "state", "-f", "csv")[0].endswith("stopped\n")
    pvc("vm", "stop", "--filter", "tag:crowd", "--yes")
    pvc("vm", "tag", "add", names[0], "first")
    pvc("vm", "start", f"{names[0]}", names[1])
    found = pvc("vm", "list", "--filter", "tag:crowd state=running", "-f", "name")[0].split()
    assert sorted(found) == sorted(names[:2])
    pvc("vm", "delete", "-g", "crowd", "--force", "--yes")
    assert pvc("vm", "list", "-g", "crowd", "-f", "name")[0] == ""
    assert pvc("vm", "info", apart)[0]


def test_lists_take_names_patterns_and_filters_as_they_come(pvc: Any, stage: Stage) -> None:
    mixed = stage.fresh("tag")
    on, off = stage.vm(tags=[mixed]), stage.vm(tags=[mixed])
    pvc("vm", "start", on)

    def listed(*words: str) -> list[str]:
        return sorted(pvc("vm", "list", *words, "-f", "name")[0].split())

    assert listed(f"{on[:-1]}*", off) == sorted({*listed(f"{on[:-1]}*"), off})
    assert listed(on, off) == listed(f"vms/{on}", f"vms/{off}") == sorted([on, off])
    assert listed(f"tag:{mixed}") == listed(f"tag:{mixed} OR name=nobody") == sorted([on, off])
    assert listed(f"tag:{mixed}", "state=running") == listed(f"tag:{mixed} state=running") == [on]
    assert listed(off, "state=running") == []
    assert listed(on, off, "--filter", "state!=running") == [off]
    wrong = pvc("vm", "list", "state=runing", code=2)[1]
    assert wrong.startswith("error: status.state is never 'runing'. Did you mean 'running'")


def test_a_filter_where_names_must_stand_is_refused(pvc: Any, stage: Stage, seen: Any) -> None:
    told = pvc("vm", "stop", "state=running", "--yes", code=2)[1]
    assert "state=running is no name but a filter: write --filter 'state=running'" in told
    assert not seen


def test_which_ones_are_meant_must_be_said(pvc: Any, stage: Stage) -> None:
    assert "which ones?" in pvc("vm", "start", code=2)[1]
    assert "not both" in pvc("vm", "start", "web", "--all", code=2)[1]
    assert "nothing matches" in pvc("vm", "start", "none-*", code=4)[1]
    assert "nothing matches" in pvc("vm", "delete", "-g", "nobody", "--yes", code=4)[1]


def test_patterns_of_volumes_are_within_their_pool(pvc: Any, stage: Stage) -> None:
    for number in range(2):
        pvc("volume", "create", f"local/pattern-{number}", "2M")
    listed = pvc("volume", "list", "local/pattern-*", "elsewhere/*", "-f", "name")[0]
    assert listed == "local/pattern-0\nlocal/pattern-1\n"
    told = pvc("volume", "delete", "local/pattern-*", "--yes")[0]
    assert told == "volume local/pattern-0 is gone\nvolume local/pattern-1 is gone\n"


def test_one_that_is_refused_does_not_keep_the_others_back(pvc: Any, stage: Stage) -> None:
    first, second = stage.vm(), stage.vm()
    out, err = pvc("vm", "start", first, "nowhere", second, code=4)
    assert out == f"vm {first} runs\nvm {second} runs\n"
    assert "vms/nowhere does not exist" in err and "2 of 3 are done; 1 were refused" in err


def test_the_gravest_of_several_refusals_is_the_exit_code(pvc: Any, stage: Stage) -> None:
    paused = stage.paused_vm()
    pvc("vm", "pause", paused, "nowhere", stage.vm(), code=4)


def test_what_came_out_is_shown_as_it_was_asked_for(pvc: Any, stage: Stage) -> None:
    vm = stage.fresh("vm")
    made = json.loads(pvc("vm", "create", vm, "--vcpus", "3", "-f", "json")[0])
    assert made["name"] == f"vms/{vm}" and made["spec"]["cpu"]["vcpus"] == 3
    assert yaml.safe_load(pvc("vm", "start", vm, "-f", "yaml")[0])["name"] == f"vms/{vm}"
    assert pvc("vm", "stop", vm, "--yes", "-f", "name")[0] == f"vms/{vm}\n"
    other = stage.vm()
    both = json.loads(pvc("vm", "start", vm, other, "-f", "json")[0])
    assert [one["name"] for one in both] == [f"vms/{vm}", f"vms/{other}"]
    begun = json.loads(pvc("vm", "stop", vm, "--yes", "--no-wait", "-f", "json")[0])
    assert begun["method"].endswith("StopVm") and begun["target"] == f"vms/{vm}"
    plan = json.loads(pvc("vm", "delete", other, "--force", "--dry-run", "-f", "json")[0])
    assert plan["target"] == f"vms/{other}" and plan["log"]
    gone = json.loads(pvc("vm", "delete", other, "--force", "--yes", "-f", "json")[0])
    assert gone["target"] == f"vms/{other}" and gone["state"] == "STATE_SUCCEEDED"


def test_what_is_done_at_once_is_shown_too(pvc: Any, stage: Stage) -> None:
    pool = short(stage.pool())
    shown = json.loads(pvc("pool", "modify", pool, "--reserve", "3G", "-f", "json")[0])
    assert shown["spec"]["reserveBytes"] == str(3 * 1024**3)
    node = short(stage.node(cluster_pb2.NODE_STATE_ONLINE))
    assert pvc("node", "update", node, "--tag", "ssd", "-f", "name")[0] == f"nodes/{node}\n"
    assert json.loads(pvc("node", "demote", node, "-f", "json")[0])["name"] == f"nodes/{node}"
    assert pvc("node", "promote", node)[0] == f"node {node} is a coordinator\n"


def test_a_wait_that_is_too_long_is_said_to_go_on(pvc: Any, stage: Stage) -> None:
    vm = stage.vm()
    with stage.whole.hypervisor.held:
        err = pvc("vm", "start", vm, "--timeout", "1s", code=1)[1]
    assert "goes on" in err
    pvc("vm", "wait", vm, "state=running", "--timeout", "20s")


def test_dry_runs_change_nothing(pvc: Any, stage: Stage) -> None:
    vm, volume = stage.vm(), short(stage.volume())
    before = stage.whole.calm()
    for words in (
        ("vm", "modify", vm, "--memory", "4G"), ("vm", "disable", vm),
        ("vm", "tag", "add", vm, "x"),
        ("vm", "vcpu", "set", vm, "4"), ("vm", "memory", "set", vm, "4G"),
        ("vm", "volume", "add", vm, volume), ("volume", "delete", volume),
        ("network", "modify", "default", "--mtu", "1300"), ("pool", "modify", "local", "--reserve",
        "1G"), ("cluster", "maintenance", "on"), ("cluster", "ha", "disarm"),
        ("cluster", "set", "--reserve-nodes", "1"), ("node", "update", "n1", "--tag", "x"),
        ("vm", "snapshot", "create", vm, "s"), ("vm", "migrate", vm), ("volume", "export", volume,
        "/tmp/never.qcow2"),
    ):  # fmt: skip
        from shell import main

        main.run([*words, "--dry-run"])
    assert stage.whole.calm() == before


def test_of_very_many_the_first_are_named_and_the_rest_counted(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shell.commands import losses

    monkeypatch.setattr(losses, "NAMED_MAX", 2)
    names = [stage.vm_with_disk() for _ in range(3)]
    answers(monkeypatch, "n")
    err = pvc("vm", "remove", *names, code=3)[1]
    assert f"Remove {names[0]}, {names[1]} and 1 more?" in err
    assert "and 1 more." in err and "Snapshots of them go too." in err

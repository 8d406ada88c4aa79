"""`pvc node`, `pvc cluster` and the moves of `pvc vm`, against a whole PVC: what they do, what they
ask before, what they print."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster
from shell import main
from tests.contract.stage import Stage
from tests.contract.whole import Whole, running

UNKNOWN = cluster_pb2.NODE_STATE_UNKNOWN


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("pvc")) as whole:
        yield whole


@pytest.fixture(scope="module")
def stage(whole: Whole) -> Iterator[Stage]:
    with whole.client() as cluster:
        yield Stage(whole, cluster)


@pytest.fixture
def cluster(stage: Stage) -> Cluster:
    return stage.cluster


@pytest.fixture
def pvc(whole: Whole, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PVC_CONNECTION", f"127.0.0.1:{whole.doors.grpc_port}")
    monkeypatch.setenv("PVC_TOKEN", whole.secrets["eve"])

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        got = main.run(arguments)
        out, err = capfd.readouterr()
        assert got == code, err
        return out, err

    return call


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Has somebody at a terminal who types."""
    typed = io.StringIO("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)


def short(name: str) -> str:
    return name.rpartition("/")[2]


def test_a_node_is_expected_and_taken_out_again(pvc: Any, cluster: Cluster) -> None:
    token, told = pvc("node", "add", "shed", "10.77.0.1", "--coordinator", "--expires", "2h")
    assert re.fullmatch(r"[\w=-]{100,}\n", token), "nothing but the token: it can be piped"
    assert "within 2h" in told and "sudo pvc cluster join" in told
    assert re.search(r"^shed +joining +coordinator", pvc("node", "list", "she*")[0], re.M)
    _, told = pvc("node", "add", "shed", "10.77.0.2", code=1)
    assert "pvc node remove shed" in told
    _, told = pvc("node", "remove", "shed", code=3)
    assert "Take shed out of the cluster?" in told and "add --yes" in told
    assert pvc("node", "remove", "shed", "--yes")[0] == "node shed is gone\n"
    pvc("node", "info", "shed", code=4)


def test_a_dry_run_expects_nobody(pvc: Any) -> None:
    assert "nothing was changed" in pvc("node", "add", "barn", "10.77.0.9", "--dry-run")[0]
    pvc("node", "info", "barn", code=4)


def test_who_leads_is_seen_and_can_be_asked(pvc: Any) -> None:
    assert re.search(r"^n1 +online +leader ", pvc("node", "list")[0], re.M)
    pvc("node", "is-primary", "n1")
    pvc("node", "is-primary", "n9", code=1)
    assert pvc("node", "primary", "n1")[0] == "node n1 leads\n"


def test_a_node_is_drained_and_made_ready(pvc: Any, stage: Stage) -> None:
    name = short(stage.node())
    assert "this would be accepted" in pvc("node", "drain", name, "--dry-run")[0]
    assert "accepted" in pvc("node", "drain", name, "--copy-volumes", "--dry-run")[0]
    out, err = pvc("node", "flush", name)
    assert out == f"node {name} is empty\n" and name in err
    assert pvc("node", "list", name, "-s", "drained", "-f", "name")[0] == f"{name}\n"
    assert pvc("node", "unflush", name)[0] == f"node {name} is ready\n"
    assert pvc("node", "demote", name)[0] == f"node {name} is no coordinator any more\n"
    assert pvc("node", "promote", name)[0] == f"node {name} is a coordinator\n"


def test_what_is_wanted_of_a_node(pvc: Any, stage: Stage) -> None:
    name = short(stage.node())
    pvc("node", "update", name, "--tag", "ssd", "--tag", "old", "--max-vms", "7")
    pvc("node", "update", name, "--add-tag", "rack-b", "--remove-tag", "old")
    spec = json.loads(pvc("node", "info", name, "-f", "json")[0])["spec"]
    assert (spec["tags"], spec["maxVms"]) == (["ssd", "rack-b"], 7)
    pvc("node", "update", name, "--max-vms", "0", "--description", "in the cellar")
    spec = json.loads(pvc("node", "info", name, "-f", "json")[0])["spec"]
    assert (spec["tags"], spec["maxVms"], spec["description"]) == (
        ["ssd", "rack-b"], 0, "in the cellar"
    )  # fmt: skip
    assert "nothing to change" in pvc("node", "update", name, code=2)[1]


def test_a_controller_is_set_asked_and_forgotten(
    pvc: Any, stage: Stage, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.coordinator.drivers.fake import FakeController

    name = short(stage.node())
    whole.power.controllers["http://bmc-a"] = FakeController("s3cr3t")
    given = ("node", "bmc", "set", name, "--protocol", "redfish", "--address", "http://bmc-a")
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cr3t\n"))
    out, _ = pvc(*given, "--password-file", "-")
    assert out.startswith(f"the controller of {name} is set\nthe power of {name} is on (")
    whole.power.controllers["http://bmc-a"].dead = True
    assert "no answer" in pvc("node", "bmc", "check", name, code=5)[1]
    assert "redfish http://bmc-a" in pvc("node", "info", name)[0]
    assert pvc("node", "bmc", "clear", name)[0] == f"{name} has no controller\n"
    assert "has no controller of its power" in pvc("node", "bmc", "check", name, code=5)[1]


def test_a_death_is_confirmed_by_typing_the_name(
    pvc: Any, stage: Stage, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = short(stage.node(UNKNOWN))
    why = ("--why", "pulled both plugs")
    _, told = pvc("node", "confirm-dead", name, *why, "--dry-run")
    assert f"No VM is lost if {name} lives." in told
    assert "add --yes if you are certain" in pvc("node", "confirm-dead", name, *why, code=3)[1]
    answers(monkeypatch, "n1")
    assert "declined: nothing was changed" in pvc("node", "confirm-dead", name, *why, code=3)[1]
    row = whole.store.snapshot().find(cluster_pb2.Node, f"nodes/{name}")
    assert row is not None and not row.decision.proof.means
    answers(monkeypatch, name)
    assert f"node {name} is held to be dead" in pvc("node", "confirm-dead", name, *why)[0]
    proof = json.loads(pvc("node", "info", name, "-f", "json")[0])["decision"]["proof"]
    assert (proof["means"], proof["text"]) == ("PROOF_MEANS_ADMIN", "pulled both plugs")
    assert proof["givenBy"] == "token eve"
    told = pvc("node", "confirm-dead", "n1", *why, "--yes", code=1)[1]
    assert "holds its session: it lives" in told


def test_a_vm_is_moved_brought_back_and_explained(pvc: Any, stage: Stage, whole: Whole) -> None:
    vm = short(stage.moved_vm())
    out, _ = pvc("vm", "unmigrate", vm)
    assert out.startswith(f"vm {vm} is on n1 (moved ")
    there = short(stage._small_node)
    assert "would be accepted" in pvc("vm", "move", vm, "--node", there, "--dry-run")[0]
    copying = pvc("vm", "migrate", vm, "--node", there, "--copy-volumes", "--dry-run")[0]
    assert "would be accepted" in copying
    assert pvc("vm", "move", vm, "-t", there)[0].startswith(f"vm {vm} is on {there} (")
    told, _ = pvc("vm", "explain", vm)
    assert told.startswith(f"{vm} is on {there}\n") and re.search(r"^n1 +(yes|no) ", told, re.M)
    assert json.loads(pvc("vm", "explain", vm, "-f", "json")[0])["node"] == f"nodes/{there}"
    assert "already" in pvc("vm", "migrate", vm, "--node", there, code=1)[1]


def test_where_a_vm_may_be_is_said_when_it_is_made_and_later(pvc: Any, stage: Stage) -> None:
    first, vm = stage.vm(), stage.fresh("vm")
    pvc("vm", "create", vm, "--ha-policy", "stop", "--ha-priority", "900", "--start-after", first,
        "--selector", "load", "--limit-nodes", "n1", "--node-rule", "ssd", "--vm-rule",
        "apart:replica:required", "--migration-method", "shutdown", "--no-balance")  # fmt: skip
    spec = json.loads(pvc("vm", "info", vm, "-f", "json")[0])["spec"]
    assert spec["ha"] == {
        "policy": "NODE_FAILURE_POLICY_STOP", "priority": 900, "startAfter": [f"vms/{first}"],
        "startAfterTimeoutS": 300, "maxTries": 3,
    }  # fmt: skip
    assert spec["placement"] == {
        "selector": "NODE_SELECTOR_LOAD", "nodes": ["nodes/n1"], "balance": False,
        "nodeRules": [{"tag": "ssd", "avoid": False, "required": False}],
        "vmRules": [{"tag": "replica", "apart": True, "required": True}],
    }  # fmt: skip
    assert spec["migration"]["method"] == "MIGRATION_METHOD_SHUTDOWN"
    pvc("vm", "update", vm, "--limit-nodes", "", "--node-rule", "avoid:old:required", "--vm-rule",
        "", "--start-after", "", "--balance", "--allow-post-copy")  # fmt: skip
    spec = json.loads(pvc("vm", "info", vm, "-f", "json")[0])["spec"]
    assert (spec["placement"]["nodes"], spec["ha"]["startAfter"]) == ([], [])
    assert spec["placement"]["nodeRules"] == [{"tag": "old", "avoid": True, "required": True}]
    assert spec["placement"]["vmRules"] == [] and spec["placement"]["balance"] is True
    assert spec["migration"]["allowPostCopy"] is True and spec["ha"]["priority"] == 900
    assert "write with:TAG" in pvc("vm", "update", vm, "--vm-rule", "x", code=2)[1]
    assert "write TAG or avoid:TAG" in pvc("vm", "update", vm, "--node-rule", "no:x", code=2)[1]
    assert "cannot start after itself" in pvc("vm", "update", vm, "--start-after", vm, code=1)[1]


def test_how_the_cluster_is_to_behave(pvc: Any, cluster: Cluster) -> None:
    _, told = pvc("cluster", "maintenance", "on", code=3)
    assert "Stop fencing, recovery and balancing" in told
    assert "no node is fenced" in pvc("cluster", "maintenance", "on", "--yes")[0]
    assert re.search(r"^Maintenance: on$", pvc("cluster", "status")[0], re.M)
    pvc("cluster", "maintenance", "off")
    pvc("cluster", "ha", "disarm", "--yes")
    assert cluster.status().spec.ha_disarmed
    pvc("cluster", "ha", "arm")
    out, _ = pvc("cluster", "set", "--fence-delay", "2s", "--migrations-per-node", "3")
    assert "Fence delay:       2000 ms" in out and "3 per node, 8 in the cluster" in out
    assert re.search("^Fenced nodes: +are switched on again$", out, re.M)
    out, _ = pvc("cluster", "set", "--no-power-on-after-fence")
    assert re.search("^Fenced nodes: +stay off$", out, re.M)
    pvc("cluster", "set", "--power-on-after-fence")
    assert cluster.status().spec.power_on_after_fence
    out, told = pvc("cluster", "set", "--fence-delay", "750ms", "--dry-run")
    assert "750 ms" in out and "nothing was changed" in told
    assert "Fence delay:       2000 ms" in pvc("cluster", "settings")[0]
    assert "write it like 500ms" in pvc("cluster", "set", "--fence-delay", "soon", code=2)[1]
    assert "give at least one option" in pvc("cluster", "set", code=2)[1]


def test_balancing_is_shown_before_it_is_done(pvc: Any) -> None:
    _, told = pvc("cluster", "balance", "--dry-run")
    assert re.search(r"spread: [\d.]+ % → [\d.]+ %", told)
    assert "moves" in json.loads(pvc("cluster", "balance", "--dry-run", "-f", "json")[0])


def test_events_are_found_by_what_they_are_about(pvc: Any, stage: Stage) -> None:
    vm = stage.vm()
    about = ("event", "list", "--subject", f"vms/{vm}")
    lines = pvc(*about)[0].splitlines()
    assert len(lines) > 1 and all(vm in line for line in lines[1:])
    assert vm in pvc(*about, "--cause", "token eve", "--since", "1h")[0]
    assert "nothing found" in pvc(*about, "--cause", "token nobody")[1]
    assert "nothing found" in pvc(*about, "--severity", "error")[1]
    begun = stage.cluster.vms.start(vm)
    begun.result(20)
    assert vm in pvc("event", "list", "--operation", short(begun.name))[0]


def test_names_of_nodes_are_completed(whole: Whole, pvc: Any, stage: Stage) -> None:
    import click

    from shell.tree import live_names

    context = click.Context(main.pvc)
    context.params = {"connection": "", "token_file": "", "ca": ""}
    found = [item.value for item in live_names("nodes")(context, None, "n1")]
    assert found == ["n1"]

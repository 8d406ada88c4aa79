"""`pvc wait`, `explain`, `call`, `status`, `version`, `top` and the single sides of VMs, against a
whole PVC."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.mesh.amend import amend
from shell.commands.status import faults_of
from shell.commands.top import bar, busy, used
from shell.commands.two_words import joined
from shell.commands.wait import _connect, _until
from tests.contract.stage import Stage
from tests.provisioner.worlds import qcow2


def later(change: Callable[[], Any], after_s: float = 0.3) -> threading.Timer:
    """Does something while a command waits."""
    timer = threading.Timer(after_s, change)
    timer.start()
    return timer


def test_waiting_ends_when_it_is_so(pvc: Any, stage: Stage) -> None:
    vm = stage.vm()
    timer = later(lambda: stage.cluster.vms.start(vm).result(60))
    out = pvc("vm", "wait", vm, "state=running", "node=n1", "--timeout", "60s")[0]
    timer.join()
    assert out == f"vms/{vm}: state=running, node=n1\n"
    assert pvc("wait", "vm", vm, "spec.cpu.vcpus=1")[0] == f"vms/{vm}: spec.cpu.vcpus=1\n"


def test_waiting_for_a_guest_to_tell_of_itself(pvc: Any, stage: Stage) -> None:
    vm = stage.vm(on=True)
    name = f"vms/{vm}"

    def told(row: vm_pb2.Vm) -> None:
        row.status.guest.host_name = vm
        row.status.guest.addresses[:] = ["127.0.0.1/8"]

    later(lambda: amend(stage.whole.store, vm_pb2.Vm, name, told)).join()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        row = SimpleNamespace(
            status=SimpleNamespace(guest=SimpleNamespace(addresses=["127.0.0.1/8"])), name=name
        )
        _connect(row, port, None)


def test_waiting_for_what_comes_and_goes(pvc: Any, stage: Stage) -> None:
    vm, fresh = stage.vm(), stage.fresh("vm")
    timer = later(lambda: stage.cluster.vms.delete(vm).result(60))
    assert pvc("vm", "wait", vm, "gone", "--timeout", "60s")[0] == f"vms/{vm}: gone\n"
    timer.join()
    timer = later(lambda: stage.cluster.vms.create(fresh, vm_pb2.VmSpec()).result(60))
    assert pvc("vm", "wait", fresh, "exists", "--timeout", "60s")[0]
    timer.join()


def test_waiting_is_over_when_the_time_is(pvc: Any, stage: Stage) -> None:
    vm = stage.vm()
    err = pvc("vm", "wait", vm, "state=running", "--timeout", "1s", code=1)[1]
    assert f"the time is over: vms/{vm} is not state=running; it is stopped" in err
    err = pvc("vm", "wait", vm, "ip", "port=22", "--timeout", "1s", code=1)[1]
    assert "is not ip, port=22" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("vm {} state=floating", "'floating' is none of stopped, starting, running"),
        ("vm {} stat=stopped", "Vm has no field 'stat'"),
        ("vm {} running", "write FIELD=VALUE, or one of agent, ip, port=NUMBER"),
        ("vm {} port=99999", "Vm has no field 'port'"),
        ("node n1 ip", "write FIELD=VALUE, or one of exists, gone"),
        ("car {} exists", "nothing is called 'car'"),
    ],
)
def test_what_cannot_be_waited_for(words: str, told: str, pvc: Any, stage: Stage) -> None:
    assert told in pvc("wait", *words.format("web").split(" "), code=2)[1]


def test_nobody_waits_for_a_name_that_is_mistyped(pvc: Any) -> None:
    assert "vms/wob does not exist" in pvc("vm", "wait", "wob", "state=running", code=4)[1]


def test_conditions_read_enums_as_people_write_them(stage: Stage) -> None:
    vm = stage.vm()
    stage.whole.calm()  # its agent has seen it
    row = stage.cluster.vms.get(vm)
    for text in ("state=stopped", "status.state=STOPPED", "spec.autostart=last-state",
                 "spec.autostart=LAST_STATE", "decision.node=nodes/n1", "node=n1"):  # fmt: skip
        assert _until(vm_pb2.Vm.DESCRIPTOR, text).is_so(row), text
    assert not _until(vm_pb2.Vm.DESCRIPTOR, "state=running").is_so(None)


def test_explaining(pvc: Any) -> None:
    told = pvc("explain", "vm.spec.memory.memory_mib")[0]
    assert "Memory in MiB. Default 1024." in told and "between 64 and 16777216" in told
    assert "one of bios, uefi" in pvc("explain", "vms.spec.firmware")[0]
    for path in ("vm.status", "vm.status.guest.addresses"):
        assert "written by the cluster" in pvc("explain", path)[0]
    assert "SeaBIOS" in pvc("explain", "vm.spec.firmware")[0]
    assert "least role: operator" in pvc("explain", "VmService/StartVm")[0]
    assert "pvc vm start" in pvc("explain", "StartVm")[0]
    assert "vm_id" in pvc("explain", "CreateVmRequest")[0]
    overview = pvc("explain")[0]
    assert "volume" in overview and "PlacementService/MigrateVm" in overview
    deep = json.loads(pvc("explain", "vm", "--recursive", "-f", "json")[0])
    spec = next(one for one in deep["fields"] if one["name"] == "spec")
    assert any(one["name"] == "cpu" and one["fields"] for one in spec["fields"])
    assert yaml.safe_load(pvc("explain", "pool.spec", "-f", "yaml")[0])["type"] == "PoolSpec"
    assert "did you mean 'spec'" in pvc("explain", "vm.spek", code=2)[1]
    assert "nothing is called 'wm'" in pvc("explain", "wm", code=2)[1]


def test_everything_in_the_contract_has_words() -> None:
    from shell.contract.kinds import kinds
    from shell.contract.methods import methods
    from shell.contract.texts import text_of

    for method in methods().values():
        assert text_of(method) and text_of(method.input_type), method.full_name
        assert all(text_of(field) for field in method.input_type.fields), method.full_name
    assert all(text_of(kind.message) for kind in kinds().values())


def test_calling_any_method(pvc: Any, stage: Stage, tmp_path: Path) -> None:
    vm = stage.vm()
    found = json.loads(pvc("call", "GetVm", f'{{"name": "vms/{vm}"}}')[0])
    assert found["name"] == f"vms/{vm}"
    (tmp_path / "request.json").write_text(json.dumps({"name": f"vms/{vm}"}))
    begun = yaml.safe_load(
        pvc("call", "VmService/StartVm", f"@{tmp_path}/request.json", "-f", "yaml")[0]
    )
    assert begun["method"].endswith("StartVm")
    lines = pvc("call", "ReadConsoleLog", f'{{"name": "vms/{vm}"}}', "--lines")[0]
    assert all(json.loads(line) for line in lines.splitlines())
    listed = pvc("call", "--list")[0]
    assert "VmService/StartVm" in listed and "DiskService" not in listed, "internal ones are none"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("GetVn",), 2, "did you mean 'GetVm'?"),
        (("GetVm", '{"nam": "x"}'), 2, 'no field named "nam"'),
        (("GetVm", "{"), 2, "REQUEST"),
        (("UploadFile",), 2, "takes a stream"),
        (("ResizeOpenVolume",), 2, "there is no method"),
        (("GetVm", '{"name": "vms/nowhere"}'), 4, "vms/nowhere does not exist"),
        (("GetVm", "@/nowhere/at/all"), 1, "/nowhere/at/all"),
    ],
)
def test_calls_that_are_refused(words: tuple[str, ...], code: int, told: str, pvc: Any) -> None:
    assert told in pvc("call", *words, code=code)[1]


def test_one_screen_tells_how_the_cluster_is(pvc: Any, stage: Stage) -> None:
    added = stage.added_node().node.name.partition("/")[2]
    out = pvc("cluster", "status")[0]
    assert "Health:" in out and "What is wrong:" in out and "Nodes:" in out
    assert f"nodes/{added} was added, and its machine has not come yet" in out
    assert f"→ sudo pvc cluster join, on {added}" in out
    assert pvc("status", "--short", code=1)[0] == "warning\n"
    faults = json.loads(pvc("cluster", "fault", "list", "-f", "json")[0])
    assert any(one["subject"] == f"nodes/{added}" for one in faults)
    assert f"nodes/{added}" in pvc("cluster", "fault", "list", "-f", "name")[0]
    assert json.loads(pvc("status", "-f", "json")[0])["name"] == "test"


@pytest.mark.parametrize(
    ("text", "subject", "todo"),
    [
        ("nodes/n3 was fenced: no session", "nodes/n3", "pvc node info n3"),
        ("nodes/n3: its watchdog is gone", "nodes/n3", "pvc node info n3"),
        ("nodes/n4 was added, and its machine has not come yet", "nodes/n4",
         "sudo pvc cluster join, on n4"),
        ("pools/fast cannot be used: gone", "pools/fast", "pvc pool info fast"),
        ("networks/lan cannot be used: no bridge", "networks/lan", "pvc network info lan"),
        ("vms/web does not run: no node fits", "vms/web", "pvc vm explain web; pvc vm log web"),
        ("the cluster is in maintenance: no node is fenced", "", "pvc cluster maintenance off"),
        ("high availability is disarmed: nodes that fail", "", "pvc cluster ha arm"),
        ("no coordinator leads", "", "pvc node list"),
        ("something new", "", ""),
    ],
)  # fmt: skip
def test_every_fault_leads_to_a_command(text: str, subject: str, todo: str) -> None:
    (found,) = faults_of(cluster_pb2.Cluster(faults=[text]))
    assert (found.subject, found.text, found.todo) == (subject, text, todo)


def test_versions(pvc: Any) -> None:
    out = pvc("version")[0]
    assert out.startswith("Client:  2.") and "Cluster: 2.0 (test)" in out and "7.2.22" in out
    assert json.loads(pvc("version", "-f", "json")[0])["nodes"]["n1"]["pvc"] == "2.0"
    assert list(yaml.safe_load(pvc("version", "--client", "-f", "yaml")[0])) == ["client"]


def test_the_client_tells_its_version_where_no_cluster_is(
    pvc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVC_CONNECTION", "127.0.0.1:1")
    assert pvc("version", "--client")[0].startswith("Client:")


def test_how_busy_the_nodes_are(pvc: Any) -> None:
    out = pvc("top", "--once")[0].splitlines()
    assert out[0].startswith("test  ") and "VMs run" in out[0]
    assert out[2].split()[:3] == ["NODE", "STATE", "CPU"] and out[3].startswith("n1 ")
    assert bar(0.25) == "#####...............   25%" and bar(7) == "#" * 20 + "  700%"
    node = cluster_pb2.Node()
    assert busy(node) == 0 and used(node) == 0
    node.status.cpus, node.status.memory_mib = 2, 1000
    node.status.load.load_percent, node.status.load.available_memory_mib = 100, 250
    assert (busy(node), used(node)) == (0.5, 0.75)


def test_one_side_of_a_vm_at_a_time(pvc: Any, stage: Stage) -> None:
    vm = stage.vm()
    assert pvc("vm", "tag", "add", vm, "red", "blue")[0] == f"vm {vm} has red, blue\n"
    assert pvc("vm", "tag", "add", vm, "red")[0] == f"vm {vm} has red already\n"
    assert pvc("vm", "tag", "get", vm)[0] == "red\nblue\n"
    pvc("vm", "tag", "remove", vm, "red")
    assert pvc("vm", "tag", "list", vm)[0] == "blue\n"
    pvc("vm", "vcpu", "set", vm, "8", "--topology", "2,2,2")
    assert "2 sockets × 2 cores × 2 threads" in pvc("vm", "vcpu", "get", vm)[0]
    assert "sockets,cores,threads" in pvc("vm", "vcpu", "set", vm, "4", "-t", "x", code=2)[1]
    pvc("vm", "memory", "set", vm, "3G", "--max", "6G")
    memory = stage.cluster.vms.get(vm).spec.memory
    assert (memory.memory_mib, memory.max_memory_mib) == (3072, 6144)
    pvc("vm", "memory", "set", vm, "2048")
    assert stage.cluster.vms.get(vm).spec.memory.max_memory_mib == 6144


def test_drives_and_interfaces_under_both_names(pvc: Any, stage: Stage) -> None:
    vm, volume = stage.vm(), stage.volume().replace("pools/", "").replace("/volumes/", "/")
    assert pvc("vm", "volume", "add", vm, volume)[0] == f"vm {vm} has the drive disk1\n"
    assert volume in pvc("vm", "volume", "get", vm)[0]
    assert pvc("vm", "volume", "remove", vm, volume)[0] == f"vm {vm} has no disk1 any more\n"
    pvc("vm", "attach-disk", vm, "--cdrom", "--id", "drive")
    assert "cdrom" in pvc("vm", "volume", "get", vm)[0]
    assert "name the VOLUME" in pvc("vm", "attach-disk", vm, code=2)[1]
    pvc("vm", "network", "add", vm, "default", "--id", "one")
    pvc("vm", "attach-nic", vm, "default", "--id", "two")
    assert "behind one, two" in pvc("vm", "network", "remove", vm, "default", code=2)[1]
    assert pvc("vm", "network", "remove", vm, "two")[0] == f"vm {vm} has no two any more\n"
    addresses = pvc("network", "dhcp", "list", "default", "-f", "csv")[0]
    assert any(line.split(",")[2:4] == [vm, "one"] for line in addresses.splitlines())


def test_a_file_is_looked_at_before_it_is_sent(pvc: Any, stage: Stage, seen: Any,
                                               tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "disk.qcow2"
    path.touch()
    taken = stage.volume().replace("pools/", "").replace("/volumes/", "/")
    assert "is empty" in pvc("volume", "import", str(path), "local/new", code=2)[1]
    path.write_bytes(b"x" * 512)
    assert "exists; nothing was sent" in pvc("volume", "import", str(path), taken, code=1)[1]
    assert "NAME" in pvc("volume", "import", str(path), "new", code=1)[1]
    assert "does not exist" in pvc("volume", "import", str(path), "none/new", code=4)[1]
    assert "would be sent" in pvc("volume", "import", str(path), "local/new", "--dry-run")[0]
    assert "would be sent" in pvc("image", "import", str(path), "new", "--dry-run")[0]
    assert not any(method == "UploadFile" for method, _ in seen)


def test_a_vm_begins_with_the_spec_of_another(pvc: Any, stage: Stage, tmp_path: Path) -> None:
    model, made = stage.vm(description="a model", tags=["red"]), stage.fresh("vm")
    spec = yaml.safe_load(pvc("vm", "export", model)[0])
    del spec["spec"]["uuid"]
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(spec))
    pvc("vm", "create", made, "--spec", str(path), "--vcpus", "2", "--max-vcpus", "2")
    row = stage.cluster.vms.get(made)
    assert row.spec.description == "a model" and row.spec.cpu.vcpus == 2
    path.write_text("name: pools/x\nspec: {}")
    assert "must hold one VM" in pvc("vm", "create", made, "--spec", str(path), code=2)[1]


def test_a_snapshot_without_a_name_is_called_by_the_time(pvc: Any, stage: Stage) -> None:
    vm = stage.vm_with_disk()
    out = pvc("vm", "snapshot", "create", vm)[0]
    assert out.startswith(f"snapshot {vm}/20") and len(out.split("/")[1].split(" ")[0]) == 14
    volume = stage.volume().replace("pools/", "").replace("/volumes/", "/")
    assert pvc("snapshot", "create", volume)[0].startswith(f"snapshot {volume}/20")


def test_operations_are_shown_in_every_format(pvc: Any, stage: Stage) -> None:
    own = stage.operation().partition("/")[2]
    shown = yaml.safe_load(pvc("operation", "info", own, "-f", "yaml")[0])
    assert shown["request"]["@type"].endswith("CreateVmRequest")
    assert json.loads(pvc("operation", "info", own, "-f", "json")[0]) == shown


def test_pools_and_names_as_two_words(pvc: Any, stage: Stage, tmp_path: Path) -> None:
    one, other, back = (stage.fresh("vol") for _ in range(3))
    assert pvc("storage", "volume", "add", "local", one, "2M")[0] == f"volume local/{one} is made\n"
    pvc("storage", "volume", "resize", "local", one, "4M")
    pvc("storage", "volume", "clone", "local", one, other)
    pvc("storage", "volume", "snapshot", "add", "local", one, "before")
    assert "before" in pvc("storage", "snapshot", "list", f"local/{one}", "-f", "name")[0]
    pvc("storage", "volume", "snapshot", "remove", "local", one, "before", "-y")
    pvc("storage", "volume", "rename", "local", other, f"{other}-b")
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2())
    pvc("storage", "volume", "upload", "local", back, str(path))
    assert pvc("storage", "volume", "info", f"local/{back}")[0]
    pvc("storage", "volume", "remove", "local", one, "--yes")
    assert f"local/{one}" not in pvc("storage", "volume", "list", "-f", "name")[0]


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["vms", "web", "20G"], ["vms/web", "20G"]),
        (["vms/web", "20G"], ["vms/web", "20G"]),
        (["vms", "--yes"], ["vms", "--yes"]),
        (["--yes", "vms", "web"], ["--yes", "vms", "web"]),
        (["vms"], ["vms"]),
        ([], []),
    ],
)
def test_which_words_are_joined(words: list[str], read: list[str]) -> None:
    assert joined(words) == read
    assert joined(["a", "b", "f"], file_last=True) == ["f", "a/b"]

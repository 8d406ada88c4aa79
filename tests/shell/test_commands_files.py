"""`pvc apply`, `diff`, `edit` and `export`: things as texts, against a whole PVC."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pvc.compute.v1 import vm_pb2
from services.mesh.amend import amend
from shell.contract.commented import commented
from shell.contract.kinds import kinds
from shell.contract.manifest import Malformed, documents, written
from tests.contract.stage import Stage


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "things.yaml"
        path.write_text(text)
        return str(path)

    return write


def edited_with(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Has an editor that does something to the file, "$1"."""
    path = folder / "the-editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(path))


def test_what_is_missing_is_made_in_the_order_in_which_it_is_needed(
    pvc: Any, stage: Stage, file: Any
) -> None:
    vm, net, volume = (stage.fresh(one) for one in ("vm", "net", "vol"))
    path = file(
        f"name: vms/{vm}\nmeta: {{labels: {{owner: ann}}}}\nspec:\n"
        f"  cpu: {{vcpus: 2}}\n  firmware: uefi\n  autostart: AUTOSTART_ALWAYS\n"
        f"  disks: [{{id: root, volume: pools/local/volumes/{volume}, bootOrder: 1}}]\n"
        f"  nics: [{{id: net0, network: networks/{net}}}]\n"
        f"---\nname: pools/local/volumes/{volume}\nspec: {{sizeBytes: '2097152'}}\n"
        f"---\nname: networks/{net}\nspec: {{ipv4: {{cidr: {stage.subnet()}}}}}\n"
    )
    out = pvc("apply", "-f", path, "--start")[0]
    assert out == (
        f"networks/{net} is made\npools/local/volumes/{volume} is made\nvms/{vm} is made\n"
    )
    made = stage.cluster.vms.get(vm)
    assert made.spec.cpu.vcpus == 2 and made.spec.firmware == vm_pb2.FIRMWARE_UEFI
    assert made.spec.disks[0].boot_order == 1 and made.meta.labels["owner"] == "ann"
    assert made.spec.autostart == vm_pb2.AUTOSTART_ALWAYS
    assert made.status.state == vm_pb2.VM_STATE_RUNNING
    again = pvc("apply", "-f", path)[0]
    assert again.count("is as it should be") == 3, "what the file does not say stays"
    assert pvc("diff", "-f", path, "--exit-code")[0].count("is as it should be") == 3


def test_only_what_the_file_says_is_changed(pvc: Any, stage: Stage, file: Any) -> None:
    vm = stage.vm(description="kept", tags=["kept"])
    path = file(f"name: vms/{vm}\nspec: {{memory: {{memory_mib: 512}}}}")
    shown = pvc("diff", "-f", path, "--exit-code", code=1)[0]
    assert "- spec.memory.memory_mib: 1024" in shown and "+ spec.memory.memory_mib: 512" in shown
    assert "would be accepted" in pvc("apply", "-f", path, "--dry-run")[0]
    assert stage.cluster.vms.get(vm).spec.memory.memory_mib == 1024
    assert pvc("apply", "-f", path)[0] == f"vms/{vm} is changed\n"
    spec = stage.cluster.vms.get(vm).spec
    assert (spec.memory.memory_mib, spec.description, list(spec.tags)) == (512, "kept", ["kept"])


def test_what_info_and_export_print_can_be_applied(pvc: Any, stage: Stage, file: Any) -> None:
    vm = stage.vm_with_nic()
    for text in (
        pvc("vm", "info", vm, "-f", "yaml")[0], pvc("vm", "info", vm, "-f", "json")[0],
        pvc("vm", "export", vm)[0], pvc("vm", "export", vm, "--comments")[0],
        pvc("vm", "list", vm, "-f", "yaml")[0],
    ):  # fmt: skip
        assert pvc("apply", "-f", file(text))[0] == f"vms/{vm} is as it should be\n"
    copy = stage.fresh("vm")
    spec = yaml.safe_load(pvc("vm", "export", vm)[0])
    spec["name"], spec["spec"]["uuid"], spec["spec"]["nics"][0]["mac"] = f"vms/{copy}", None, None
    assert pvc("apply", "-f", file(yaml.safe_dump(spec)))[0] == f"vms/{copy} is made\n"


def test_a_text_comes_from_standard_input(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = stage.fresh("vm")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"name: vms/{vm}".encode())))
    assert pvc("apply", "-f", "-")[0] == f"vms/{vm} is made\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is nothing in it"),
        ("name: [", "things.yaml: while parsing"),
        ("- 7", "7 is no thing with fields"),
        ("spec: {}", "name: '' names nothing that there is; names are vms/{vm}"),
        ("name: cars/x", "name: 'cars/x' names nothing"),
        ("name: vms/x\nspek: {}", "spek is no field of Vm; did you mean 'spec'?"),
        ("name: vms/x\nspec: {cpu: {vcpu: 1}}", "spec.cpu.vcpu is no field of CpuSpec; did you"),
        ("name: vms/x\nspec: {cpu: 7}", "spec.cpu must have fields (got 7)"),
        ("name: vms/x\nspec: {cpu: {vcpus: many}}", "spec.cpu.vcpus must be a whole number"),
        ("name: vms/x\nspec: {tags: red}", "spec.tags must be a list (got 'red')"),
        ("name: vms/x\nspec: {firmware: open}", "spec.firmware must be one of bios, uefi"),
        ("name: vms/x\nspec: {disks: [{id: a, bus: ide}]}", "spec.disks[0].bus must be one of"),
        ("name: vms/x\nmeta: {labels: [a]}", "meta.labels must be keys with values"),
        ("name: vms/x\nspec: {vnc: maybe}", "spec.vnc must be a true or false (got 'maybe')"),
        ("name: vms/x\n---\nname: vms/x", "vms/x stands there more than once"),
        ("name: nodes/none\nspec: {}", "nodes/none does not exist; make it with pvc node add"),
        ("name: images/none", "images/none does not exist; make it with pvc image build"),
    ],
)
def test_what_is_wrong_with_a_text_is_told_with_its_place(
    pvc: Any, file: Any, seen: Any, text: str, told: str
) -> None:
    err = pvc("apply", "-f", file(text), code=2)[1]
    assert told in err, err
    assert not any(method.startswith(("Create", "Update")) for method, _ in seen)


def test_one_thing_of_a_file_that_is_refused_is_told_and_the_others_are_made(
    pvc: Any, stage: Stage, file: Any
) -> None:
    bad, good = stage.fresh("vm"), stage.fresh("vm")
    text = f"name: vms/{bad}\nspec: {{cpu: {{vcpus: 999}}}}\n---\nname: vms/{good}"
    out, err = pvc("apply", "-f", file(text), code=1)
    assert out == f"vms/{good} is made\n"
    assert f"vms/{bad}:" in err and "must be between 1 and 512" in err


def test_volumes_cannot_be_changed_by_a_file(pvc: Any, stage: Stage, file: Any) -> None:
    name = stage.volume()
    err = pvc("apply", "-f", file(f"name: {name}\nspec: {{description: x}}"), code=2)[1]
    assert f"{name} cannot be changed by a file: spec.description differ" in err


def test_an_edit_is_shown_and_made(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vm = stage.vm(tags=["old"], description="old")
    script = "sed -i '/^  tags:/,/^  - old/d; s/memory_mib: 1024/memory_mib: 512/' \"$1\""
    edited_with(monkeypatch, tmp_path, script)
    out, err = pvc("vm", "edit", vm, "--yes")
    assert out == f"vms/{vm} is changed\n"
    assert "- spec.memory.memory_mib: 1024" in err and "+ spec.memory.memory_mib: 512" in err
    spec = stage.cluster.vms.get(vm).spec
    assert spec.memory.memory_mib == 512 and not list(spec.tags), "a line that is gone is default"
    assert spec.description == "old"


def test_an_edit_that_is_declined_keeps_the_text_in_a_file_that_is_named(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vm = stage.vm()
    edited_with(monkeypatch, tmp_path, "sed -i 's/memory_mib: 1024/memory_mib: 512/' \"$1\"")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    err = pvc("vm", "edit", vm, code=3)[1]
    kept = err.partition("your text is kept: ")[2].splitlines()[0]
    assert "memory_mib: 512" in Path(kept).read_text()
    assert Path(kept).stat().st_mode & 0o777 == 0o600
    assert pvc("apply", "-f", kept)[0] == f"vms/{vm} is changed\n"
    Path(kept).unlink()


def test_an_edit_without_a_change_leaves_nothing_behind(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    vm = stage.vm()
    for script in ("true", ': > "$1"', "sed -i 's/^# .*//' \"$1\""):
        edited_with(monkeypatch, tmp_path, script)
        assert "nothing was changed" in pvc("vm", "edit", vm)[0]
    assert not list(tmp_path.glob("pvc-edit-*"))


def test_an_edit_goes_on_where_others_changed_something_else(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = stage.vm()

    def meanwhile(filename: str) -> None:
        theirs = vm_pb2.VmSpec(description="somebody else's")
        stage.cluster.vms.change(vm, lambda row: row.spec.MergeFrom(theirs)).result(20)
        path = Path(filename)
        path.write_text(path.read_text().replace("memory_mib: 1024", "memory_mib: 512"))

    monkeypatch.setattr("click.edit", meanwhile)
    pvc("vm", "edit", vm, "--yes")
    spec = stage.cluster.vms.get(vm).spec
    assert (spec.memory.memory_mib, spec.description) == (512, "somebody else's")


def test_an_edit_of_what_somebody_else_changed_is_refused_and_kept(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = stage.vm()

    def meanwhile(filename: str) -> None:
        memory = vm_pb2.MemorySpec(memory_mib=2048, max_memory_mib=2048)
        stage.cluster.vms.change(vm, lambda row: row.spec.memory.CopyFrom(memory)).result(20)
        path = Path(filename)
        path.write_text(path.read_text().replace("memory_mib: 1024", "memory_mib: 512"))

    monkeypatch.setattr("click.edit", meanwhile)
    err = pvc("vm", "edit", vm, "--yes", code=1)[1]
    assert "somebody else changed spec.memory.memory_mib" in err and "your text is kept: " in err
    assert stage.cluster.vms.get(vm).spec.memory.memory_mib == 2048
    Path(err.partition("your text is kept: ")[2].splitlines()[0]).unlink()


def test_a_text_that_cannot_be_read_is_edited_again(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = stage.vm()
    turns = iter([("  memory_mib: 1024", "  memory_mib: lots"), ("mib: lots", "mib: 512")])

    def typed(filename: str) -> None:
        path = Path(filename)
        path.write_text(path.read_text().replace(*next(turns)))

    monkeypatch.setattr("click.edit", typed)
    stdin = io.StringIO("y\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    err = pvc("vm", "edit", vm, "--yes")[1]
    assert "spec.memory.memory_mib must be a whole number (got 'lots')" in err
    assert stage.cluster.vms.get(vm).spec.memory.memory_mib == 512


def test_another_name_is_no_edit(
    pvc: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    edited_with(monkeypatch, tmp_path, "sed -i 's/^name: .*/name: vms-other/' \"$1\"")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    err = pvc("vm", "edit", stage.vm(), code=3)[1]
    Path(err.partition("your text is kept: ")[2].splitlines()[0]).unlink()
    assert "names nothing that there is" in err


def test_modify_takes_a_file(pvc: Any, stage: Stage, file: Any) -> None:
    vm = stage.vm()
    path = file(f"name: vms/{vm}\nspec: {{description: of a file}}")
    assert "+ spec.description: of a file" in pvc("vm", "modify", vm, path, "--yes")[1]
    assert stage.cluster.vms.get(vm).spec.description == "of a file"
    assert "must hold vms/other alone" in pvc("vm", "modify", "other", path, code=2)[1]
    assert "not both" in pvc("vm", "modify", vm, path, "--vcpus", "2", code=2)[1]


def test_every_kind_is_written_and_read_again(stage: Stage) -> None:
    rows = [
        stage.cluster.vms.get(stage.vm_with_disk()), stage.cluster.pools.get("local"),
        stage.cluster.networks.get("default"), stage.cluster.nodes.get("n1"),
        stage.cluster.volumes.get(stage.volume()),
    ]  # fmt: skip
    for row, read in zip(rows, documents(written(rows)), strict=True):
        assert read.name == row.name and read.message.spec == cleaned(row)
        (with_words,) = documents(commented(row, "a head"))
        assert with_words.message == read.message


def cleaned(row: Any) -> Any:
    """A spec without what only the cluster writes."""
    from shell.contract.fields import behaves

    spec = type(row.spec)()
    spec.CopyFrom(row.spec)
    for field in spec.DESCRIPTOR.fields:
        if behaves(field, "OUTPUT_ONLY"):
            spec.ClearField(field.name)
    return spec


def test_empty_texts_are_malformed() -> None:
    for text in ("", "---\n---\n", "null"):
        with pytest.raises(Malformed):
            documents(text)
    assert {"vms", "pools", "networks", "nodes"} <= set(kinds())


def test_a_password_in_a_file_is_sent_and_never_shown(pvc: Any, stage: Stage, file: Any) -> None:
    node = stage.node()
    path = file(
        f"name: {node}\nspec:\n  power_control: {{protocol: redfish, address: 'http://bmc',"
        " user: root, password: s3cr3t}"
    )
    shown = pvc("diff", "-f", path)[0]
    assert "+ spec.power_control.password: (secret)" in shown and "s3cr3t" not in shown
    out, err = pvc("apply", "-f", path)
    assert out == f"{node} is changed\n" and "s3cr3t" not in err
    assert "password" not in pvc("node", "export", node.partition("/")[2])[0]


def test_many_things_of_a_file_are_one_list_for_programs(pvc: Any, stage: Stage, file: Any) -> None:
    vm, net, there = stage.fresh("vm"), stage.fresh("net"), stage.vm()
    path = file("\n---\n".join(f"name: {one}" for one in
                               (f"vms/{vm}", f"networks/{net}", f"vms/{there}")))  # fmt: skip
    names = [one["name"] for one in json.loads(pvc("apply", "-f", path, "--format", "json")[0])]
    assert sorted(names) == sorted([f"networks/{net}", f"vms/{vm}", f"vms/{there}"])
    begun = json.loads(
        pvc("apply", "-f", file(f"name: vms/{vm}\nspec: {{description: x}}"), "--format", "json",
            "--no-wait")[0]
    )  # fmt: skip
    assert begun[0]["target"] == f"vms/{vm}"


def test_an_agent_that_writes_in_between_keeps_nobody_from_applying(
    pvc: Any, stage: Stage, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shell.commands import applying

    vm, real, turns = stage.vm(), applying.step_for, iter((True, True, False))

    def overtaken(session: Any, document: Any) -> Any:
        step = real(session, document)
        if next(turns):
            amend(stage.whole.store, vm_pb2.Vm, f"vms/{vm}", a_crash_more)
        return step

    stage.whole.calm()
    monkeypatch.setattr(applying, "step_for", overtaken)
    path = file(f"name: vms/{vm}\nspec: {{description: mine}}")
    assert pvc("apply", "-f", path)[0] == f"vms/{vm} is changed\n"


def a_crash_more(vm: vm_pb2.Vm) -> None:
    vm.decision.crashes_seen += 1

"""The lab's parts that need no machine: texts, plans, units, counting."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import heartbeat
from lab.cluster import files, units
from lab.cluster.site import CONFIG, Lab, LabError
from lab.heartbeat import Beat
from lab.node.plan import Plan
from services.mesh.config import SERVICES, parse

LAB = Lab()


@pytest.mark.parametrize("node", LAB.nodes, ids=lambda node: str(node.name))
def test_a_node_s_configuration_is_one_that_pvc_takes(node: files.Node) -> None:
    config = parse(files.pvc_toml(node, 24_000), CONFIG)
    assert config.node_name == f"nodes/{node.name}"
    assert config.mesh.listen == node.address
    assert len(config.state.hosts) == 3
    assert config.state.tick_ms == files.TICK_MS
    assert 24_000 - config.compute.reserved_memory_mib == files.MEMORY_FOR_VMS_MIB


def test_the_units_start_every_service_as_a_process_of_its_own() -> None:
    programs = {one.name: one for one in units.programs()}
    assert sorted(programs) == sorted(SERVICES)
    compute = programs["compute"]
    assert compute.command[1:] == ("-m", "services.compute", "--config", CONFIG)
    assert (compute.restart_s, compute.stop_s) == (0.1, 45.0)
    assert compute.condition == "/var/lib/pvc/tls/node.crt"


def test_a_unit_that_the_lab_cannot_follow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pvc@.service").write_text("[Service]\nExecStart=/bin/true\nRestart=no\n")
    with pytest.raises(LabError, match="only Restart=always"):
        units.program("pvc@compute.service", tmp_path)
    (tmp_path / "pvc@.service").write_text("[Service]\nRestart=always\n")
    with pytest.raises(LabError, match="does not say how"):
        units.program("pvc@compute.service", tmp_path)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = Plan(
        host_name="n1",
        pid_file="/run/pid",
        overlays=(("/etc", "/disk/etc"),),
        binds=(("/a", "/b"),),
        environment=(("PATH", "/bin"),),
        programs=units.programs(),
    )
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan


def test_heartbeats_are_counted_by_their_numbers() -> None:
    beats = [Beat(0.0, 1, 65534), Beat(0.005, 1, 65535), Beat(0.105, 1, 1), Beat(0.11, 1, 2)]
    assert heartbeat.count(beats) == heartbeat.Count(4, 1, pytest.approx(0.1))
    assert heartbeat.count([]) == heartbeat.Count(0, 0, 0.0)


def test_labs_of_other_names_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVC_LAB", "two")
    other = Lab.chosen()
    assert not {other.run, other.disk, other.switch} & {LAB.run, LAB.disk, LAB.switch}
    monkeypatch.setenv("PVC_LAB", "../x")
    with pytest.raises(LabError):
        Lab.chosen()

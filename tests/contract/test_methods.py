"""Every method of every service is asked, through the client and through REST, and does what it
says. None can be forgotten: they are read off the contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc_client import Cluster
from pvc_client.operations import Pending
from services.mesh.rows import THIS_CLUSTER
from tests.contract.cases import CASES
from tests.contract.stage import WAIT_S, Stage
from tests.contract.verbs import VERBS
from tests.contract.ways import PUBLIC, Rest, ended
from tests.contract.whole import Whole, running
from tests.provisioner.worlds import qcow2

IN_HTTP = sorted(name for name, method in PUBLIC.items() if method.http is not None)
EMPTY = {"VmService/ReadConsoleLog"}
"""Methods whose answer says nothing here: a fake's console was never written to."""


def test_every_method_has_a_case() -> None:
    assert set(CASES) == set(PUBLIC)
    assert set(VERBS) == set(PUBLIC)
    assert set(IN_HTTP) == set(PUBLIC)


def test_it_comes_up_and_somebody_leads(tmp_path: Path) -> None:
    with running(tmp_path) as whole, whole.client() as cluster:
        assert cluster.status().leader == "nodes/n1"


@pytest.mark.parametrize("name", sorted(VERBS))
def test_through_the_client(
    name: str, whole: Whole, stage: Stage, cluster: Cluster, tmp_path: Path
) -> None:
    request = CASES[name](stage)
    answer = VERBS[name](cluster, request, tmp_path)
    if isinstance(answer, Pending):
        answer.result(WAIT_S)
        row = answer.refresh()
        assert row.state == Operation.STATE_SUCCEEDED and row.percent == 100
        assert row.method == PUBLIC[name].path.lstrip("/"), "it bears the name of what was asked"
    effect(name, whole, request, answer)


@pytest.mark.parametrize("name", IN_HTTP)
def test_through_rest(name: str, whole: Whole, stage: Stage, rest_way: Rest) -> None:
    request = CASES[name](stage)
    effect(name, whole, request, ended(whole, rest_way.ask(PUBLIC[name], request)))


def effect(name: str, whole: Whole, request: Any, answer: Any) -> None:
    """Checks in the state that what was asked is so."""
    verb = name.partition("/")[2]
    row: Any = None
    if verb in ("AttachConsole", "DownloadFile"):
        _check_bytes(verb, answer)
        return
    there = whole.store.snapshot()
    target = getattr(request, "name", "")
    if verb.startswith("Delete") and verb != "DeleteFile":
        assert there.named(target) is None
    elif verb.startswith("Rename"):
        new = f"{target.rpartition('/')[0]}/{request.ListFields()[1][1]}"
        assert there.named(target) is None and there.named(new) is not None
    elif verb.startswith(("Create", "Build", "Import", "Clone", "Provision")):
        assert there.named(_made(request)) is not None
    elif verb == "UpdateCluster":
        row = there.named(THIS_CLUSTER)
        assert row.spec.fence_delay_ms == request.spec.fence_delay_ms == answer.spec.fence_delay_ms
    elif verb == "RemoveNode":
        assert there.named(target) is None
    elif verb in STANDS:
        row = there.named(target)
        assert row.decision.state == STANDS[verb]
    elif verb.startswith("Update"):
        (changed,) = [value for field, value in request.ListFields() if hasattr(value, "name")]
        row = there.named(changed.name)
        assert getattr(row, "spec", row).description == "changed"
    elif verb.startswith("Get") and hasattr(answer, "name") and target:
        assert answer.name == target
    elif verb in POWER:
        row = there.named(target)
        assert row.status.state == POWER[verb]
    else:
        assert answer is None or answer or name in EMPTY


POWER = {
    "StartVm": 3, "ShutdownVm": 1, "StopVm": 1, "RebootVm": 3, "ResetVm": 3, "PauseVm": 4,
    "ResumeVm": 3,
}  # fmt: skip


STANDS = {
    "DrainNode": cluster_pb2.NODE_STATE_DRAINED,
    "ReadyNode": cluster_pb2.NODE_STATE_ONLINE,
}


def _check_bytes(verb: str, answer: Any) -> None:
    got = answer if isinstance(answer, bytes) else b"".join(one.data for one in answer)
    assert got == (b"hello" if verb == "AttachConsole" else qcow2())


def _made(request: Any) -> str:
    """The name of what a request makes."""
    parent = getattr(request, "parent", "")
    (key, made), *_ = [
        (field.name, value)
        for field, value in request.ListFields()
        if field.name.endswith("_id") and field.name not in ("request_id", "recipe_id")
    ]
    kind = f"{key.removesuffix('_id')}s"
    if (parent.startswith("pools/") and kind == "volumes") or kind == "snapshots":
        return f"{parent}/{kind}/{made}"
    return f"{kind}/{made}"

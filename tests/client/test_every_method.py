"""Every method of every service through the asyncio client, as tests/contract has it for the
blocking one; and what both halves know of the methods. None can be forgotten: they are read off the
contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.core.v1.operation_pb2 import Operation
from pvc_client import contract
from tests.client.blocking import blocking
from tests.contract.cases import CASES
from tests.contract.stage import WAIT_S, Stage
from tests.contract.test_methods import effect
from tests.contract.verbs import VERBS
from tests.contract.ways import PUBLIC
from tests.contract.whole import Whole, running

METHODS = {
    method.short: method
    for service in contract.SERVICES
    for method in (service[n] for n in service)
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("pvc")) as whole:
        yield whole


@pytest.fixture(scope="module")
def stage(whole: Whole) -> Iterator[Stage]:
    with whole.client() as cluster:
        yield Stage(whole, cluster)


@pytest.fixture(scope="module")
def asyncio_cluster(whole: Whole) -> Iterator[Any]:
    address = f"127.0.0.1:{whole.doors.grpc_port}"
    with blocking(address, token=whole.secrets["eve"], timeout_s=20) as cluster:
        yield cluster


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_through_asyncio(
    name: str, whole: Whole, stage: Stage, asyncio_cluster: Any, tmp_path: Path
) -> None:
    request = CASES[name](stage)
    answer = VERBS[name](asyncio_cluster, request, tmp_path)
    if hasattr(answer, "refresh"):
        answer.result(WAIT_S)
        row = answer.refresh()
        assert row.state == Operation.STATE_SUCCEEDED and row.percent == 100
    effect(name, whole, request, answer)


def test_the_client_knows_every_service() -> None:
    assert set(PUBLIC) <= set(METHODS)
    for short, method in PUBLIC.items():
        ours = METHODS[short]
        assert (ours.path, ours.request, ours.response) == (
            method.path, method.request, method.response,
        )  # fmt: skip


def test_only_what_is_safe_is_repeated() -> None:
    once = {short for short in PUBLIC if not METHODS[short].repeatable}
    assert once == {
        "NodeService/JoinNode",  # its secret is good for once
        "StorageService/DeleteFile",  # the second time it would not be there
        "StorageService/UploadFile",
        "VmService/AttachConsole",
    }
    for short, method in PUBLIC.items():
        if METHODS[short].reads:
            assert not method.mutates or short == "NodeService/CheckNodePower", short
            assert "request_id" not in method.request.DESCRIPTOR.fields_by_name, short

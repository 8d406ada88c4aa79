"""Reading, changing and writing back, when others write too; and what of a resource is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc_client import Cluster, contract, errors
from tests.client.blocking import blocking
from tests.contract.whole import Whole, running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("pvc")) as whole:
        yield whole


@pytest.fixture(params=[Cluster, blocking], ids=["blocking", "asyncio"])
def cluster(whole: Whole, request: pytest.FixtureRequest) -> Iterator[Any]:
    address = f"127.0.0.1:{whole.doors.grpc_port}"
    with request.param(address, token=whole.secrets["eve"], timeout_s=20) as cluster:
        yield cluster


def fresh(cluster: Any, **spec: Any) -> str:
    name = f"vm{len(list(cluster.vms.list()))}"
    cluster.vms.create(name, vm_pb2.VmSpec(**spec)).result(20)
    return name


def test_only_what_was_changed_is_written(cluster: Any) -> None:
    vm = fresh(cluster, description="old", tags=["a", "b"], cpu={"vcpus": 2})

    def change(read: vm_pb2.Vm) -> None:
        read.spec.ClearField("description")
        read.spec.tags.append("c")
        read.meta.labels["owner"] = "ann"

    spec = cluster.vms.change(vm, change).result(20).spec
    assert (spec.description, list(spec.tags), spec.cpu.vcpus) == ("", ["a", "b", "c"], 2)
    assert cluster.vms.get(vm).meta.labels["owner"] == "ann"


def test_nothing_of_what_many_write_at_once_is_lost(cluster: Any, whole: Whole) -> None:
    vm = fresh(cluster)

    def write(number: int) -> None:
        def change(read: vm_pb2.Vm) -> None:
            read.meta.labels[f"n{number}"] = "x"

        with whole.client() as other:
            other.vms.change(vm, change).result(20)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    cluster.vms.change(vm, lambda read: read.meta.labels.update(mine="x")).result(20)
    for writer in writers:
        writer.join(20)
    assert set(cluster.vms.get(vm).meta.labels) == {"mine", *(f"n{n}" for n in range(6))}


def test_a_change_that_changes_nothing_changes_nothing(cluster: Any) -> None:
    vm = fresh(cluster, description="as it is")
    before = cluster.vms.get(vm).meta.generation
    cluster.vms.change(vm, lambda read: None).result(20)
    after = cluster.vms.get(vm)
    assert (after.meta.generation, after.spec.description) == (before, "as it is")


def test_every_kind_can_be_changed(cluster: Any, whole: Whole) -> None:
    cluster.nodes.change("n1", lambda node: setattr(node.spec, "description", "first"))
    assert cluster.nodes.get("n1").spec.description == "first"
    cluster.pools.change("local", lambda pool: setattr(pool.spec, "description", "fast"))
    assert cluster.pools.get("local").spec.description == "fast"
    change = lambda network: setattr(network.spec, "description", "mine")  # noqa: E731
    assert cluster.networks.change("default", change).result(20).spec.description == "mine"
    cluster.tokens.change("ann", lambda token: setattr(token, "description", "hers"))
    assert cluster.tokens.get("ann").description == "hers"


def test_what_cannot_be_changed_is_refused(cluster: Any) -> None:
    vm = fresh(cluster)
    with pytest.raises(errors.InvalidRequest):
        cluster.vms.change(vm, lambda read: setattr(read.spec.cpu, "vcpus", 100_000))
    with pytest.raises(errors.NotFound):
        cluster.vms.change("nowhere", lambda read: None)


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        (lambda vm: None, []),
        (lambda vm: setattr(vm.spec.cpu, "vcpus", 4), ["spec.cpu.vcpus"]),
        (lambda vm: vm.spec.ClearField("cpu"), ["spec.cpu"]),
        (lambda vm: vm.spec.tags.append("x"), ["spec.tags"]),
        (lambda vm: vm.meta.labels.update(a="b"), ["meta.labels"]),
        (lambda vm: vm.ClearField("spec"), ["spec"]),
    ],
)
def test_differences_as_paths(change: Any, paths: list[str]) -> None:
    before, after = vm_pb2.Vm(spec={"cpu": {"vcpus": 2}}, meta={}), vm_pb2.Vm()
    after.CopyFrom(before)
    change(after)
    assert list(contract.differences(before, after)) == paths

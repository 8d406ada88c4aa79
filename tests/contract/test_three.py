"""What a user asks for at the door of one node and another node has to do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from pvc_client.errors import Unavailable
from tests.contract.three import NODES, SHARED, Three, three_running
from tests.contract.whole import MIB
from tests.provisioner.worlds import qcow2

WAIT_S = 60.0


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with three_running(tmp_path_factory.mktemp("three")) as three:
        yield three


def volume(three: Three, door: str, name: str, **spec: Any) -> storage_pb2.Volume:
    wanted = storage_pb2.VolumeSpec(size_bytes=2 * MIB, **spec)
    with three.client(door) as cluster:
        return cluster.volumes.create(name, wanted).result(WAIT_S)


def vm_on(three: Three, door: str, vm: str, disk: str) -> vm_pb2.Vm:
    """A running VM with that volume."""
    spec = vm_pb2.VmSpec(disks=[vm_pb2.DiskSpec(id="data", volume=f"pools/{disk}")])
    with three.client(door) as cluster:
        cluster.vms.create(vm, spec, start=True).result(WAIT_S)
    return three.find(vm_pb2.Vm, f"vms/{vm}")  # type: ignore[no-any-return]


def worker(three: Three, verb: str, target: str) -> str:
    """The node that did the newest work of that kind on a target."""
    return [
        row.node
        for row in three.rows(Operation)
        if row.target == target and row.method.endswith(verb)
    ][-1]


def slash(name: str) -> str:
    return name.replace("/volumes/", "/").removeprefix("pools/")


@pytest.mark.parametrize("door", NODES)
def test_a_vm_goes_where_its_volume_is_and_its_console_comes_from_there(
    three: Three, door: str
) -> None:
    made = volume(three, door, f"local-n2/far-{door}")
    assert made.status.node == "nodes/n2"
    assert worker(three, "CreateVolume", made.name) == "nodes/n2"
    vm = vm_on(three, door, f"far-{door}", f"local-n2/volumes/far-{door}")
    assert vm.status.node == "nodes/n2" and vm.status.state == vm_pb2.VM_STATE_RUNNING
    assert f"far-{door}" in three["n2"].hypervisor.domains()
    with three.client(door) as cluster, cluster.vms.console(f"far-{door}") as console:
        console.write(b"hello\n")
        assert console.read() == b"hello\n"


@pytest.mark.parametrize("door", NODES)
def test_work_on_a_shared_pool_is_done_where_it_is_asked_for(three: Three, door: str) -> None:
    name = f"{SHARED}/volumes/mine-{door}"
    assert volume(three, door, f"shared/mine-{door}").status.node == ""
    assert worker(three, "CreateVolume", name) == f"nodes/{door}"
    with three.client(door) as cluster:
        cluster.volumes.resize(slash(name), 4 * MIB).result(WAIT_S)
        cluster.volumes.snapshots.create(f"{slash(name)}/s").result(WAIT_S)
        cluster.volumes.snapshots.rollback(f"{slash(name)}/s").result(WAIT_S)
        cluster.volumes.snapshots.delete(f"{slash(name)}/s").result(WAIT_S)
        cluster.volumes.rename(slash(name), f"other-{door}").result(WAIT_S)
        cluster.volumes.delete(f"shared/other-{door}").result(WAIT_S)


@pytest.mark.parametrize("door", NODES)
def test_a_volume_that_is_open_elsewhere_is_changed_there(three: Three, door: str) -> None:
    name = f"open-{door}"
    volume(three, "n3", f"shared/{name}")
    vm = vm_on(three, "n3", name, f"shared/volumes/{name}")
    home = three[vm.status.node.removeprefix("nodes/")]
    with three.client(door) as cluster:
        cluster.volumes.resize(f"shared/{name}", 4 * MIB).result(WAIT_S)
        cluster.volumes.snapshots.create(f"shared/{name}/s").result(WAIT_S)
    path = f"/shared/volumes/{name}.qcow2"
    assert home.hypervisor.sizes[path] == 4 * MIB and home.hypervisor.snapshots[path] == ["s"]
    assert worker(three, "ResizeVolume", f"{SHARED}/volumes/{name}") == f"nodes/{door}"


def uploaded(three: Three, door: str, folder: Path) -> str:
    path = folder / f"{door}.qcow2"
    path.write_bytes(qcow2())
    with three.client(door) as cluster:
        return str(cluster.files.upload(path).name)


@pytest.mark.parametrize("pool", ["local", "local-n3", "shared"])
def test_a_file_may_be_uploaded_to_any_node_and_imported_at_any(
    three: Three, tmp_path: Path, pool: str
) -> None:
    file = uploaded(three, "n2", tmp_path)
    assert file.startswith("files/n2.")
    with three.client("n1") as cluster:
        made = cluster.volumes.import_file(f"{pool}/imported", file).result(WAIT_S)
        assert made.status.state == storage_pb2.VolumeStatus.STATE_READY
    expected = {"local": "nodes/n1", "local-n3": "nodes/n3", "shared": "nodes/n2"}[pool]
    assert worker(three, "ImportVolume", made.name) == expected
    with three.client("n3") as cluster:
        cluster.files.delete(file)


def test_what_one_node_exported_is_downloaded_at_another(three: Three, tmp_path: Path) -> None:
    volume(three, "n1", "local-n3/out")
    with three.client("n1") as cluster:
        file = cluster.volumes.export("local-n3/out").result(WAIT_S)
    assert file.node == "nodes/n3"
    to = tmp_path / "out.qcow2"
    with three.client("n2") as cluster:
        cluster.files.download(file, to)
    assert hashlib.sha256(to.read_bytes()).hexdigest() == file.sha256


@pytest.mark.parametrize("door", NODES)
def test_a_vm_is_provisioned_from_a_shared_image_at_any_door(three: Three, door: str) -> None:
    image = f"image-{door}"
    with three.client(door) as cluster:
        cluster.images.build(image, pool="shared", recipe_id="debian-12").result(WAIT_S)
    other = NODES[(NODES.index(door) + 1) % 3]
    for pool in ("", "pools/local-n2"):
        name = f"made-{door}{pool[-3:]}"
        with three.client(other) as cluster:
            provision(cluster, name, image, pool)
        vm = three.find(vm_pb2.Vm, f"vms/{name}")
        assert vm.status.state == vm_pb2.VM_STATE_RUNNING
        assert not pool or vm.status.node == "nodes/n2"


def provision(cluster: Any, name: str, image: str, pool: str) -> None:
    spec = vm_pb2.VmSpec()
    cluster.vms.provision(name, image, spec=spec, pool=pool, start=True).result(WAIT_S)


def test_an_image_that_was_uploaded_elsewhere_is_imported(three: Three, tmp_path: Path) -> None:
    file = uploaded(three, "n3", tmp_path)
    with three.client("n1") as cluster:
        image = cluster.images.import_file("brought", file, pool="local").result(WAIT_S)
    assert image.status.volume == "pools/local/volumes/image-brought"
    assert worker(three, "ImportImage", "images/brought") == "nodes/n3"


def test_the_network_is_on_every_node(three: Three) -> None:
    for node in three.nodes.values():
        links = node.fabric.machine.links
        (carrying,) = [link for name, link in links.items() if name.startswith("pvcvx-")]
        assert carrying.overlay is not None and len(carrying.overlay.peers) == 2
    volume(three, "n1", "local-n3/nic")
    spec = vm_pb2.VmSpec(
        disks=[vm_pb2.DiskSpec(id="d", volume="pools/local-n3/volumes/nic")],
        nics=[vm_pb2.NicSpec(id="net0", network="networks/default")],
    )
    with three.client("n2") as cluster:
        cluster.vms.create("nic", spec, start=True).result(WAIT_S)
    given = {row.vm for row in three.find(network_pb2.Network, "networks/default").status.addresses}
    assert "vms/nic" in given


def test_a_node_that_dies_in_the_middle_is_unreachable_and_may_be_asked_again(
    tmp_path: Path,
) -> None:
    with three_running(tmp_path) as three:
        volume(three, "n1", "local-n3/last")
        vm_on(three, "n1", "last", "local-n3/volumes/last")
        with three.client("n1") as cluster:
            with cluster.vms.console("last") as console:
                console.write(b"x")
                assert console.read() == b"x"
                three.kill("n3")
                with pytest.raises(Unavailable):
                    while console.read():
                        pass
            with pytest.raises(Unavailable, match=r"reached|no compute service"):
                next(cluster.vms.console_log("last"))
            # What needs no other node goes on.
            assert cluster.vms.get("last").name == "vms/last"
            assert volume(three, "n2", "shared/after").status.state == 2

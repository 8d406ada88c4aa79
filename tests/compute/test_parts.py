"""What keeps a VM from being started on one node and not on another."""

from __future__ import annotations

from pathlib import Path

from pvc.compute.v1 import vm_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.machine import machine_for, missing, volumes_by_path
from services.compute.settings import ComputeSettings
from services.state.memory import MemoryStore
from services.state.store import Put, Snapshot

READY = network_pb2.NetworkStatus.STATE_READY
VOLUME = "pools/shared/volumes/web"


def vm() -> vm_pb2.Vm:
    row = vm_pb2.Vm(name="vms/web")
    row.spec.nics.add(id="net0", network="networks/default", mac="52:54:00:00:00:01")
    row.spec.disks.add(id="root", volume=VOLUME)
    return row


def network(**parts: str) -> network_pb2.Network:
    """parts: n1="" where it is ready, or why not."""
    row = network_pb2.Network(name="networks/default")
    row.status.state, row.status.bridge = READY, "pvcbr-default"
    row.spec.mtu, row.status.mtu = 1500, 1450
    for node, why in parts.items():
        bridge = f"br-{node}"
        part = network_pb2.NetworkAtNode(ready=not why, why=why, bridge=bridge)
        row.status.nodes[node].CopyFrom(part)
    return row


def state(net: network_pb2.Network, *, node: str = "", **parts: str) -> Snapshot:
    """node: of the pool, which is shared without one."""
    pool = storage_pb2.Pool(name="pools/shared")
    pool.spec.shared, pool.spec.node = not node, node
    for at, why in parts.items():
        pool.status.nodes[at].CopyFrom(storage_pb2.PoolAtNode(ready=not why, why=why))
    volume = storage_pb2.Volume(name=VOLUME)
    volume.status.state, volume.status.path = storage_pb2.VolumeStatus.STATE_READY, "/s/web.qcow2"
    store = MemoryStore()
    store.commit([Put(net), Put(pool), Put(volume)])
    return store.snapshot()


def test_a_network_is_what_this_node_says_of_it() -> None:
    snapshot = state(network(n1="", n2="the bridge is in the way"))
    assert missing(snapshot, vm(), "nodes/n1") == ""
    assert "not ready on this node (the bridge is in the way)" in missing(
        snapshot, vm(), "nodes/n2"
    )
    assert "n3 has not set it up yet" in missing(snapshot, vm(), "nodes/n3")


def test_without_parts_the_whole_is_asked() -> None:
    assert missing(state(network()), vm(), "nodes/n1") == ""


def test_a_shared_volume_is_opened_where_its_pool_can_be_used() -> None:
    snapshot = state(network(), n1="", n2="it is not mounted")
    assert missing(snapshot, vm(), "nodes/n1") == missing(snapshot, vm(), "nodes/n3") == ""
    assert "pools/shared cannot be used on this node: it is not mounted" in missing(
        snapshot, vm(), "nodes/n2"
    )


def test_a_volume_of_another_node_is_never_opened() -> None:
    snapshot = state(network(), node="nodes/n2")
    assert missing(snapshot, vm(), "nodes/n2") == ""
    assert f"{VOLUME} cannot be opened here (it is on nodes/n2)" in missing(
        snapshot, vm(), "nodes/n1"
    )


def test_a_domain_is_on_this_nodes_bridge_with_the_packets_of_all() -> None:
    settings = ComputeSettings("nodes/n2", Path("/var/lib/pvc/compute"))
    made = machine_for(state(network(n1="", n2="")), vm(), settings, "tcg", {})
    assert made.networks["networks/default"].name == "br-n2"
    assert made.networks["networks/default"].mtu == 1450


def test_a_file_at_the_same_path_of_another_nodes_pool_is_not_this_ones() -> None:
    path, row, puts = "/var/lib/pvc/pools/local/volumes/web.qcow2", vm(), []
    for node in ("n1", "n2"):
        pool = storage_pb2.Pool(name=f"pools/local-{node}")
        pool.spec.node = f"nodes/{node}"
        volume = storage_pb2.Volume(name=f"{pool.name}/volumes/web")
        volume.status.path, volume.status.size_bytes = path, 1 << 30
        puts += [Put(pool), Put(volume)]
    row.spec.disks[0].volume = "pools/local-n2/volumes/web"
    row.status.disks.add(id="root", volume="pools/local-n1/volumes/web")
    store = MemoryStore()
    store.commit(puts)
    for node in ("n1", "n2"):
        found = volumes_by_path(store.snapshot(), row, f"nodes/{node}")
        assert found == {path: (f"pools/local-{node}/volumes/web", 1 << 30)}

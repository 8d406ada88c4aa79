"""A cluster begins: on one machine, or as the first of several that keep their state outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from pvc.gateway.v1 import token_pb2
from services.mesh.config import load
from services.mesh.errors import PvcError
from services.mesh.identity import Files, names_of
from services.mesh.opening import open_store
from services.mesh.rows import THIS_CLUSTER
from services.pvcd import remove as leaving
from services.pvcd.init import init
from services.pvcd.remove import remove
from services.state.store import Delete, Put
from tests.state.zookeeper_server import ZookeeperServer, missing


def written(folder: Path, name: str = "n1", more: str = "", cluster: str = "home") -> Path:
    """A node's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pvc.toml"
    file.write_text(
        f'[node]\nname = "{name}"\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n'
        f'[cluster]\nname = "{cluster}"\n{more}'
    )
    return file


def rows_of(file: Path) -> tuple[cluster_pb2.Node, cluster_pb2.ClusterIdentity]:
    """The first node, and the cluster."""
    store = open_store(load(file))
    try:
        snapshot = store.snapshot()
        (node,) = snapshot.rows(cluster_pb2.Node)
        (cluster,) = snapshot.rows(cluster_pb2.ClusterIdentity)
        assert snapshot.find(token_pb2.Token, "tokens/admin") is not None
        return node, cluster
    finally:
        store.close()


def test_a_single_machine_is_a_cluster_too(tmp_path: Path) -> None:
    file = written(tmp_path)
    made = init(file).made
    assert set(made) == {"pools/local", "networks/default", "nodes/n1", THIS_CLUSTER}
    node, cluster = rows_of(file)
    assert node.name == "nodes/n1" and node.spec.coordinator and not node.decision.state
    assert (cluster.name, cluster.display_name) == (THIS_CLUSTER, "home")
    tls = tmp_path / "state" / "tls"
    assert {path.name for path in tls.iterdir()} == {
        "ca.crt", "ca.key", "node.crt", "node.key", "cluster.key"
    }  # fmt: skip
    assert names_of(Files(tls).pair("node").certificate)[1] == ["n1", "localhost", "127.0.0.1"]
    before = {path: path.read_bytes() for path in tls.iterdir()}
    assert init(file).made == ()
    assert {path: path.read_bytes() for path in tls.iterdir()} == before


def test_the_certificate_names_where_the_doors_are(tmp_path: Path) -> None:
    more = '[mesh]\nlisten = "10.0.0.1"\n[gateway]\ngrpc_listen = "192.0.2.7:7371"\n'
    init(written(tmp_path, more=more))
    certificate = Files(tmp_path / "state" / "tls").pair("node").certificate
    assert names_of(certificate)[1] == ["n1", "10.0.0.1", "192.0.2.7", "localhost", "127.0.0.1"]


def refusal(file: Path) -> str:
    with pytest.raises(PvcError) as caught:
        init(file)
    assert caught.value.reason == reason_pb2.REASON_INVALID_CONFIG
    return caught.value.message


@pytest.fixture(scope="module")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    if why := missing():
        pytest.skip(why)
    server = ZookeeperServer(tmp_path_factory.mktemp("zookeeper"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def several(host: str, address: str) -> str:
    listen = f'[mesh]\nlisten = "{address}"\n' if address else ""
    return f'[state]\ndriver = "zookeeper"\nhosts = ["{host}"]\n{listen}'


@pytest.mark.real
def test_a_cluster_of_several_machines_begins_on_one(
    tmp_path: Path, zookeeper: ZookeeperServer
) -> None:
    first = written(tmp_path / "n1", more=several(zookeeper.address, "10.0.0.1"))
    assert len(init(first).made) == 4 and init(first).made == ()
    node, _ = rows_of(first)
    assert (node.spec.address, node.spec.coordinator) == ("10.0.0.1", True)
    second = written(tmp_path / "n2", "n2", several(zookeeper.address, "10.0.0.2"))
    assert "was begun on another machine already" in refusal(second)
    assert not (tmp_path / "n2" / "state" / "tls").exists(), "it made no authority of its own"
    other = written(tmp_path / "n3", "n1", several(zookeeper.address, "10.0.0.3"), "elsewhere")
    assert "holds the cluster 'home'" in refusal(other)


def test_several_machines_need_an_address(tmp_path: Path) -> None:
    assert "needs mesh.listen" in refusal(written(tmp_path, more=several("127.0.0.1:2181", "")))
    assert not (tmp_path / "state").exists()


@pytest.mark.real
def test_a_machine_leaves_when_the_cluster_let_it_go(
    tmp_path: Path, zookeeper: ZookeeperServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(leaving, "end_guests", lambda config: done.append("guests"))
    monkeypatch.setattr(leaving, "clean_up", lambda *_: done.append("networks") or ())
    more = several(f"{zookeeper.address}", "10.0.0.9")
    file = written(tmp_path, "n9", more)
    config = load(file)
    for folder in (config.node.state_dir, config.node.run_dir):
        Path(folder).mkdir()
    store = open_store(config)
    store.commit([Put(cluster_pb2.Node(name="nodes/n9"))])
    store.acquire("nodes/n9", "nodes/n9")
    with pytest.raises(PvcError, match="works: stop its services first"):
        remove(file)
    store.close()
    with pytest.raises(PvcError, match="'pvc node remove n9'"):
        remove(file)
    assert not done and Path(config.node.state_dir).exists()
    store = open_store(config)
    store.commit([Delete("nodes/n9", "*")])
    store.close()
    assert remove(file) == () and done == ["guests", "networks"]
    assert not Path(config.node.state_dir).exists() and not Path(config.node.run_dir).exists()


@pytest.mark.real
def test_a_machine_can_be_taken_off_though_the_cluster_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "end_guests", lambda config: None)
    monkeypatch.setattr(leaving, "clean_up", lambda *_: ())
    file = written(tmp_path, "n9", several("127.0.0.1:1", "10.0.0.9"))
    Path(load(file).node.state_dir).mkdir()
    assert remove(file, force=True) == () and not Path(load(file).node.state_dir).exists()

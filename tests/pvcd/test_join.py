"""A machine joins over a real TLS door: once, safely repeated, and nobody else with its token."""

from __future__ import annotations

import base64
import io
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import event_pb2, operation_pb2
from pvc_client import errors
from services.coordinator.letting_in import read_token
from services.mesh import enrolment, identity
from services.mesh.channel import Peers
from services.mesh.config import load
from services.mesh.errors import PvcError
from services.mesh.identity import Files
from services.mesh.renewal import Renewal
from services.pvcd import join as joining
from services.pvcd.join import join
from shell.main import run
from tests.pvcd.first_node import CLUSTER, FirstNode, SetClock, first_node_in


@pytest.fixture
def first(tmp_path: Path) -> Iterator[FirstNode]:
    with first_node_in(tmp_path / "n1") as first:
        yield first


@dataclass
class Machine:
    """A machine that is to join: the folder that it keeps all in."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "pvc.toml"

    @property
    def tls(self) -> Path:
        return self.folder / "state" / "tls"

    def with_config(self, name: str = "n2", more: str = "") -> Machine:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(
            f'[node]\nname = "{name}"\nstate_dir = "{self.folder}/state"\n'
            f'[cluster]\nname = "{CLUSTER}"\n{more}'
        )
        return self

    def fitting(self, address: str = "10.0.0.2") -> Machine:
        return self.with_config(
            more='[state]\ndriver = "zookeeper"\nhosts = ["10.0.0.1:2181"]\n'
            f'session_timeout_s = 7\n[mesh]\nlisten = "{address}"\n'
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "n2").fitting()


def token_for(first: FirstNode, node: str = "n2", **given: Any) -> str:
    with first.client() as cluster:
        return cluster.nodes.add(node, f"10.0.0.{node[1:]}", **given).token


def refusal(token: str, machine: Machine) -> PvcError:
    with pytest.raises(PvcError) as caught:
        join(token, machine.file)
    return caught.value


def test_a_machine_joins_and_is_known_by_its_certificate(
    first: FirstNode, machine: Machine
) -> None:
    joined = join(token_for(first), machine.file)
    assert (joined.cluster, joined.node, joined.coordinator) == (CLUSTER, "nodes/n2", False)
    assert {path.name for path in machine.tls.iterdir()} == {"ca.crt", "node.crt", "node.key"}
    assert {path.stat().st_mode & 0o777 for path in machine.tls.iterdir()} == {0o600}
    pair = Files(machine.tls).pair("node")
    names = ["n2", "10.0.0.2", "localhost", "127.0.0.1"]
    assert identity.names_of(pair.certificate) == ("n2", names)
    # It speaks with the services of the others, as that node and no other.
    answer = renewed(first, machine, "n2")
    assert answer.certificate and not answer.authority_key and not answer.cluster_key
    with pytest.raises(grpc.RpcError) as caught:
        renewed(first, machine, "n1")
    assert "common name" in caught.value.details()  # type: ignore[attr-defined]


def renewed(first: FirstNode, machine: Machine, name: str) -> api.RenewNodeResponse:
    """A certificate in the name of a node, asked for with the machine's own."""
    credentials = Files(machine.tls).channel_credentials(first.clock.now())
    options = (("grpc.ssl_target_name_override", "n1"),)
    request = enrolment.request_for(Files(machine.tls).pair("node").key, name)
    with grpc.secure_channel(first.mesh, credentials, options) as channel:
        stub: Any = api_grpc.NodeServiceStub(channel)
        asked = api.RenewNodeRequest(certificate_request=request)
        answer: api.RenewNodeResponse = stub.RenewNode(
            asked, timeout=60, metadata=[("pvc-caller", "certificate n1")]
        )
        return answer


def test_a_coordinator_gets_the_keys_of_the_cluster(first: FirstNode, machine: Machine) -> None:
    assert join(token_for(first, coordinator=True), machine.file).coordinator
    for name in ("ca.key", "cluster.key"):
        assert (machine.tls / name).read_bytes() == (first.tls / name).read_bytes()
        assert (machine.tls / name).stat().st_mode & 0o777 == 0o600


def test_a_configuration_is_made_where_there_is_none(
    first: FirstNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = joining.parse

    def in_our_folder(text: str, file: str) -> Any:
        return plain(text.replace("[node]", f'[node]\nstate_dir = "{tmp_path}/s"'), file)

    monkeypatch.setattr(joining, "parse", in_our_folder)
    monkeypatch.setattr(joining, "load", lambda path: in_our_folder(path.read_text(), str(path)))
    file = tmp_path / "etc" / "pvc.toml"
    assert join(token_for(first, "n3"), file).made == (str(file), f"{tmp_path}/s/tls")
    made = load(file)
    assert (made.node.name, made.cluster.name) == ("n3", CLUSTER)
    assert (made.state.driver, made.state.hosts) == ("zookeeper", ("10.0.0.1:2181",))
    assert (made.state.session_timeout_s, made.state.tls) == (7, False)
    assert (made.mesh.listen, made.door) == ("10.0.0.3", "10.0.0.3:7371")


def test_credentials_for_the_state_come_along(tmp_path: Path) -> None:
    with first_node_in(tmp_path / "n1", state_credentials="pvc:secret") as first:
        machine = Machine(tmp_path / "n2").fitting()
        told = refusal(token_for(first), machine).message
        file = machine.folder / "state" / "state.credentials"
        assert "state.credentials_file must be" in told and str(file) in told
        assert file.read_text() == "pvc:secret\n" and file.stat().st_mode & 0o777 == 0o600


def test_joining_again_changes_nothing(first: FirstNode, machine: Machine) -> None:
    token = token_for(first)
    join(token, machine.file)
    before = {path: path.read_bytes() for path in machine.folder.rglob("*") if path.is_file()}
    assert join(token, machine.file).made == ()
    after = {path: path.read_bytes() for path in machine.folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("lost", ["_check_answer", "_check_config", "write"])
def test_what_broke_off_goes_on_with_the_same_key(
    lost: str, first: FirstNode, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine died after the cluster had answered: it may ask again, and nobody else."""

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    token = token_for(first)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Files if lost == "write" else joining, lost, dies)
        join(token, machine.file)
    assert join(token, machine.file).node == "nodes/n2"
    Files(machine.tls).checked(first.clock.now())


def test_nobody_else_uses_a_token(first: FirstNode, machine: Machine, tmp_path: Path) -> None:
    token = token_for(first)
    join(token, machine.file)
    error = refusal(token, Machine(tmp_path / "thief").fitting())
    assert error.reason_name == "WRONG_STATE" and "another key, has used the token" in error.message
    wrong = read_token(token_for(first, "n4"))
    wrong.secret = bytes(32)
    other = Machine(tmp_path / "guesser").with_config("n4")
    error = refusal(base64.urlsafe_b64encode(wrong.SerializeToString()).decode(), other)
    assert error.reason_name == "UNAUTHENTICATED"
    unknown = read_token(token)
    unknown.name = "nodes/n9"
    other = Machine(tmp_path / "inventor").with_config("n9")
    again = refusal(base64.urlsafe_b64encode(unknown.SerializeToString()).decode(), other)
    assert again.message == error.message, "nothing is learnt of what there is"


def test_a_token_ends(first: FirstNode, machine: Machine) -> None:
    token = token_for(first, expires_in_s=60)
    first.clock.ahead_s = 61
    error = refusal(token, machine)
    assert error.reason_name == "WRONG_STATE" and "time is over; take the node out" in error.message


def test_the_token_of_a_node_that_is_taken_out_is_worth_nothing(
    first: FirstNode, machine: Machine
) -> None:
    token = token_for(first)
    with first.client() as cluster:
        cluster.nodes.remove("n2")
    assert first.store.snapshot().find(cluster_pb2.Join, "joins/n2") is None
    assert refusal(token, machine).reason_name == "UNAUTHENTICATED"


def test_doors_are_asked_in_turn(first: FirstNode, machine: Machine) -> None:
    told = read_token(token_for(first))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    told.doors[:] = [dead]
    error = refusal(base64.urlsafe_b64encode(told.SerializeToString()).decode(), machine)
    assert error.reason_name == "UNREACHABLE" and dead in error.message
    told.doors[:] = [dead, first.door]
    join(base64.urlsafe_b64encode(told.SerializeToString()).decode(), machine.file)


def test_a_door_of_another_authority_is_not_believed(
    first: FirstNode, machine: Machine, tmp_path: Path
) -> None:
    told = read_token(token_for(first))
    identity.create_cluster(tmp_path / "evil", CLUSTER, "n1", ["127.0.0.1"], first.clock.now())
    pem = (tmp_path / "evil" / "ca.crt").read_text()
    told.authority = ssl.PEM_cert_to_DER_cert(pem)
    error = refusal(base64.urlsafe_b64encode(told.SerializeToString()).decode(), machine)
    assert error.reason_name == "UNREACHABLE"
    row = first.store.snapshot().find(cluster_pb2.Join, "joins/n2")
    assert row is not None and not row.answered_hash, "the secret was shown to nobody"


def test_a_node_without_the_authoritys_key_names_those_that_have_it(
    first: FirstNode, machine: Machine
) -> None:
    token = token_for(first)
    key = (first.tls / "ca.key").read_bytes()
    (first.tls / "ca.key").unlink()
    error = refusal(token, machine)
    assert f"ask a coordinator (nodes/n1 at {first.door})" in error.message
    (first.tls / "ca.key").write_bytes(key)
    join(token, machine.file)


@pytest.mark.parametrize(
    ("token", "words"), [("", "no token"), ("aGVsbG8=", "no token"), ("n2 and more", "no token")]
)
def test_what_is_no_token_is_said_so(token: str, words: str, machine: Machine) -> None:
    error = refusal(token, machine)
    assert error.reason_name == "INVALID_CONTENT" and words in error.message


def test_a_configuration_that_does_not_fit_is_told_whole(first: FirstNode, tmp_path: Path) -> None:
    token = token_for(first)
    named = Machine(tmp_path / "named").with_config("n7")
    assert "node.name is 'n7' and not 'n2'" in refusal(token, named).message
    other = Machine(tmp_path / "other").fitting("10.0.0.77")
    message = refusal(token, other).message
    assert "mesh.listen must be 10.0.0.2, not 10.0.0.77" in message
    assert not (other.tls / "node.crt").exists()
    other.fitting()
    join(token, other.file)


def test_a_machine_of_another_cluster_is_left_alone(first: FirstNode, machine: Machine) -> None:
    now = first.clock.now()
    identity.create_cluster(machine.tls, "elsewhere", "n2", ["10.0.0.2"], now)
    before = (machine.tls / "node.crt").read_bytes()
    assert "another cluster's" in refusal(token_for(first), machine).message
    assert (machine.tls / "node.crt").read_bytes() == before


def test_a_machine_with_a_cluster_of_its_own_is_left_alone(
    first: FirstNode, machine: Machine
) -> None:
    (machine.folder / "state").mkdir()
    (machine.folder / "state" / "state.db").touch()
    assert "a cluster of this machine's own" in refusal(token_for(first), machine).message


def test_a_token_is_told_once_and_kept_nowhere(first: FirstNode) -> None:
    with first.client() as cluster:
        answer = cluster.nodes.add("n2", "10.0.0.2", request_id="once")
        with pytest.raises(errors.AlreadyExists, match="was told then; take it out"):
            cluster.nodes.add("n2", "10.0.0.2", request_id="once")
    secret = read_token(answer.token).secret
    snapshot = first.store.snapshot()
    kinds: list[Any] = [cluster_pb2.Join, cluster_pb2.Node, event_pb2.Event]
    kinds.append(operation_pb2.AnsweredRequest)
    for kind in kinds:
        for row in snapshot.rows(kind):
            assert secret not in row.SerializeToString()


def test_what_cannot_be_added_is_refused(first: FirstNode, tmp_path: Path) -> None:
    with first.client() as cluster:
        cluster.nodes.add("n2", "10.0.0.2")
        with pytest.raises(errors.AlreadyExists, match="pvc node remove n2"):
            cluster.nodes.add("n2", "10.0.0.3")
        with pytest.raises(errors.InUse, match="address of nodes/n2"):
            cluster.nodes.add("n3", "10.0.0.2")
        with pytest.raises(errors.InvalidField, match="expires_in"):
            cluster.nodes.add("n3", "10.0.0.3", expires_in_s=90_000)
    with (
        first_node_in(tmp_path / "alone", state_hosts=()) as alone,
        alone.client() as cluster,
        pytest.raises(errors.NotSupported, match="driver zookeeper"),
    ):
        cluster.nodes.add("n2", "10.0.0.2")


def member(first: FirstNode, machine: Machine, clock: SetClock) -> Renewal:
    """What keeps the certificate of a machine that has joined."""
    config = load(machine.file)
    credentials = Files(config.tls_dir).channel_credentials(clock.now())
    return Renewal(config, first.store, clock, Peers("nodes/n2", {}, first.store, credentials))


def test_a_node_without_the_authoritys_key_has_its_certificate_renewed(
    first: FirstNode, machine: Machine
) -> None:
    join(token_for(first), machine.file)
    before, clock = (machine.tls / "node.crt").read_bytes(), SetClock()
    renewal = member(first, machine, clock)
    renewal.step()
    assert (machine.tls / "node.crt").read_bytes() == before, "it is young"
    clock.ahead_s = 300 * 86_400
    member(first, machine, clock).step()
    pair = Files(machine.tls).pair("node")
    assert pair.certificate_pem != before and not (machine.tls / "ca.key").exists()
    assert identity.names_of(pair.certificate)[1][:2] == ["n2", "10.0.0.2"]


def test_the_keys_come_to_a_node_that_was_made_a_coordinator(
    first: FirstNode, machine: Machine
) -> None:
    join(token_for(first), machine.file)
    renewal = member(first, machine, first.clock)
    renewal.step()
    with first.client() as cluster:
        cluster.nodes.promote("n2")
    renewal.step()
    for name in ("ca.key", "cluster.key"):
        assert (machine.tls / name).read_bytes() == (first.tls / name).read_bytes()
    assert identity.common_name(Files(machine.tls).pair("ca").certificate) == "PVC cluster home"


def test_a_certificate_follows_the_address(first: FirstNode, machine: Machine) -> None:
    join(token_for(first), machine.file)
    row = first.node("nodes/n2")
    with first.client() as cluster:
        cluster.nodes.update(
            cluster_pb2.Node(name=row.name, spec={"address": "10.0.0.22"}), ["spec.address"]
        )
    member(first, machine, first.clock).step()
    names = identity.names_of(Files(machine.tls).pair("node").certificate)[1]
    assert "10.0.0.22" in names and "10.0.0.2" not in names


def test_nobody_renews_where_no_coordinator_works(first: FirstNode, machine: Machine) -> None:
    join(token_for(first), machine.file)
    clock = SetClock()
    clock.ahead_s = 300 * 86_400
    first.store.lose_session()
    with pytest.raises(PvcError, match="none works"):
        member(first, machine, clock).step()


def test_the_commands_of_an_administrator(
    first: FirstNode,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{token_for(first)}\n"))
    assert run(["cluster", "join", "--config", str(machine.file)]) == 0
    told = capsys.readouterr()
    assert "this machine is nodes/n2 of the cluster home" in told.out
    assert f"start PVC's services with --config {machine.file}" in told.err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["cluster", "join", "--config", str(machine.file)]) == 1
    assert "no token of 'pvc node add'" in capsys.readouterr().err

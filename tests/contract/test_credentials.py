"""Whoever may not come in does not: every method of every service, asked with a request that would
be fulfilled, with every kind of wrong credentials, at every door and on the ports that the services
have for each other. The methods are read off the contracts, so that none is forgotten."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc_client import Cluster
from services.gateway.access import role_name
from services.gateway.doors import Settings
from services.gateway.methods import METHODS, Method
from services.gateway.recorder import Recorder
from services.mesh import identity
from services.mesh.config import parse
from services.state.store import Delete
from tests.contract.cases import CASES
from tests.contract.stage import Stage
from tests.contract.three import SERVICES
from tests.contract.ways import rest_call
from tests.contract.whole import Thread, Whole
from tests.ports import free_block

ADMIN = options_pb2.ROLE_ADMIN
BY_TOKEN = sorted(name.short for name in METHODS.values() if not name.by_secret)
NAMED = {method.short: method for method in METHODS.values()}
HOST = "127.0.0.1"
CALL_S = 60.0


class Node(Whole):
    """A PVC whose services listen for those of other nodes too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = parse(
            f'[node]\nname = "n1"\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n'
            f'[mesh]\nlisten = "{HOST}"\nfirst_port = {free_block(SERVICES)}\n',
            "pvc",
        )

    @property
    def recorder(self) -> Recorder:
        return self.doors._door._recorder

    def refused(self) -> dict[str, int]:
        """How many refusals of each kind the audit log has."""
        with self.recorder._lock:
            self.recorder._disperse(everything=True)
        for _ in range(4):
            self.recorder.step()
        found: dict[str, int] = {}
        for row in self.store.snapshot().rows(AuditEntry):
            if row.outcome == AuditEntry.OUTCOME_REFUSED:
                found[row.reason] = found.get(row.reason, 0) + row.count
        return found


class TlsNode(Node):
    """One whose doors speak TLS too."""

    @property
    def door_settings(self) -> Settings:
        socket, folder = str(self.folder / "run" / "pvc.sock"), self.config.tls_dir
        pair = str(folder / "node.crt"), str(folder / "node.key")
        return Settings("127.0.0.1:0", "127.0.0.1:0", socket, *pair)


@contextmanager
def up(node: Node) -> Iterator[Node]:
    node.first_rows()
    thread = Thread(node)
    thread.start()
    try:
        node.calm()
        yield node
    finally:
        thread.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with up(Node(tmp_path_factory.mktemp("pvc"))) as node:
        yield node


@pytest.fixture(scope="module")
def stage(node: Node) -> Iterator[Stage]:
    with node.client() as cluster:
        yield Stage(node, cluster)


@pytest.fixture(scope="module")
def door(node: Node) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{node.doors.grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def bad(node: Node) -> dict[str, list[str]]:
    """Kind → the authorization headers that are refused with UNAUTHENTICATED whatever is asked."""
    good, right = node.secrets["eve"], node.secrets["eve"].partition("~")[2]
    expired = node.add_token("late", ADMIN, expire_time=Timestamp(seconds=1))
    revoked = node.add_token("gone", ADMIN)
    node.store.commit([Delete("tokens/gone", "*")])
    return {
        "absent": [""],
        "empty": ["Bearer", "Bearer ", "Bearer ~"],
        "malformed": [f"Basic {good}", good, f"Bearer {good} {good}", "Bearer eve~" + "x" * 300],
        "forged": [f"Bearer ghost~{right}", f"Bearer tokens/eve~{right}", f"Bearer {right}"],
        "wrong": [f"Bearer eve~{right[:-1]}", f"Bearer {good}x", f"Bearer eve~{'0' * len(right)}"],
        "of another": [f"Bearer bob~{right}", f"Bearer Eve~{right}"],
        "expired": [f"Bearer {expired}"],
        "revoked": [f"Bearer {revoked}"],
    }


def requests_of(stage: Stage, name: str) -> list[bytes]:
    """The messages of a request that would be fulfilled; of an internal method an empty one."""
    asked = CASES[name](stage) if name in CASES else NAMED[name].request()
    return [one.SerializeToString() for one in (asked if isinstance(asked, list) else [asked])]


def over_grpc(
    channel: grpc.Channel, method: Method, requests: list[bytes], authorization: str = ""
) -> tuple[str, str, str]:
    """Code, reason and words that a call ends with."""
    kinds = (
        "stream" if one else "unary" for one in (method.client_streaming, method.server_streaming)
    )
    stub: Any = getattr(channel, "_".join(kinds))(method.path)
    metadata = (("authorization", authorization),) if authorization else ()
    asked: Any = iter(requests) if method.client_streaming else requests[0]
    try:
        answer = stub(asked, metadata=metadata, timeout=CALL_S)
        if method.server_streaming:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code().name, reason_in(failed), failed.details() or ""
    return "OK", "", ""


def reason_in(error: Any) -> str:
    """The reason in the details of an error, which is the same as its code for refusals."""
    trailing = dict(error.trailing_metadata() or ())
    details = trailing.get("grpc-status-details-bin", b"")
    return error.code().name if error.code().name.encode() in details else ""


def over_rest(node: Node, method: Method, request: Any, authorization: str) -> tuple[int, str]:
    """Status and reason."""
    verb, path, body = rest_call(method, request)
    connection = http.client.HTTPConnection("127.0.0.1", node.doors.rest_port, timeout=CALL_S)
    headers = {"authorization": authorization} if authorization else {}
    connection.request(verb, path, body, headers)
    response = connection.getresponse()
    told = json.loads(response.read() if response.status >= 400 else b'{"details": [{}]}')
    connection.close()
    return response.status, told["details"][0].get("reason", "")


@pytest.mark.parametrize("name", BY_TOKEN)
def test_wrong_credentials_are_refused_everywhere(
    name: str, node: Node, stage: Stage, door: grpc.Channel, bad: dict[str, list[str]]
) -> None:
    """Nothing changes, and all of it is in the audit log."""
    method, messages = NAMED[name], requests_of(stage, name)
    request = method.request.FromString(messages[0])
    before, told = node.calm(), node.refused().get("UNAUTHENTICATED", 0)
    tried = 0
    for kind, headers in bad.items():
        for header in headers:
            code, reason, words = over_grpc(door, method, messages, header)
            assert (code, reason) == ("UNAUTHENTICATED",) * 2, (kind, header, words)
            assert node.secrets["eve"] not in words
            tried += 1
            if method.http is not None:
                answer = over_rest(node, method, request, header)
                assert answer == (401, "UNAUTHENTICATED"), (kind, header)
                tried += 1
    assert node.calm() == before, "nothing was changed"
    assert node.refused()["UNAUTHENTICATED"] - told == tried


@pytest.mark.parametrize("name", BY_TOKEN)
def test_each_lower_role_is_refused(
    name: str, node: Node, stage: Stage, door: grpc.Channel
) -> None:
    method, messages = NAMED[name], requests_of(stage, name)
    request = method.request.FromString(messages[0])
    before, told = node.calm(), node.refused().get("PERMISSION_DENIED", 0)
    tried = 0
    for caller, role in (("ann", 1), ("bob", 2), ("eve", 3)):
        if role >= method.role and not method.internal:
            continue
        header = f"Bearer {node.secrets[caller]}"
        code, reason, words = over_grpc(door, method, messages, header)
        assert (code, reason) == ("PERMISSION_DENIED",) * 2, words
        assert method.internal or f"needs the role {role_name(method.role)}" in words
        tried += 1
        if method.http is not None:
            assert over_rest(node, method, request, header) == (403, "PERMISSION_DENIED")
            tried += 1
    assert node.calm() == before
    assert node.refused().get("PERMISSION_DENIED", 0) - told == tried


def test_not_even_root_calls_what_is_internal(node: Node, stage: Stage) -> None:
    with grpc.insecure_channel(f"unix:{node.folder}/run/pvc.sock") as channel:
        internal = [method for method in METHODS.values() if method.internal]
        assert internal
        for method in internal:
            assert method.http is None, "there is no way to it by REST"
            code, reason, _ = over_grpc(channel, method, [b""])
            assert (code, reason) == ("PERMISSION_DENIED",) * 2


def test_a_secret_for_one_thing_is_of_no_use_a_second_time_or_when_it_is_wrong(
    node: Node, stage: Stage, door: grpc.Channel
) -> None:
    """Methods that need no token, since the request has a secret."""
    (method,) = [one for one in METHODS.values() if one.by_secret]
    asked = stage.joining()
    wrong = type(asked)()
    wrong.CopyFrom(asked)
    wrong.secret = b"0" * len(asked.secret)
    empty = type(asked)(name=asked.name)
    before = node.calm()
    for request in (wrong, empty):
        for header in ("", f"Bearer {node.secrets['eve']}"):
            code, _, words = over_grpc(door, method, [request.SerializeToString()], header)
            assert code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT"), words
    assert node.calm() == before


# The ports that the services have for each other.


def stranger(host: str) -> tuple[bytes, bytes]:
    """Key and certificate of a node of some other cluster."""
    authority = identity.new_authority("other", datetime.now(UTC))
    pair = identity.new_node(authority, "n1", [host], datetime.now(UTC))
    return pair.key_pem, pair.certificate_pem


def certificates(node: Node) -> dict[str, tuple[bytes, bytes] | None]:
    """Kind → key and certificate that no service lets in; None for none at all."""
    authority = identity.Files(node.config.tls_dir).pair("ca")
    long_ago = datetime.now(UTC) - timedelta(days=1000)
    expired = identity.new_node(authority, "n1", [HOST], long_ago)
    return {
        "none": None,
        "of another cluster": stranger(HOST),
        "expired": (expired.key_pem, expired.certificate_pem),
    }


def own(node: Node) -> tuple[bytes, bytes]:
    """Key and certificate of a node of the cluster."""
    pair = identity.Files(node.config.tls_dir).pair("node")
    return pair.key_pem, pair.certificate_pem


def tls_channel(node: Node, address: str, pair: tuple[bytes, bytes] | None) -> grpc.Channel:
    authority = identity.Files(node.config.tls_dir).pair("ca").certificate_pem
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, *(pair or ())))


def test_services_let_in_nobody_without_a_certificate_of_the_cluster(
    node: Node, stage: Stage
) -> None:
    before = node.calm()
    addresses = node.config.public_addresses()
    with ExitStack() as open_ones:
        for kind, pair in certificates(node).items():
            channels = {
                service: open_ones.enter_context(tls_channel(node, address, pair))
                for service, address in addresses.items()
            }
            for method in METHODS.values():
                code, _, words = over_grpc(channels[method.service], method, [b""])
                assert code == "UNAVAILABLE", (kind, method.short, words)
        for address in addresses.values():
            plain = open_ones.enter_context(grpc.insecure_channel(address))
            assert over_grpc(plain, METHODS[WHOAMI], [b""])[0] == "UNAVAILABLE"
    assert node.calm() == before
    with tls_channel(node, addresses["gateway"], own(node)) as known:
        assert over_grpc(known, METHODS[WHOAMI], [b""])[0] == "OK", "they do let nodes in"


WHOAMI = "/pvc.gateway.v1.AccessService/WhoAmI"


def test_no_certificate_opens_the_doors(tmp_path: Path) -> None:
    """A node's own certificate is for the services alone: at the doors it is as good as none."""
    with up(TlsNode(tmp_path)) as node, ExitStack() as open_ones:
        before = node.rows()
        address = f"127.0.0.1:{node.doors.grpc_port}"
        for pair in (own(node), *certificates(node).values()):
            channel = open_ones.enter_context(tls_channel(node, address, pair))
            for name in BY_TOKEN:
                code, _, words = over_grpc(channel, NAMED[name], [b""])
                assert code in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED"), (name, words)
        assert node.rows() == before


# Limits.


def test_streams_of_one_caller_are_bounded(node: Node) -> None:
    most = node.door_settings.bounds.streams_per_caller
    with node.client("ann") as ann, node.client("bob") as bob:
        open_ones = [ann.vms.watch() for _ in range(most)]
        for one in open_ones:
            next(one)
        beyond = ann.vms.watch()
        with pytest.raises(Exception, match=f"token ann has {most} streams open.*close some"):
            next(beyond)
        next(bob.vms.watch()), "others are not concerned"
        with Cluster(f"unix:{node.folder}/run/pvc.sock") as root:
            more = [root.vms.watch() for _ in range(most + 1)]
            for one in more:
                next(one)
            for one in more:
                one.close()
        open_ones.pop().close()
        wait = threading.Event()
        for _ in range(100):
            again = ann.vms.watch()
            try:
                next(again)
                break
            except Exception:  # noqa: BLE001 - until the gateway heard of it
                wait.wait(0.05)
        else:
            raise AssertionError("one that is closed makes no room")
        for one in open_ones:
            one.close()

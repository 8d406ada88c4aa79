"""Access in a cluster: what is done at any door is in one log, and a token that is revoked at one
door is out at all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.core.v1 import options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc_client import Cluster, errors
from tests.contract.three import NODES, Three, three_running


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with three_running(tmp_path_factory.mktemp("three")) as three:
        yield three


def test_every_node_writes_into_one_log(three: Three) -> None:
    for name in NODES:
        with three.client(name) as cluster:
            cluster.tokens.create(f"at-{name}", options_pb2.ROLE_VIEWER)
    with three.client("n3") as cluster:
        seen: dict[str, AuditEntry] = {}
        end = time.monotonic() + 60
        for change in cluster.audit.watch(filter='target = "tokens/at-*"'):
            if change.resource is not None:
                seen[change.resource.target] = change.resource
            if len(seen) == len(NODES):
                break
            assert time.monotonic() < end
    assert {row.node for row in seen.values()} == {f"nodes/{name}" for name in NODES}
    assert [row.outcome for row in seen.values()] == [AuditEntry.OUTCOME_SUCCEEDED] * 3


def test_a_token_revoked_at_one_door_is_out_at_all(three: Three) -> None:
    secret = three["n1"].add_token("brief", options_pb2.ROLE_OPERATOR)
    address = f"127.0.0.1:{three['n2'].doors.grpc_port}"
    with Cluster(address, token=secret) as far, three.client("n3") as admin:
        changes = far.vms.watch()
        next(changes)
        admin.tokens.delete("brief")
        with pytest.raises(errors.Unauthenticated):
            for _ in changes:
                continue
        with pytest.raises(errors.Unauthenticated):
            far.whoami()


def test_a_token_that_is_made_less_ends_what_it_may_not_go_on_with(
    three: Three, tmp_path: Path
) -> None:
    secret = three["n1"].add_token("less", options_pb2.ROLE_ADMIN)
    address = f"127.0.0.1:{three['n2'].doors.grpc_port}"
    with Cluster(address, token=secret) as far, three.client("n1") as admin:
        changes, allowed = far.audit.watch(), far.vms.watch()
        next(changes), next(allowed)
        row = admin.tokens.get("less")
        row.role = options_pb2.ROLE_VIEWER
        admin.tokens.update(row, ["role"])
        with pytest.raises(errors.PermissionDenied, match="needs the role admin"):
            for _ in changes:
                continue
        assert far.whoami().role == options_pb2.ROLE_VIEWER
        allowed.close()


def test_a_token_that_expires_ends_its_streams_when_it_does(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next look at it, which would be in an hour."""
    monkeypatch.setattr("services.gateway.lasting.RECHECK_S", 3600.0)
    with three.client("n1") as admin:
        began = time.monotonic()
        secret = admin.tokens.create("soon", options_pb2.ROLE_VIEWER, ttl_s=2).secret
        address = f"127.0.0.1:{three['n3'].doors.grpc_port}"
        with Cluster(address, token=secret) as far, pytest.raises(errors.Unauthenticated) as ended:
            for _ in far.vms.watch():
                continue
    assert "has expired" in ended.value.message
    assert time.monotonic() - began > 1

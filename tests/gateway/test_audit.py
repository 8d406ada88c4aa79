"""What is written down of calls, where it is found again, and that nobody can fill it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc_client import Cluster, errors
from services.gateway.audit import target_of
from services.gateway.crowds import CROWDS_MAX, EACH, WINDOW_S, Crowds
from services.gateway.methods import METHODS
from services.gateway.recorder import Recorder
from services.mesh.clock import SystemClock
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.doors.world import World, world_in
from tests.gateway.test_access import http

SUCCEEDED, FAILED = AuditEntry.OUTCOME_SUCCEEDED, AuditEntry.OUTCOME_FAILED
REFUSED, CANCELLED = AuditEntry.OUTCOME_REFUSED, AuditEntry.OUTCOME_CANCELLED
RUNNING = AuditEntry.OUTCOME_RUNNING


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("audit")) as world:
        yield world


def recorder_of(world: World) -> Recorder:
    return world.doors._door._recorder


def entries(world: World, filter: str = "") -> list[AuditEntry]:
    """Those that an admin sees: all that have ended, without a wait."""
    with Cluster(world.grpc_address, token=world.secrets["eve"]) as eve:
        return list(eve.audit.list(filter=filter))


def ended(world: World, filter: str) -> AuditEntry:
    """The one entry, which is written after its caller has the answer."""
    end = time.monotonic() + 60
    while not (found := entries(world, filter)):
        assert time.monotonic() < end
        time.sleep(0.01)
    (entry,) = found
    return entry


def test_a_mutation_is_written_down_with_all_there_is_to_know(world: World) -> None:
    with Cluster(world.grpc_address, token=world.secrets["bob"]) as bob:
        pending = bob.vms.create("web", vm_pb2.VmSpec(), request_id="r1")
        bob.vms.get("web")
    entry = ended(world, 'target = "vms/web"')
    assert (entry.caller, entry.token, entry.role) == ("token bob", "tokens/bob", 2)
    assert entry.door == AuditEntry.DOOR_GRPC and entry.node == "nodes/n1"
    assert entry.peer.startswith("127.0.0.1:") and entry.peer.rpartition(":")[2].isdigit()
    assert entry.method == "pvc.compute.v1.VmService/CreateVm"
    assert (entry.request_id, entry.operation) == ("r1", pending.name)
    assert (entry.outcome, entry.reason, entry.message) == (SUCCEEDED, "", "")
    assert 0 < entry.duration.ToMilliseconds() < 5000 and entry.count == 1
    assert abs(entry.time.seconds - time.time()) < 10
    assert entry.name > "auditEntries/0" and not entry.HasField("last_time")


def test_every_door_is_told(world: World) -> None:
    body = json.dumps({"token_id": "x", "role": "ROLE_VIEWER", "request_id": "rest"}).encode()
    assert http(world, "POST", "/v1/tokens", world.secrets["eve"], body)[0] == 200
    with Cluster(f"unix:{world.socket}") as root:
        root.tokens.create("y", options_pb2.ROLE_VIEWER, validate_only=True)
    rest, socket = ended(world, 'request_id = "rest"'), ended(world, 'target = "tokens/y"')
    assert rest.door == AuditEntry.DOOR_REST and rest.peer.startswith("127.0.0.1:")
    assert rest.caller == "token eve" and rest.target == "tokens/x" and not rest.validate_only
    assert socket.door == AuditEntry.DOOR_SOCKET and socket.peer == socket.token == ""
    assert socket.caller == "local root" and socket.validate_only and not socket.operation


def test_failures_and_refusals_say_why(world: World) -> None:
    with Cluster(world.grpc_address, token=world.secrets["bob"]) as bob:
        with pytest.raises(errors.NotFound):
            bob.vms.start("missing")
        with pytest.raises(errors.PermissionDenied):
            bob.tokens.delete("eve")
    status, _, _ = http(world, "DELETE", "/v1/nodes/n7", world.secrets["bob"])
    assert status == 403
    failed = ended(world, 'target = "vms/missing"')
    assert (failed.outcome, failed.reason) == (FAILED, "NOT_FOUND")
    assert "vms/missing does not exist" in failed.message
    for target in ("tokens/eve", "nodes/n7"):
        refused = ended(world, f'target = "{target}"')
        assert (refused.outcome, refused.reason) == (REFUSED, "PERMISSION_DENIED")
        assert refused.caller == "token bob" and "needs the role admin" in refused.message


def test_of_strangers_there_is_the_address_alone(world: World) -> None:
    """Nothing that they say is kept: neither what they ask for, nor the secrets they try."""
    body = json.dumps({"token_id": "mine", "role": "ROLE_ADMIN"}).encode()
    assert http(world, "POST", "/v1/tokens", "eve~guessed", body)[0] == 401
    entry = ended(world, 'reason = "UNAUTHENTICATED"')
    assert (entry.caller, entry.role, entry.target) == ("nobody", 0, "")
    assert entry.method.endswith("/CreateToken") and b"guessed" not in entry.SerializeToString()


def test_reads_are_not_written_down_but_downloads_are(world: World) -> None:
    before = len(entries(world))
    with Cluster(world.grpc_address, token=world.secrets["eve"]) as eve:
        eve.whoami()
        list(eve.tokens.list())
        with pytest.raises(errors.NotFound):
            eve.vms.get("none")
    assert len(entries(world)) == before
    assert http(world, "GET", "/v1/files/none:download", world.secrets["eve"])[0] >= 400
    assert ended(world, 'target = "files/none"').method.endswith("/DownloadFile")


def test_a_console_is_shown_while_it_lasts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.recorder.LASTING_S", 0.0)
    world.store.commit([Put(vm_pb2.Vm(name="vms/con"))])
    with Cluster(f"unix:{world.socket}") as root, root.vms.console("con") as console:
        console.read()
        shown = ended(world, 'target = "vms/con"')
        assert shown.outcome == RUNNING and not shown.HasField("duration")
        assert ended(world, 'target = "vms/con"').meta.etag == shown.meta.etag, "shown once"
    wait_until(lambda: ended(world, 'target = "vms/con"').outcome == CANCELLED)


def test_it_can_be_followed_and_is_for_admins_alone(world: World) -> None:
    with Cluster(world.grpc_address, token=world.secrets["eve"]) as eve:
        changes = eve.audit.watch(filter='target = "tokens/followed"')
        assert next(changes).resource is None
        eve.tokens.create("followed", options_pb2.ROLE_VIEWER)
        told = next(change.resource for change in changes if change.resource is not None)
        assert told.caller == "token eve" and told.outcome == SUCCEEDED
        assert eve.audit.get(told.name) == told
        changes.close()
    with Cluster(world.grpc_address, token=world.secrets["bob"]) as bob:
        for ask in (lambda: list(bob.audit.list()), lambda: next(bob.audit.watch())):
            with pytest.raises(errors.PermissionDenied):
                ask()


def test_whoever_is_refused_all_the_time_fills_nothing(tmp_path: Path) -> None:
    with world_in(tmp_path) as world:
        for number in range(60):
            path = f"/v1/vms/x{number}:start"
            assert http(world, "POST", path, "eve~wrong")[0] == 401
        recorder = recorder_of(world)
        with recorder._lock:
            recorder._disperse(everything=True)
        found = entries(world)
        assert len(found) == EACH + 1 and sum(entry.count for entry in found) == 60
        crowd = max(found, key=lambda entry: entry.count)
        assert crowd.peer == "127.0.0.1" and crowd.last_time.ToNanoseconds() > 0
        assert crowd.reason == "UNAUTHENTICATED" and crowd.outcome == REFUSED


def test_crowds_are_bounded_however_many_addresses_come() -> None:
    crowds, alone = Crowds(), 0
    for number in range(10_000):
        peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:9"
        entry = AuditEntry(peer=peer, outcome=REFUSED, reason="UNAUTHENTICATED", count=1)
        alone += not crowds.is_counted(entry, 100.0)
    assert alone == CROWDS_MAX and not crowds.due(100.0 + WINDOW_S - 1)
    (rest,) = crowds.due(100.0 + WINDOW_S)
    assert rest.count == 10_000 - CROWDS_MAX and rest.peer == ""
    assert not crowds._crowds, "nothing is left of them"


def test_what_succeeds_is_never_counted_together() -> None:
    crowds = Crowds()
    for outcome in (SUCCEEDED, CANCELLED):
        entry = AuditEntry(token="tokens/a", outcome=outcome, count=1)
        assert not any(crowds.is_counted(entry, 1.0) for _ in range(50))


def test_targets_are_names_as_the_api_writes_them() -> None:
    """For every method that changes something: the first thing it names, and nothing else of it."""
    for method in METHODS.values():
        if not method.mutates or method.internal:
            continue
        request: Any = method.request()
        for field in method.request.DESCRIPTOR.fields:
            if field.name in ("name", "parent"):
                setattr(request, field.name, "pools/p/volumes/v")
            elif field.type == field.TYPE_STRING and not field.is_repeated:
                setattr(request, field.name, f"SECRET-{field.name}")
            elif field.message_type and "meta" in field.message_type.fields_by_name:
                getattr(request, field.name).name = f"things/{field.name}"
        target = target_of(request)
        known = target or method.request.DESCRIPTOR.name in WITHOUT_TARGET
        assert known, method.short
        assert "SECRET-request_id" not in target and "/SECRET-recipe" not in target


WITHOUT_TARGET = {"UpdateClusterRequest", "BalanceClusterRequest", "UploadFileRequest"}
"""There is one cluster; a file has no name before it is there."""


def test_entries_wait_while_the_state_cannot_be_written(tmp_path: Path) -> None:
    store = MemoryStore()
    recorder = Recorder(store, SystemClock(), "nodes/n1", tmp_path / "audit.journal")
    away = threading.Event()
    commit = store.commit
    away.set()

    def refusing(*arguments: Any, **named: Any) -> int:
        if away.is_set():
            raise errors.PvcError("away")
        return commit(*arguments, **named)

    store.commit = refusing  # type: ignore[method-assign]
    for number in range(450):
        recorder.end(AuditEntry(name=f"auditEntries/{number:05}", outcome=SUCCEEDED, count=1))
    with pytest.raises(errors.PvcError):
        recorder.step()
    away.clear()
    revision = store.snapshot().revision
    for _ in range(4):
        recorder.step()
    assert len(list(store.snapshot().rows(AuditEntry))) == 450
    assert store.snapshot().revision - revision == 3, "in few commits"


def test_what_waits_is_bounded_and_what_is_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.recorder.WAITING_MAX", 10)
    store = MemoryStore()
    recorder = Recorder(store, SystemClock(), "nodes/n1", tmp_path / "audit.journal")
    for number in range(25):
        recorder.end(AuditEntry(name=f"auditEntries/{number:05}", outcome=SUCCEEDED, count=1))
    recorder.step()
    rows = list(store.snapshot().rows(AuditEntry))
    (told,) = [row for row in rows if row.outcome == AuditEntry.OUTCOME_UNKNOWN]
    assert len(rows) == 11 and told.count == 15 and "log of the node" in told.message


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)

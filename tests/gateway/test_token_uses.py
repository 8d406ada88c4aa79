"""When and from where tokens were last used: told seldom, never on the way of a call, and shown
with the token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import meta_pb2, options_pb2, reason_pb2
from pvc.gateway.v1.token_pb2 import Token, TokenUse
from pvc_client import Cluster, errors
from pvc_client.resources import Change
from services.gateway.access import LOCAL_ROOT, Caller
from services.gateway.uses import AT_ONCE, EACH_S, Uses
from services.mesh.clock import SystemClock
from services.mesh.errors import PvcError
from services.mesh.loop import Loop
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from tests.doors.world import World, world_in
from tests.gateway.asking import ask

PATIENCE_S = 60.0
PEER = "ipv4:10.0.0.7:40312"


class ManualClock(SystemClock):
    """Time that a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000

    def now(self) -> Timestamp:
        return Timestamp(seconds=self.seconds)

    def monotonic(self) -> float:
        return float(self.seconds)


def token(name: str, uid: str = "u1") -> Token:
    return Token(name=f"tokens/{name}", meta=meta_pb2.Meta(uid=uid))


def caller(name: str) -> Caller:
    return Caller(f"token {name}", options_pb2.ROLE_VIEWER, f"tokens/{name}")


def gateway(store: MemoryStore, clock: ManualClock) -> Uses:
    return Uses(store, clock, "nodes/n1")


def uses(store: MemoryStore) -> dict[str, tuple[int, str]]:
    rows = store.snapshot().rows(TokenUse)
    return {row.name: (row.last_used.time.seconds, row.last_used.address) for row in rows}


def test_a_use_is_told_once_and_again_when_it_is_old_and_there_is_a_new_one() -> None:
    store, clock = MemoryStore(), ManualClock()
    store.commit([Put(token("ann"))])
    own = gateway(store, clock)
    for _ in range(50):
        own.note(caller("ann"), PEER)
    own.step()
    assert uses(store) == {"tokenUses/ann": (1000, "10.0.0.7")}
    revision = store.snapshot().revision
    clock.seconds += int(EACH_S) - 1
    own.note(caller("ann"), "ipv6:%5B::1%5D:9")
    own.step()
    assert store.snapshot().revision == revision, "so soon it is not told again"
    clock.seconds += 1
    own.step()
    assert uses(store) == {"tokenUses/ann": (1299, "::1")}, "when it was used, not when it is told"
    revision = store.snapshot().revision
    clock.seconds += 10 * int(EACH_S)
    own.step()
    assert store.snapshot().revision == revision, "it was not used since"


def test_to_note_a_use_asks_the_state_nothing_and_what_cannot_be_told_waits() -> None:
    store, clock = MemoryStore(), ManualClock()
    store.commit([Put(token("ann"))])
    own, commit = gateway(store, clock), store.commit

    def away(*arguments: Any, **named: Any) -> int:
        raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "away")

    store.commit = away  # type: ignore[method-assign]
    own.note(caller("ann"), PEER)
    own.note(LOCAL_ROOT, "unix:")
    with pytest.raises(PvcError):
        own.step()
    store.commit = commit  # type: ignore[method-assign]
    own.step()
    assert list(uses(store)) == ["tokenUses/ann"]


def test_many_are_told_in_few_commits() -> None:
    store, clock = MemoryStore(), ManualClock()
    names = [f"t{n}" for n in range(2 * AT_ONCE + 1)]
    for name in names:
        store.commit([Put(token(name))])
    own, before = gateway(store, clock), store.snapshot().revision
    for name in names:
        own.note(caller(name), PEER)
    own.step()
    assert len(uses(store)) == len(names) and store.snapshot().revision == before + 3


def test_what_was_not_told_yet_is_at_the_end() -> None:
    store, clock = MemoryStore(), ManualClock()
    store.commit([Put(token("ann"))])
    own = gateway(store, clock)
    own.note(caller("ann"), PEER)
    own.step()
    clock.seconds += 7
    own.note(caller("ann"), PEER)
    own.close()
    assert uses(store) == {"tokenUses/ann": (1007, "10.0.0.7")}


def test_of_a_token_that_is_revoked_nothing_stays() -> None:
    """Though it was used at that moment: another token of the name was never used."""
    store, clock = MemoryStore(), ManualClock()
    store.commit([Put(token("ann")), Put(token("bob"))])
    own = gateway(store, clock)
    own.note(caller("ann"), PEER)
    own.step()
    row = store.snapshot().find(Token, "tokens/ann")
    assert row is not None
    store.commit([Delete(row.name, row.meta.etag)])
    own.note(caller("ann"), PEER)
    clock.seconds += int(EACH_S)
    own.step()
    assert uses(store) == {} and not own._told_s and not own._new


# Through the doors.


def loop_of(world: World) -> Loop:
    return next(loop for loop in world.gateway.loops if loop.name == "token-uses")


def test_a_gateway_tells_by_itself(tmp_path: Path) -> None:
    with (
        world_in(tmp_path) as world,
        Cluster(world.grpc_address, token=world.secrets["ann"]) as ann,
    ):
        ann.whoami()
        loop_of(world).wake()
        wait_until(lambda: world.store.snapshot().named("tokenUses/ann") is not None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("uses")) as world:
        assert loop_of(world).stop(PATIENCE_S), "tests say when it is told"
        yield world


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What the doors saw is told by the next step, however lately it was told of another."""
    if "world" in request.fixturenames:
        monkeypatch.setattr("services.gateway.uses.EACH_S", 0.0)


def told(world: World) -> None:
    world.doors._door._uses.step()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def changed_in(changes: Iterable[Change[Token]]) -> Change[Token]:
    """The next change; bookmarks come whenever it is quiet."""
    return next(one for one in changes if one.resource is not None)


def add(world: World, name: str, role: Any = options_pb2.ROLE_VIEWER) -> Cluster:
    """A new token, and whoever has it."""
    with Cluster(f"unix:{world.socket}") as root:
        if world.store.snapshot().named(f"tokens/{name}") is not None:
            root.tokens.delete(name)
        secret = root.tokens.create(name, role).secret
    world.secrets[name] = secret
    return Cluster(world.grpc_address, token=secret)


def test_it_is_shown_with_the_token_by_all_doors(world: World) -> None:
    before = time.time()
    with (
        add(world, "used") as used,
        add(world, "idle"),
        Cluster(f"unix:{world.socket}") as root,
    ):
        assert not root.tokens.get("used").HasField("last_used")
        etag = root.tokens.get("used").meta.etag
        used.whoami()
        told(world)
        shown = root.tokens.get("used")
        assert (shown.last_used.address, shown.last_used.node) == ("127.0.0.1", "nodes/n1")
        assert before - 1 < shown.last_used.time.ToNanoseconds() / 1e9 < time.time() + 1
        assert shown.meta.etag == etag and not shown.secret_hash
        names = [x.name for x in root.tokens.list(filter="last_used:*")]
        assert "tokens/used" in names and "tokens/idle" not in names
        unused = 'NOT last_used.time >= "2020-01-01T00:00:00Z"'
        names = [x.name for x in root.tokens.list(filter=unused)]
        assert "tokens/idle" in names and "tokens/used" not in names
        ordered = [x.name for x in root.tokens.list(order_by="last_used.time desc")]
        assert ordered.index("tokens/used") < ordered.index("tokens/idle")
        after = root.tokens.update(Token(name="tokens/used", description="mine"))
        assert after.last_used == shown.last_used and after.description == "mine"
    seen = ask(world, "GET", "/v1/tokens/used").json
    assert seen["lastUsed"]["address"] == "127.0.0.1" and not seen["secretHash"]
    assert "lastUsed" not in ask(world, "GET", "/v1/tokens/idle").json


def test_who_may_not_used_it_all_the_same_and_a_stranger_did_not(world: World) -> None:
    add(world, "guessed").close()
    with add(world, "denied") as denied, pytest.raises(errors.PermissionDenied):
        denied.tokens.delete("eve")
    world.secrets["wrong"] = "guessed~wrong"
    assert ask(world, "GET", "/v1/whoami", as_="wrong").status == 401
    told(world)
    with Cluster(f"unix:{world.socket}") as root:
        assert root.tokens.get("denied").HasField("last_used")
        assert not root.tokens.get("guessed").HasField("last_used")


def test_a_use_is_a_change_to_those_who_watch_and_filter(world: World) -> None:
    with (
        add(world, "followed") as followed,
        Cluster(f"unix:{world.socket}") as root,
    ):
        plain = root.tokens.watch(filter='name = "tokens/followed"')
        used = root.tokens.watch(filter='last_used:* AND name = "tokens/followed"')
        present = next(plain)
        assert present.kind == meta_pb2.CHANGE_KIND_PRESENT and present.resource is not None
        assert not present.resource.HasField("last_used") and next(plain).resource is None
        assert next(used).resource is None, "nothing passes the filter yet"
        followed.whoami()
        told(world)
        changed, added = changed_in(plain), changed_in(used)
        assert changed.kind == meta_pb2.CHANGE_KIND_MODIFIED
        assert added.kind == meta_pb2.CHANGE_KIND_ADDED
        for change in (changed, added):
            assert change.resource is not None
            assert change.resource.last_used.address == "127.0.0.1"
        root.tokens.delete("followed")
        for changes in (plain, used):
            assert changed_in(changes).kind == meta_pb2.CHANGE_KIND_DELETED
            changes.close()
    assert world.store.snapshot().named("tokenUses/followed") is None


def test_a_token_with_something_open_is_in_use(world: World) -> None:
    with add(world, "open") as watcher, Cluster(f"unix:{world.socket}") as root:
        changes = watcher.vms.watch()
        next(changes)
        told(world)
        first = root.tokens.get("open").last_used.time.ToNanoseconds()

        def is_later() -> bool:
            root.tokens.update(Token(name="tokens/ann", description=world.clock.new_id()))
            told(world)
            return root.tokens.get("open").last_used.time.ToNanoseconds() > first

        wait_until(is_later)
        changes.close()


def test_a_new_token_of_an_old_name_was_never_used(world: World) -> None:
    with add(world, "again") as again, Cluster(f"unix:{world.socket}") as root:
        again.whoami()
        told(world)
        row = world.store.snapshot().find(TokenUse, "tokenUses/again")
        assert row is not None
        root.tokens.delete("again")
        with add(world, "again"):
            late = TokenUse(name=row.name, token_uid=row.token_uid, last_used=row.last_used)
            world.store.commit([Put(late)])
            assert not root.tokens.get("again").HasField("last_used")

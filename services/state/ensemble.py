"""The connection to a ZooKeeper ensemble: every call has an end, and nothing is queued unseen.

It knows znodes, not rows: what they mean is the business of its users.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    AuthFailedError,
    CancelledError,
    ConnectionLoss,
    NoAuthError,
    NoNodeError,
    OperationTimeoutError,
    RequestTimeoutError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.security import make_digest_acl

from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.mirror import unavailable
from services.state.multiread import MultiRead

CALL_TIMEOUT_S = 5.0
"""How long one answer may take."""

_BATCH = 64
_WINDOW = 4
_RECONNECT_MAX_S = 0.25
_CONNECT_MAX_S = 0.3
_GREET_MAX_S = 1.0
"""How long a server may take to be reached, and to greet us (and to make TLS), before the next one
is tried. A machine without power does not refuse: it says nothing, and sessions have only seconds
to live."""
_BROKEN = (
    CancelledError,
    ConnectionLoss,
    KazooTimeoutError,
    OperationTimeoutError,
    RequestTimeoutError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
)


WatchCallback = Callable[[Any], None]
"""Called once, from any thread, when what was read changed or the connection broke."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for mutual TLS with the servers."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Where the state is and how to get at it. hosts: "10.0.0.1:2181,10.0.0.2:2181"; credentials:
    "user:password" for digest authentication, then nobody else can read or write what we make."""

    hosts: str
    root: str = "/pvc"
    session_timeout_s: float = 6.0
    tick_s: float = 0.0
    """The servers' tickTime; 0: not known."""
    credentials: str = field(default="", repr=False)
    tls: Tls | None = None


class Cut(Exception):
    """The answer did not come. sent: whether the request may have been carried out all the same.
    silent: the connection is there, and nothing came by it in time."""

    def __init__(self, why: str, sent: bool, silent: bool = False) -> None:
        super().__init__(why)
        self.sent = sent
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Refused:
    """A transaction did not happen because of its step `index`."""

    index: int
    error: Exception


class Connection:
    """A session with the ensemble that is made anew when it is lost. `on_state` is called, from any
    thread, when the connection came or went."""

    def __init__(self, ensemble: Ensemble, clock: Clock, on_state: Callable[[], None]) -> None:
        self._ensemble = ensemble
        self._clock = clock
        self._on_state = on_state
        self._up = threading.Event()
        self._session = ""
        self._client = _client(ensemble)
        self._client.add_listener(self._changed)

    def start(self, timeout_s: float) -> None:
        """Connects. Raises PvcError STORE_UNAVAILABLE when no server answers."""
        try:
            self._client.start(timeout_s)
        except KazooTimeoutError as error:
            raise unavailable(
                f"no ZooKeeper server of {self._ensemble.hosts} answered within {timeout_s:g} s: "
                "see whether they run and can be reached"
            ) from error

    def stop(self) -> None:
        """Ends the session and with it what lives only as long."""
        self._client.stop()
        self._client.close()

    @property
    def session_timeout_s(self) -> float:
        """As the servers granted it; what was asked for while none has."""
        return self._client.granted_timeout_s or self._ensemble.session_timeout_s

    def try_another(self) -> None:
        """Hangs up on a server that keeps us waiting, so that another one is asked. By itself kazoo
        would give it two thirds of the session's timeout."""
        self._client.hang_up()

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self._up.is_set()

    @property
    def session(self) -> str:
        """The session's id, "" while there is none."""
        return self._session

    def deadline(self, timeout_s: float) -> float:
        """The moment after so many seconds, on the monotonic clock."""
        return self._clock.monotonic() + timeout_s

    def left_s(self, deadline: float) -> float:
        """Seconds until then, 0 when it has passed."""
        return max(0.0, deadline - self._clock.monotonic())

    def wait_up(self, deadline: float) -> None:
        """Returns when there is a connection, or when the time is over."""
        self._up.wait(self.left_s(deadline))

    def sync(self) -> None:
        """What is read after this is at least as new as anything committed before it."""
        self._await(self._sent(self._client.sync_async, self._ensemble.root))

    def get(
        self,
        path: str,
        watch: WatchCallback | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> tuple[bytes, Any] | None:
        """A znode's bytes and stat; None if there is none (it is not watched then)."""
        try:
            found = self._await(self._sent(self._client.get_async, path, watch), timeout_s)
        except NoNodeError:
            return None
        return found[0], found[1]

    def get_many(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """The bytes of many znodes, in order, None for those that are not there."""
        waiting: deque[Any] = deque()
        left = iter(paths)
        while batch := list(itertools.islice(left, _BATCH)):
            waiting.append(self._sent(self._read, batch))
            if len(waiting) >= _WINDOW:
                yield from self._await(waiting.popleft())
        while waiting:
            yield from self._await(waiting.popleft())

    def children(self, path: str, watch: WatchCallback | None = None) -> list[str]:
        """The names below a znode, in no order."""
        return list(self._await(self._sent(self._client.get_children_async, path, watch)))

    def delete_many(self, paths: Iterable[str]) -> None:
        """Deletes znodes, those that are not there too."""
        waiting = [self._sent(self._client.delete_async, path) for path in paths]
        for result in waiting:
            try:
                self._await(result)
            except NoNodeError:
                continue

    def transaction(self) -> Any:
        """An empty transaction: add steps by create, set_data, delete and check."""
        return self._client.transaction()

    def carry_out(self, transaction: Any, deadline: float) -> Refused | None:
        """Has all steps of a transaction done, or none and says which one was refused.

        Raises Cut when the answer does not come in time.
        """
        results = self._await(self._sent(transaction.commit_async), self.left_s(deadline))
        for index, result in enumerate(results):
            if isinstance(result, NoAuthError):
                raise self._unauthorized(result)
            echo = isinstance(result, RolledBackError | RuntimeInconsistency)
            if isinstance(result, Exception) and not echo:
                return Refused(index, result)
        assert not any(isinstance(result, Exception) for result in results), results
        return None

    def _read(self, paths: Sequence[str]) -> Any:
        result = self._client.handler.async_result()
        self._client._call(MultiRead(paths), result)
        return result

    def _sent(self, request: Callable[..., Any], *args: Any) -> Any:
        """kazoo queues requests while there is no connection and sends them whenever there is one
        again, long after the caller gave up: so nothing is handed to it then."""
        if not self._up.is_set():
            raise Cut("there is no connection to ZooKeeper", sent=False)
        return request(*args)

    def _await(self, result: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            return result.get(timeout=min(timeout_s, CALL_TIMEOUT_S))
        except _BROKEN as error:
            silent = isinstance(error, KazooTimeoutError)
            why = f"ZooKeeper did not answer ({type(error).__name__})"
            raise Cut(why, sent=True, silent=silent) from error
        except (AuthFailedError, NoAuthError) as error:
            raise self._unauthorized(error) from error

    def _unauthorized(self, error: Exception) -> PvcError:
        return unavailable(
            f"ZooKeeper refuses our credentials for {self._ensemble.root} "
            f"({type(error).__name__}), so nothing was written: see to the credentials of the "
            "state in the configuration"
        )

    def _changed(self, state: str) -> None:
        """kazoo calls this from the thread that serves the connection: it must not wait."""
        if state == KazooState.CONNECTED:
            self._session = session_text(self._client.client_id[0])
            self._up.set()
        else:
            self._up.clear()
            if state == KazooState.LOST:
                self._session = ""
        self._on_state()


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's own, but it does not wait long for a machine that is not there."""

    def create_connection(self, *args: Any, timeout: float, **kwargs: Any) -> Any:
        """See kazoo, which would wait as long as a session lasts."""
        most_s = _GREET_MAX_S if kwargs.get("use_ssl") else _CONNECT_MAX_S
        return super().create_connection(*args, timeout=min(timeout, most_s), **kwargs)


class _Client(KazooClient):  # type: ignore[misc]
    """kazoo's own, which keeps to itself how long a session the servers granted, has no way to be
    told of a bad server, and gives each seconds to greet us."""

    granted_timeout_s = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        connection = self._connection
        self._used: tuple[Any, ...] = ()
        """Host, its address and port: of the server that we are connected to."""
        self._silent: tuple[Any, ...] = ()
        """Of the one that kept us waiting last: the others come first."""
        connection._connect = partial(self._noting, connection._connect)
        connection._invoke = partial(_hurried, connection._invoke)
        connection._expand_client_hosts = partial(self._ordered, connection._expand_client_hosts)

    def hang_up(self) -> None:
        """Ends the connection; kazoo makes the next one."""
        self._silent = self._used
        with suppress(OSError, AttributeError):  # there is none, or it ends at this moment
            self._connection._socket.shutdown(socket.SHUT_RDWR)

    def _noting(self, connect: Callable[..., tuple[float, float]], *to: Any) -> tuple[float, float]:
        self._used, before = to, self._silent
        self._silent = to  # unless it greets us
        read_ms, connect_ms = connect(*to)
        self._silent = () if before == to else before
        self.granted_timeout_s = read_ms * 1.5 / 1000
        return read_ms, connect_ms

    def _ordered(self, expand: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        return sorted(expand(), key=lambda server: server == self._silent)


def _hurried(invoke: Callable[..., Any], timeout_s: float, *request: Any, **named: Any) -> Any:
    """A question while a connection is made."""
    return invoke(min(timeout_s, _GREET_MAX_S), *request, **named)


def session_text(number: int) -> str:
    """A session as PVC writes it."""
    return f"{number & (1 << 64) - 1:016x}"


def _client(ensemble: Ensemble) -> Any:
    assert "/" not in ensemble.hosts, "say where the state is by `root`"
    tls: dict[str, Any] = {}
    if ensemble.tls is not None:
        tls = {
            "use_ssl": True,
            "verify_certs": True,
            "ca": str(ensemble.tls.ca),
            "certfile": str(ensemble.tls.certificate),
            "keyfile": str(ensemble.tls.key),
        }
    if ensemble.credentials:
        user, _, password = ensemble.credentials.partition(":")
        tls["auth_data"] = [("digest", ensemble.credentials)]
        tls["default_acl"] = [make_digest_acl(user, password, all=True)]
    retry = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": _RECONNECT_MAX_S}
    return _Client(
        ensemble.hosts,
        timeout=ensemble.session_timeout_s,
        connection_retry=retry,
        handler=_Handler(),
        **tls,
    )

"""One connection to libvirt: every call has a deadline, a hung one blocks no other, a lost
connection is made again by the next call.

libvirt's own library blocks without limit, so each call runs on a worker thread that is given up
when the call takes too long. Keepalives end such calls some time later, and with them the thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

import libvirt

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.mesh.loop import pause

DEADLINE_S = 30.0
KEEPALIVE_S = 5
KEEPALIVE_COUNT = 3
PATIENCE_S = 5.0
"""How long a call waits for a daemon that is not there."""
RETRY_S = 0.1
WORKERS = 4
STUCK_MAX = 32
"""With so many calls hanging, further ones are refused at once rather than given threads."""

T = TypeVar("T")
Listener = Callable[[], None]
DeviceListener = Callable[[str, str, bool], None]
"""(domain name, device alias, whether it is gone): False says that the guest refused to let go."""

log = logging.getLogger("pvc.libvirt")

_event_loop_lock = threading.Lock()
_event_loop_runs = False


def run_event_loop() -> None:
    """Starts libvirt's event loop, one for the process, before the first connection."""
    global _event_loop_runs
    with _event_loop_lock:
        if _event_loop_runs:
            return
        # Without this libvirt's library prints every error to stderr on top of raising it.
        libvirt.registerErrorHandler(lambda context, error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_runs = True


def _event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.error("libvirt's event loop: %s", error)


class Workers:
    """Daemon threads that take calls; one that hangs is replaced and forgotten."""

    def __init__(self, count: int = WORKERS) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._calls = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stuck = 0
        for _ in range(count):
            self._add()

    def call(self, what: str, work: Callable[[], T], deadline_s: float) -> T:
        """Does the work; raises DEADLINE when it takes longer, and lets it run on unheard."""
        with self._lock:
            if self._stuck >= STUCK_MAX:
                raise _deadline(f"{what}: {self._stuck} earlier calls to libvirt still hang")
        future: Future[T] = Future()
        self._calls.put((future, work))
        try:
            return future.result(deadline_s)
        except FutureTimeout:
            if not future.cancel():
                self._give_up(future)
            raise _deadline(f"{what}: libvirt did not answer within {deadline_s:g} s") from None

    def close(self) -> None:
        """Ends the threads that do not hang."""
        for _ in range(WORKERS + STUCK_MAX):
            self._calls.put(None)

    def _give_up(self, future: Future[Any]) -> None:
        """Puts a new thread in the place of the one that hangs; that one ends with its call."""
        with self._lock:
            self._stuck += 1
        future.add_done_callback(lambda done: self._returned())
        self._add()

    def _returned(self) -> None:
        with self._lock:
            self._stuck -= 1
        self._calls.put(None)

    def _add(self) -> None:
        threading.Thread(target=self._work, name="libvirt-call", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, work = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised again by the caller
                future.set_exception(error)


class Link:
    """The connection. Thread-safe."""

    def __init__(
        self, uri: str, deadline_s: float = DEADLINE_S, patience_s: float = PATIENCE_S
    ) -> None:
        self.uri = uri
        self._patience_s = patience_s
        self._deadline_s = deadline_s
        self._workers = Workers()
        self._lock = threading.Lock()
        self._connection: libvirt.virConnect | None = None
        self._listeners: list[Listener] = []
        self._device_listeners: list[DeviceListener] = []
        self._loss_listeners: list[Listener] = []
        run_event_loop()

    def call(
        self, what: str, verb: Callable[[libvirt.virConnect], T], deadline_s: float | None = None
    ) -> T:
        """Runs the verb on the connection. libvirtError goes through, for the caller to read."""

        def work() -> T:
            return verb(self._connected())

        return self._workers.call(what, work, deadline_s or self._deadline_s)

    def run(self, what: str, work: Callable[[], T], deadline_s: float) -> T:
        """Runs something that blocks but needs no living connection, with a deadline."""
        return self._workers.call(what, work, deadline_s)

    def on_event(self, listener: Listener) -> None:
        """Has it called from libvirt's event thread when a domain changed or the link broke."""
        self._listeners.append(listener)

    def on_device(self, listener: DeviceListener) -> None:
        """Has it called from libvirt's event thread when a device left, or refused to."""
        self._device_listeners.append(listener)

    def forget_device_listener(self, listener: DeviceListener) -> None:
        """Ends on_device."""
        self._device_listeners.remove(listener)

    def on_loss(self, listener: Listener) -> None:
        """Has it called from libvirt's event thread when the connection broke."""
        self._loss_listeners.append(listener)

    def forget_loss_listener(self, listener: Listener) -> None:
        """Ends on_loss."""
        self._loss_listeners.remove(listener)

    def close(self) -> None:
        """Ends the connection, if that works in time, and the threads."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._workers.call("close", lambda: _retire(connection), 2.0)
            except PvcError as error:
                log.warning("closing the connection to %s: %s", self.uri, error)
        self._workers.close()

    def _connected(self) -> libvirt.virConnect:
        with self._lock:
            if self._connection is not None and self._connection.isAlive():
                return self._connection
            if self._connection is not None:
                _retire(self._connection)
                self._connection = None
            connection = self._opened()
            connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
            self._listen(connection)
            self._connection = connection
            return connection

    def _opened(self) -> libvirt.virConnect:
        """A daemon that died is started again within seconds by those who keep it: what is asked
        for meanwhile waits, and so does what has to be undone."""
        end = time.monotonic() + self._patience_s
        while True:
            try:
                return libvirt.open(self.uri)
            except libvirt.libvirtError as error:
                away = error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR
                if not away or time.monotonic() > end:
                    raise
            pause(RETRY_S)

    def _listen(self, connection: libvirt.virConnect) -> None:
        wakes = (
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
        )
        for event in wakes:
            connection.domainEventRegisterAny(None, event, self.changed, None)
        connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._device_left, True
        )
        connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, self._device_left, False
        )
        connection.registerCloseCallback(self._closed, None)

    def changed(self, *_: object) -> None:
        """Tells all listeners that a domain changed."""
        for listener in tuple(self._listeners):
            listener()

    def _device_left(
        self, connection: libvirt.virConnect, domain: libvirt.virDomain, alias: str, gone: bool
    ) -> None:
        for listener in tuple(self._device_listeners):
            listener(domain.name(), alias, gone)
        self.changed()

    def _closed(self, connection: libvirt.virConnect, reason: int, opaque: object) -> None:
        log.warning("the connection to %s ended (reason %d)", self.uri, reason)
        for listener in tuple(self._loss_listeners):
            listener()
        self.changed()


def _retire(connection: libvirt.virConnect) -> None:
    """Lets go of a dead connection: its callbacks hold it, and it would stay for ever."""
    for callback in tuple(getattr(connection, "domainEventCallbackID", ())):
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventDeregisterAny(callback)
    with contextlib.suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


def _deadline(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_DEADLINE, message)

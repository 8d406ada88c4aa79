"""Asks the agents inside the guests who they are, off the agent's own path: a guest that answers
late delays nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pvc.compute.v1 import vm_pb2
from services.compute.core.status import RUNNING
from services.compute.drivers.hypervisor import Guest, Hypervisor
from services.compute.memory import Memory, Run
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Snapshot, Store

PERIOD_S = 10.0
PERIOD_NEW_S = 1.0
NEW_FOR_S = 300
"""A guest that has not answered yet counts as new for this long after its start."""
TIMEOUT_S = 5.0

log = logging.getLogger("pvc.compute")


class Guests:
    """One node's."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        hypervisor: Hypervisor,
        node: str,
        memory: Memory,
        parallel: int = 4,
    ) -> None:
        self._store = store
        self._clock = clock
        self._hypervisor = hypervisor
        self._node = node
        self._memory = memory
        self._pool = ThreadPoolExecutor(parallel) if parallel else None
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        self._asking: set[str] = set()
        self.wake: Callable[[], None] = lambda: None
        """Called when an answer differs from the one before."""

    def step(self) -> None:
        """Asks every guest whose turn it is; does not wait for the answers."""
        running = {vm.name: vm for vm in self._running(self._store.snapshot())}
        with self._lock:
            self._due = {name: due for name, due in self._due.items() if name in running}
        for vm in running.values():
            if self._take(vm):
                if self._pool is None:
                    self._ask(vm)
                else:
                    self._pool.submit(self._ask, vm)

    def stop(self) -> None:
        """Asks nobody any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _running(self, snapshot: Snapshot) -> list[vm_pb2.Vm]:
        return [
            vm
            for vm in snapshot.rows(vm_pb2.Vm)
            if vm.status.node == self._node and vm.status.state == RUNNING and vm.spec.guest_agent
        ]

    def _take(self, vm: vm_pb2.Vm) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            if vm.name in self._asking or now < self._due.get(vm.name, now):
                return False
            self._asking.add(vm.name)
        return True

    def _ask(self, vm: vm_pb2.Vm) -> None:
        name = vm.name.removeprefix("vms/")
        known = self._memory.current(name)
        try:
            told = self._hypervisor.guest(name, TIMEOUT_S)
        except PvcError as error:
            log.debug("%s: its guest could not be asked: %s", vm.name, error.message)
            told = None
        except Exception:
            log.exception("%s: a mistake in asking its guest", vm.name)
            told = None
        finally:
            with self._lock:
                self._asking.discard(vm.name)
                self._due[vm.name] = self._clock.monotonic() + self._period_s(vm, known)
        self._remember(known, status_of(told) if told is not None else None)

    def _period_s(self, vm: vm_pb2.Vm, known: Run | None) -> float:
        told = known.guest if known is not None else None
        if told is not None and told.addresses:
            return PERIOD_S
        age_s = self._clock.now().seconds - vm.status.start_time.seconds
        return PERIOD_NEW_S if age_s < NEW_FOR_S else PERIOD_S

    def _remember(self, known: Run | None, guest: vm_pb2.GuestStatus | None) -> None:
        if known is None or (known.asked and known.guest == guest):
            return
        known.asked, known.guest = True, guest
        self.wake()


def status_of(guest: Guest) -> vm_pb2.GuestStatus:
    """What was told, as the status carries it: in an order that does not change by itself, and
    nothing that would act on a terminal. Whoever owns the guest can have its agent say anything."""
    return vm_pb2.GuestStatus(
        host_name=_shown(guest.host_name),
        os=_shown(guest.os),
        addresses=sorted(guest.addresses)[:64],
    )


def _shown(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:256]

"""Serial consoles over streams, and their logs. Blocking ends are read in threads of their own,
never in the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import reason_pb2
from services.compute.core.status import PAUSED, RUNNING, STOPPING, state_name
from services.compute.drivers import console_log
from services.compute.drivers.hypervisor import Console, Hypervisor
from services.compute.settings import ComputeSettings
from services.mesh.errors import PvcError, not_found
from services.state.store import Snapshot, Store

log = logging.getLogger("pvc.compute")

T = TypeVar("T")

READ_S = 0.5
QUIET_S = 0.02
"""Pause after a read that brought nothing."""
FOLLOW_S = 0.25
CHUNK_BYTES = 64 * 1024
LINES = 1000
LOG_BYTES = 16 << 20
"""A console's log is put aside when it is larger than this."""
LOGS_KEPT = 3
CONSOLES_MAX = 64


class Consoles:
    """One node's."""

    def __init__(self, hypervisor: Hypervisor, settings: ComputeSettings) -> None:
        self._hypervisor = hypervisor
        self._settings = settings
        self._threads = ThreadPoolExecutor(2 * CONSOLES_MAX, thread_name_prefix="console")

    async def attach(
        self, snapshot: Snapshot, requests: AsyncIterator[api.AttachConsoleRequest]
    ) -> AsyncIterator[api.AttachConsoleResponse]:
        """What the guest writes, until either side ends. The first request names the VM. Raises
        BUSY while another has the console, WRONG_STATE when there is none."""
        first = await anext(requests, None)
        vm = check_console(snapshot, "" if first is None else first.name, self._settings.node)
        assert first is not None
        console = await self._opened(vm.name.removeprefix("vms/"), first.force)
        typing = asyncio.create_task(self._type(console, first.data, requests))
        try:
            while not typing.done():
                data = await self._run(partial(console.read, READ_S))
                if data is None:
                    return
                if data:
                    yield api.AttachConsoleResponse(data=data)
                else:
                    await asyncio.sleep(QUIET_S)
            typing.result()
        finally:
            typing.cancel()
            # The caller may be gone, and this task cancelled: the console is let go all the same.
            self._threads.submit(console.close)

    async def read_log(
        self, request: api.ReadConsoleLogRequest
    ) -> AsyncIterator[api.ReadConsoleLogResponse]:
        """The end of the log, then what is added to it if asked for."""
        path = self._settings.console_log(request.name.removeprefix("vms/"))
        text, place = await self._run(partial(tail, path, request.lines or LINES))
        for start in range(0, len(text), CHUNK_BYTES):
            yield api.ReadConsoleLogResponse(data=text[start : start + CHUNK_BYTES])
        while request.follow:
            text, place = await self._run(partial(added, path, place))
            if text:
                yield api.ReadConsoleLogResponse(data=text)
            else:
                await asyncio.sleep(FOLLOW_S)

    def stop(self) -> None:
        """Ends all threads that wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _opened(self, vm: str, force: bool) -> Console:
        """The console. Who asked may be gone before it is open: then it is let go, or it would stay
        taken for ever."""
        opening = self._threads.submit(self._hypervisor.open_console, vm, force)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_let_go)
            raise

    async def _type(
        self, console: Console, typed: bytes, requests: AsyncIterator[api.AttachConsoleRequest]
    ) -> None:
        """Hands on what is typed; returns when the caller has said its last."""
        if typed:
            await self._run(partial(console.write, typed))
        async for request in requests:
            if request.data:
                await self._run(partial(console.write, request.data))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class Logs:
    """Keeps this node's console logs from growing without bound, and none of a VM that is gone."""

    def __init__(
        self, store: Store, settings: ComputeSettings, domains: Callable[[], Collection[str]]
    ) -> None:
        """domains: asks the hypervisor for those that it knows, by VM id."""
        self._store = store
        self._settings = settings
        self._domains = domains

    def step(self) -> None:
        """Puts aside every log that has grown too long. Raises OSError of the last that failed,
        once all had their turn."""
        failed: OSError | None = None
        for vm in self._store.snapshot().rows(vm_pb2.Vm):
            if vm.status.node == self._settings.node:
                path = self._settings.console_log(vm.name.removeprefix("vms/"))
                try:
                    console_log.rotate(path, LOG_BYTES, LOGS_KEPT)
                except OSError as error:
                    failed = error
        if failed is not None:
            raise failed
        self._forget_gone()  # at last: it needs the hypervisor, and a log that grows cannot wait

    def _forget_gone(self) -> None:
        """An emulator that was just being started when libvirtd died may begin its log after its
        domain, and the VM, are gone. What the hypervisor still knows is left alone."""
        folder = self._settings.console_log("any").parent
        named = {path.name.partition(".")[0] for path in folder.glob("*.log*")}
        snapshot = self._store.snapshot()  # after the look: rows come before their logs
        gone = {vm for vm in named if snapshot.find(vm_pb2.Vm, f"vms/{vm}") is None}
        for vm in gone.difference(self._domains()) if gone else ():
            console_log.remove(self._settings.console_log(vm), LOGS_KEPT)
            log.info("vm %s: its console's log is removed (there is no such VM)", vm)


def _let_go(opening: Future[Console]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def check_console(snapshot: Snapshot, name: str, node: str) -> vm_pb2.Vm:
    """The VM, if it has a console that can be attached to here."""
    vm = snapshot.find(vm_pb2.Vm, name) if name else None
    if not name:
        raise PvcError(
            reason_pb2.REASON_INVALID_FIELD, "the first message must name the VM", field="name"
        )
    if vm is None:
        raise not_found(name)
    if not vm.spec.serial_console:
        raise PvcError(
            reason_pb2.REASON_WRONG_STATE,
            f"{name} has no serial console; set spec.serial_console and restart it",
            field="name",
        )
    if vm.status.state not in (RUNNING, PAUSED, STOPPING):
        raise PvcError(
            reason_pb2.REASON_WRONG_STATE,
            f"{name} is {state_name(vm.status.state)}; start it first",
            field="name",
        )
    if vm.status.node != node:
        raise PvcError(
            reason_pb2.REASON_UNREACHABLE,
            f"{name} runs on {vm.status.node}, and this is {node}; ask there",
            field="name",
        )
    return vm


def tail(path: Path, lines: int) -> tuple[bytes, int]:
    """The last lines of a log and of those put aside before it, and the place in the log where they
    end."""
    text, place = b"", 0
    for number in range(LOGS_KEPT + 1):
        part = path if number == 0 else path.with_name(f"{path.name}.{number}")
        try:
            piece, end = _end_of(part, lines - text.count(b"\n"))
        except FileNotFoundError:
            break
        place = end if number == 0 else place
        text = piece + text
        if text.count(b"\n") >= lines:
            break
    return last_lines(text, lines), place


def last_lines(text: bytes, lines: int) -> bytes:
    """The last lines of a text; an unfinished one at its end counts."""
    at = len(text) - 1 if text.endswith(b"\n") else len(text)
    for _ in range(lines):
        at = text.rfind(b"\n", 0, at)
        if at < 0:
            return text
    return text[at + 1 :]


def added(path: Path, place: int) -> tuple[bytes, int]:
    """What was written after a place, and the new place. A log that was put aside meanwhile begins
    anew."""
    try:
        with path.open("rb") as log:
            if log.seek(0, 2) < place:
                place = 0
            log.seek(place)
            text = log.read(CHUNK_BYTES)
    except FileNotFoundError:
        return b"", 0
    return text, place + len(text)


def _end_of(path: Path, lines: int) -> tuple[bytes, int]:
    """Enough of a file's end for this many lines, or all of it, and the place where that is: what
    is written meanwhile comes after it."""
    with path.open("rb") as log:
        size = log.seek(0, 2)
        want = CHUNK_BYTES
        while True:
            log.seek(max(size - want, 0))
            text = log.read(size - max(size - want, 0))
            if want >= size or text.count(b"\n") > lines:
                return text, size
            want *= 4

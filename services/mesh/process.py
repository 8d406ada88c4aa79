"""A process of PVC: takes its configuration, builds one service or several, runs them, ends in
order.

Ending: doors close, the server drains, loops finish their step. VMs and their networks go on
without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import is_not
from pathlib import Path
from typing import NoReturn

from services.mesh import log as mesh_log
from services.mesh.channel import Peers, peers_of
from services.mesh.clock import Clock, SystemClock
from services.mesh.config import DEFAULT_PATH, Config, load
from services.mesh.errors import PvcError
from services.mesh.identity import Files
from services.mesh.loop import Loop, parts_of
from services.mesh.membership import Members
from services.mesh.opening import open_store
from services.mesh.parts import Parts
from services.mesh.renewal import LOOK_S, Renewal, renewed
from services.mesh.server import GRACE_S, Server
from services.state.store import Store

LOOP_STOP_S = 20.0
"""How long a loop may take to finish its step; the next process takes up what it was doing."""

LEAVE_S = 10.0
"""How long threads may take to end after everything was closed."""

log = logging.getLogger("pvc.process")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a process gives its services to stand on."""

    config: Config
    store: Store
    clock: Clock
    peers: Peers


Build = Callable[[Ground], Parts]


def program(builds: Mapping[str, Build], leave_s: float = LEAVE_S) -> NoReturn:
    """`main` as a whole program, which ends some time after the services have."""
    status = main(builds)

    def leave() -> None:
        log.warning("still waited for: %s", ", ".join(_waited_for()))
        sys.stderr.flush()
        os._exit(status)

    # Python waits for the threads of executors. One that copies a disk or asks a dead storage may
    # take hours, and what it does is begun again by the next process.
    leaving = threading.Timer(leave_s, leave)
    leaving.daemon = True
    leaving.start()
    sys.exit(status)


def _waited_for() -> list[str]:
    return [x.name for x in threading.enumerate() if not x.daemon]


def main(builds: Mapping[str, Build], arguments: Sequence[str] | None = None) -> int:
    """Runs the services until told to end; gives the exit status. Takes `--config FILE`."""
    name = "pvcd" if len(builds) > 1 else next(iter(builds))
    try:
        config = load(_config_path(name, sys.argv[1:] if arguments is None else arguments))
        mesh_log.configure(
            config.node.log_level, config.node.log_format, service=name, node=config.node.name
        )
        asyncio.run(serve(builds, config, SystemClock()))
    except PvcError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        return 1
    return 0


async def serve(
    builds: Mapping[str, Build],
    config: Config,
    clock: Clock,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs the services until SIGTERM or SIGINT. Raises PvcError when they cannot be started."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with ExitStack() as closing:
        renewed(config, clock)
        store = open_store(config)
        closing.callback(store.close)
        peers = peers_of(config, store, clock.now())
        ground = Ground(config, store, clock, peers)
        all_parts = []
        for build in builds.values():
            parts = await asyncio.to_thread(build, ground)
            all_parts.append(parts)
            for close in parts.close:
                closing.callback(close)
        await _run(builds, ground, all_parts, ended, ready)
        await peers.close()


async def _run(
    builds: Mapping[str, Build],
    ground: Ground,
    all_parts: Sequence[Parts],
    ended: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Starts what was built, in order; waits; stops it in the opposite order."""
    servicers = [one for parts in all_parts for one in parts.servicers]
    server = Server(servicers, ground.clock, members=Members(ground.store))
    _listen(server, list(builds), ground)
    loops = [loop for parts in all_parts for loop in parts.loops]
    renewal = Renewal(ground.config, ground.store, ground.clock, ground.peers)
    loops.append(Loop("identity", renewal.step, LOOK_S, ("nodes",)))
    doors = [door for parts in all_parts for door in parts.doors]
    await server.start()
    forget = [woken(ground.store, loop) for loop in loops]
    try:
        for loop in loops:
            loop.start()
        for door in doors:
            await door.start()
        log.info("ready: %s of node %s", ", ".join(builds), ground.config.node.name)
        ready()
        await ended.wait()
        log.info("ending: no new calls, up to %g s for those that run", GRACE_S)
    finally:
        for door in reversed(doors):
            await door.stop()
        await server.drain()
        for stop_waking in forget:
            stop_waking()
        stopping = (asyncio.to_thread(loop.stop, LOOP_STOP_S) for loop in loops)
        await asyncio.gather(*stopping)


def woken(store: Store, loop: Loop) -> Callable[[], None]:
    """Has the loop woken when what it reads changed, until the function that is returned is called.

    Most commits are none of most loops' business, and a thread that is woken for nothing costs more
    than to compare some objects."""
    reads = loop.reads
    if reads is None:
        return store.on_change(loop.wake)

    def parts() -> tuple[object, ...]:
        snapshot = store.snapshot()
        return (*parts_of(snapshot, reads), snapshot.leases)

    seen = parts()

    def look() -> None:
        nonlocal seen
        before, seen = seen, parts()
        if any(map(is_not, before, seen)):
            loop.wake()

    return store.on_change(look) if reads else lambda: None


def _listen(server: Server, services: Sequence[str], ground: Ground) -> None:
    """On the sockets of the services, and on their addresses for other nodes if there are any."""
    for service in services:
        server.listen_unix(ground.config.socket(service))
    public = ground.config.public_addresses()
    if public:
        credentials = Files(ground.config.tls_dir).server_credentials(ground.clock.now())
        for service in services:
            server.listen_tls(public[service], credentials)


def _config_path(name: str, arguments: Sequence[str]) -> Path | None:
    match list(arguments):
        case []:
            return None
        case ["--config", path]:
            return Path(path)
        case [one] if one.startswith("--config="):
            return Path(one.removeprefix("--config="))
        case ["-h" | "--help"]:
            print(_usage(name))
            raise SystemExit(0)
    print(_usage(name), file=sys.stderr)
    raise SystemExit(2)


def _usage(name: str) -> str:
    services = "all services" if name == "pvcd" else f"the {name} service"
    return (
        f"usage: {name} [--config FILE]\n\n"
        f"Runs {services} of PVC on this machine until told to end (SIGTERM, Ctrl-C).\n"
        f"FILE holds the settings, {DEFAULT_PATH} without it; docs/pvc.toml explains each.\n"
        "The first time: pvc cluster init"
    )

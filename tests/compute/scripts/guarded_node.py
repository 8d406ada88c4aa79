"""A node's agent with nothing but its guard: for tests that freeze it, cut it off and kill it.

Takes the address of ZooKeeper, the root of the state, and the socket of the watchdog; begins when
it is given a line.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from services.compute.drivers.watchdog import SocketWatchdog
from services.compute.guard import Guard
from services.compute.standing import Standing
from services.mesh.clock import SystemClock
from services.mesh.errors import PvcError
from services.state.ensemble import Ensemble
from services.state.zookeeper import ZookeeperStore

NODE = "nodes/n1"
SESSION_S = 6.0


def main(address: str, root: str, watchdog: str) -> None:
    if not sys.stdin.readline():
        return
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    store = ZookeeperStore(Ensemble(address, root, SESSION_S, tick_s=0.5), patience_s=2.0)
    standing = Standing(store, NODE)
    guard = Guard(store, SystemClock(), standing, SocketWatchdog(Path(watchdog)), watchdog)
    guard.kill = lambda: print("the VMs end", flush=True)
    guard.begin()
    while not ended.wait(0.2):
        try:
            standing.lease = store.acquire(NODE, NODE)
        except PvcError as error:
            print(error.message, file=sys.stderr)
    guard.leave()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The first process of a node: mounts its file systems, runs its services, buries the dead.

Its end is the node's: the kernel then ends everything in its process namespace at once. It ends
by itself when the chassis, which is its power supply, is gone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from lab.node.mounts import mount_all
from lab.node.orders import answer
from lab.node.plan import Plan
from lab.node.supervisor import Supervisor

SOCKET = "/run/init.sock"
READY = "/run/ready"


def main(plan_file: str, power: int) -> None:
    """power: a pipe that is closed when the power goes."""
    plan = Plan.read(Path(plan_file))
    # /proc is still the machine's: this is our number there.
    Path(plan.pid_file).write_text(f"{Path('/proc/self').readlink()}\n")
    mount_all(plan)
    socket.sethostname(plan.host_name)
    waker, wakened = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakened)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    door = _listen()
    supervisor = Supervisor(plan)
    supervisor.boot()
    Path(READY).touch()
    while True:
        watched: list[int | socket.socket] = [power, waker, door]
        readable, _, _ = select.select(watched, [], [], supervisor.due_s())
        if power in readable:
            return
        if waker in readable:
            os.read(waker, 4096)
        supervisor.bury()
        supervisor.tick(time.monotonic())
        if door in readable:
            answer(door, supervisor)


def _listen() -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(SOCKET)
    door.listen(16)
    return door


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

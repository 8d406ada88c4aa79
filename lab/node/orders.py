"""What the first process of a node is asked for from outside: one line of JSON in, one out."""

from __future__ import annotations

import json
import socket
import time

from lab.node.supervisor import Supervisor

PATIENCE_S = 1.0
LINE_MAX = 4096


def answer(door: socket.socket, supervisor: Supervisor) -> None:
    """Takes one order and carries it out. Whoever is slow to speak is not waited for."""
    caller, _ = door.accept()
    with caller:
        caller.settimeout(PATIENCE_S)
        try:
            order = json.loads(caller.recv(LINE_MAX))
            said = _carried_out(order, supervisor)
            caller.sendall(json.dumps(said).encode() + b"\n")
        except (OSError, ValueError) as error:
            print(f"init: an order failed: {error}", flush=True)


def _carried_out(order: dict[str, str], supervisor: Supervisor) -> object:
    verb, name = order.get("verb", ""), order.get("service", "")
    if name and name not in supervisor.names():
        return {"error": f"there is no service {name!r}: {', '.join(supervisor.names())}"}
    now = time.monotonic()
    match verb:
        case "status":
            pass
        case "start":
            supervisor.start(name, now)
        case "stop":
            supervisor.stop(name, now)
        case "restart":
            supervisor.restart(name, now)
        case "kill":
            supervisor.kill(name)
        case _:
            return {"error": f"what is {verb!r}?"}
    return {"services": supervisor.state()}

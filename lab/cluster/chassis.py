"""The chassis: what is outside the nodes and switches their power. One process for the lab, inside
the network namespace of the controllers; when it ends, all nodes lose their power."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.cluster import credentials, switch
from lab.cluster.machine import Machine
from lab.cluster.outside import Outside, answer_ipmi
from lab.cluster.site import Lab, LabError

LINE_MAX = 1 << 16

Order = Mapping[str, Any]


class Chassis:
    """Carries out orders about nodes: {"verb": "off", "node": "n1"}."""

    def __init__(self, lab: Lab, emulator: Path) -> None:
        self._machines = {node.name: Machine(node, emulator) for node in lab.nodes}
        accounts = {credentials.CONTROLLER_USER: credentials.controller_password(lab)}
        tls = credentials.controller_tls(lab)
        self._outside = {
            name: Outside(machine, accounts, tls) for name, machine in self._machines.items()
        }
        self._verbs: dict[str, Callable[[Machine], object]] = {
            "on": self._plug_in,
            "off": Machine.power_off,
            "kill": self._pull_plug,
            "reset": Machine.reset,
            "pause": Machine.freeze,
            "resume": Machine.thaw,
            "cut": lambda machine: switch.cut(machine.node),
            "heal": lambda machine: switch.heal(machine.node),
        }

    def carry_out(self, order: Order) -> object:
        """The answer. Raises LabError."""
        verb, nodes = str(order.get("verb")), order.get("nodes") or list(self._machines)
        unknown = [name for name in nodes if name not in self._machines]
        if unknown or (verb not in ("status", "bmc") and verb not in self._verbs):
            raise LabError(f"the chassis cannot {verb} {', '.join(nodes)}")
        machines = [self._machines[name] for name in nodes]
        if verb == "bmc":
            for name in nodes:
                self._outside[name].misbehaviour.set(order.get("misbehaviour") or {})
        elif verb != "status":
            with ThreadPoolExecutor(len(machines)) as hands:
                list(hands.map(self._verbs[verb], machines))
        return {machine.node.name: self._seen(machine) for machine in machines}

    def start(self) -> None:
        """Has the controllers answer and the watchdogs count."""
        for one in self._outside.values():
            one.start()
        answer_ipmi([machine.node.ipmi_port for machine in self._machines.values()])

    def power_off(self) -> None:
        """All of them."""
        self.carry_out({"verb": "off"})

    def _pull_plug(self, machine: Machine) -> None:
        """Its controller has no power either."""
        self._outside[machine.node.name].misbehaviour.set({"dead": True})
        machine.power_off()

    def _plug_in(self, machine: Machine) -> None:
        outside = self._outside[machine.node.name]
        if outside.misbehaviour.dead:
            outside.misbehaviour.set({})
        machine.power_on()

    def _seen(self, machine: Machine) -> dict[str, object]:
        node = machine.node
        return {
            "on": machine.is_on(),
            "paused": machine.frozen(),
            "cut": node.cut_mark.exists(),
            "bmc": self._outside[node.name].misbehaves(),
            "watchdog": self._outside[node.name].timer.armed,
            "resets": self._outside[node.name].timer.fired,
            "pid": int(node.pid_file.read_text()) if machine.is_on() else 0,
        }


class Door(socketserver.ThreadingUnixStreamServer):
    """Takes orders, one a connection."""

    daemon_threads = True

    def __init__(self, path: Path, chassis: Chassis) -> None:
        self.chassis = chassis
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Caller)


class _Caller(socketserver.StreamRequestHandler):
    server: Door

    def handle(self) -> None:
        answer: dict[str, object]
        try:
            order = json.loads(self.rfile.readline(LINE_MAX))
            answer = {"nodes": self.server.chassis.carry_out(order)}
        except (LabError, OSError, ValueError) as error:
            answer = {"error": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def main(lab: Lab, emulator: Path) -> None:
    """Until it is told to end."""
    chassis = Chassis(lab, emulator)

    def end(*_: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    (lab.run / "chassis.pid").write_text(f"{os.getpid()}\n")
    with Door(lab.chassis_socket, chassis) as door:
        try:
            chassis.start()
            door.serve_forever(poll_interval=60.0)
        finally:
            chassis.power_off()


if __name__ == "__main__":
    main(Lab.chosen(), Path(sys.argv[1]))

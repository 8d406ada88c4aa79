"""What the chassis has for each node beside its power switch: a controller that speaks Redfish and
IPMI, and a watchdog. All of it works on when the node hangs, and can be made to misbehave."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence

from lab.chassis import ipmi
from lab.chassis.misbehaviour import Misbehaviour, Switch
from lab.chassis.redfish import Redfish, RedfishServer
from lab.chassis.watchdog import WatchdogServer, WatchdogTimer
from lab.cluster.machine import Machine
from lab.cluster.site import CONTROLLERS

_PING = bytes.fromhex("0600ff06000011be80000000")
"""The presence ping of the protocol below IPMI."""


class Outside:
    """Of one node."""

    def __init__(self, machine: Machine, accounts: Mapping[str, str], tls: ssl.SSLContext) -> None:
        node = machine.node
        self.misbehaviour = Misbehaviour()
        switch = Switch(machine, self.misbehaviour)
        self._redfish = RedfishServer(
            Redfish(switch, dict(accounts)), (CONTROLLERS, node.redfish_port), tls
        )
        self._ipmi = ipmi.Ipmi(switch, dict(accounts), (CONTROLLERS, node.ipmi_port))
        self.timer = WatchdogTimer(machine.reset)
        self._watchdog = WatchdogServer(node.watchdog_socket, self.timer)
        machine.when_off = self.timer.power_lost

    def start(self) -> None:
        """Begins to work."""
        self._redfish.start()
        self._watchdog.start()

    def misbehaves(self) -> str:
        """How, in a word or two; "" when it does as it should."""
        found = dataclasses.asdict(self.misbehaviour)
        return ", ".join(
            f"{name} {value}" if name == "slow_s" else name
            for name, value in found.items()
            if value
        )

    def stop(self) -> None:
        """Works no more."""
        self._watchdog.stop()
        self._redfish.stop()


def answer_ipmi(ports: Sequence[int]) -> None:
    """Answers for the IPMI of all nodes from now on, for as long as the process lives."""
    ended = threading.Event()
    threading.Thread(target=ipmi.serve, args=(ended,), daemon=True).start()
    # The library began to listen on the first controller's socket alone; it takes in the others
    # when something comes there.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        for port in ports:
            caller.sendto(_PING, (CONTROLLERS, port))

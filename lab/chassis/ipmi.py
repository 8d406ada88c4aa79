"""IPMI controllers over UDP, in a process of their own: the library that serves them has one loop
for all of them, and keeps it in globals."""

from __future__ import annotations

import threading
from typing import Any

from pyghmi.ipmi.bmc import Bmc
from pyghmi.ipmi.private.session import Session

from lab.chassis.misbehaviour import Switch

REFUSED = 0xD5
"""Completion code: cannot be done in the present state."""
_POLL_S = 0.2


class Ipmi(Bmc):  # type: ignore[misc]
    """One node's controller. address: an IPv4 address, and a port that no other controller of this
    process has; 0 for any."""

    def __init__(self, switch: Switch, users: dict[str, str], address: tuple[str, int]) -> None:
        super().__init__(users, port=address[1], address=f"::ffff:{address[0]}")
        self._switch = switch
        self.port = self.serversocket.getsockname()[1]  # by which the library tells them apart
        self.address = f"{address[0]}:{self.port}"

    def sessionless_data(self, data: bytes, sockaddr: Any) -> None:
        """See IpmiServer: what comes before anybody is known."""
        if not self._switch.misbehaviour.dead:
            super().sessionless_data(data, sockaddr)

    def handle_raw_request(self, request: Any, session: Any) -> None:
        """See Bmc. Late answers come from a thread, so that the other controllers go on."""
        bad = self._switch.misbehaviour
        answer = super().handle_raw_request
        if bad.dead:
            return
        if bad.slow_s:
            late = threading.Timer(bad.slow_s, answer, (request, session))
            late.daemon = True
            late.start()
        else:
            answer(request, session)

    def get_power_state(self) -> str:
        """See Bmc."""
        return "on" if self._switch.is_on() else "off"

    def power_off(self) -> int:
        """See Bmc; gives a completion code."""
        if self._switch.misbehaviour.refuses:
            return REFUSED
        self._switch.off()
        return 0

    def power_on(self) -> int:
        """See Bmc; as `power_off`."""
        if self._switch.misbehaviour.refuses:
            return REFUSED
        self._switch.on()
        return 0

    def power_reset(self) -> int:
        """See Bmc."""
        self._switch.reset()
        return 0

    def power_cycle(self) -> int:
        """See Bmc."""
        self._switch.reset()
        return 0


def serve(ended: threading.Event) -> None:
    """Answers for all controllers that were made in this process, until the event is set."""
    while not ended.is_set():
        Session.wait_for_rsp(_POLL_S)

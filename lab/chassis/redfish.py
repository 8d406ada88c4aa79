"""A Redfish controller: the small part of the standard that switches the power of one system.

Answers the paths that a client finds its way by, with basic authentication or a session.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.chassis.misbehaviour import Switch

RESETS = ("On", "ForceOff", "ForceRestart")
BODY_MAX = 1 << 16
DEAD_S = 3600.0
SESSIONS = "/redfish/v1/SessionService/Sessions"

Answer = tuple[int, dict[str, Any] | None]


class Redfish:
    """The controller. users: name → password. systems: as many as it is to have, the first of which
    is the machine. basic: whether it takes basic authentication."""

    def __init__(
        self,
        switch: Switch,
        users: dict[str, str],
        systems: tuple[str, ...] = ("1",),
        basic: bool = True,
    ) -> None:
        self.switch = switch
        self.users = users
        self.systems = systems
        self.basic = basic
        self.tokens: dict[str, str] = {}
        """Session → its token."""
        self.seen: list[str] = []
        """What was asked: "GET /redfish/v1/Systems"."""

    def knows(self, authorization: str, token: str) -> bool:
        """Whether these credentials let the caller in."""
        if token:
            return any(hmac.compare_digest(token, known) for known in self.tokens.values())
        kind, _, value = authorization.partition(" ")
        if not self.basic or kind != "Basic":
            return False
        user, _, password = base64.b64decode(value).decode().partition(":")
        return self._right(user, password)

    def log_in(self, body: dict[str, Any]) -> tuple[str, str] | None:
        """A session and its token, None for a wrong password."""
        if not self._right(str(body.get("UserName")), str(body.get("Password"))):
            return None
        session = secrets.token_hex(4)
        self.tokens[session] = secrets.token_hex(16)
        return session, self.tokens[session]

    def get(self, path: str) -> Answer:
        """What is at a path."""
        if path == "/redfish/v1/Systems":
            members = [{"@odata.id": f"{path}/{system}"} for system in self.systems]
            return 200, {"Members": members, "Members@odata.count": len(members)}
        found = re.fullmatch("/redfish/v1/Systems/([^/]+)", path)
        if found is None or found[1] not in self.systems:
            return 404, complaint("there is nothing of that name")
        on = self.switch.is_on() if found[1] == self.systems[0] else True
        target = f"{path}/Actions/ComputerSystem.Reset"
        action = {"target": target, "ResetType@Redfish.AllowableValues": list(RESETS)}
        return 200, {
            "@odata.id": path,
            "PowerState": "On" if on else "Off",
            "Actions": {"#ComputerSystem.Reset": action},
        }

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """What is done there."""
        found = re.fullmatch("/redfish/v1/Systems/([^/]+)/Actions/ComputerSystem.Reset", path)
        if found is None or found[1] not in self.systems:
            return 404, complaint("there is nothing of that name")
        if self.switch.misbehaviour.refuses:
            return 503, complaint("The power supply does not answer the controller.")
        match body.get("ResetType"):
            case "ForceOff" if not self.switch.is_on():
                return 409, complaint("The system is off already.")
            case "ForceOff":
                self.switch.off()
            case "On":
                self.switch.on()
            case "ForceRestart":
                self.switch.reset()
            case other:
                return 400, complaint(f"The value {other} is not one of {', '.join(RESETS)}.")
        return 204, None

    def _right(self, user: str, password: str) -> bool:
        known = self.users.get(user)
        return known is not None and hmac.compare_digest(known.encode(), password.encode())


def complaint(words: str) -> dict[str, Any]:
    """An error as Redfish tells it."""
    extended = [{"MessageId": "Base.1.8.GeneralError", "Message": words}]
    return {"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": extended}}


class RedfishServer:
    """Serves a controller at an address, in threads. tls: what it shows, for https."""

    def __init__(
        self, redfish: Redfish, address: tuple[str, int], tls: ssl.SSLContext | None = None
    ) -> None:
        self.ended = threading.Event()
        bound = type("Bound", (_Caller,), {"redfish": redfish, "ended": self.ended})
        self._server = ThreadingHTTPServer(address, bound)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address = f"{address[0]}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answers nobody any more."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.1)


class _Caller(BaseHTTPRequestHandler):
    redfish: Redfish
    ended: threading.Event
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    timeout = 60

    def do_GET(self) -> None:
        """See BaseHTTPRequestHandler."""
        if self._let_in():
            self._answer(*self.redfish.get(self.path.rstrip("/")))

    def do_POST(self) -> None:
        """See BaseHTTPRequestHandler."""
        size = min(int(self.headers.get("Content-Length") or 0), BODY_MAX)
        body = json.loads(self.rfile.read(size) or b"{}")
        if self.path.rstrip("/") == SESSIONS:
            self._log_in(body)
        elif self._let_in():
            self._answer(*self.redfish.post(self.path.rstrip("/"), body))

    def do_DELETE(self) -> None:
        """See BaseHTTPRequestHandler."""
        if self._let_in():
            self.redfish.tokens.pop(self.path.rpartition("/")[2], None)
            self._answer(204, None)

    def log_message(self, format: str, *args: Any) -> None:
        """See BaseHTTPRequestHandler: kept instead of printed."""
        self.redfish.seen.append(f"{self.command} {self.path}")

    def _log_in(self, body: dict[str, Any]) -> None:
        self._misbehave()
        opened = self.redfish.log_in(body)
        if opened is None:
            self._answer(401, complaint("The user or the password is wrong."))
            return
        path = f"{SESSIONS}/{opened[0]}"
        self._answer(201, {"@odata.id": path}, {"X-Auth-Token": opened[1], "Location": path})

    def _let_in(self) -> bool:
        self._misbehave()
        headers = self.headers
        token, basic = headers.get("X-Auth-Token", ""), headers.get("Authorization", "")
        if self.redfish.knows(basic, token):
            return True
        self._answer(401, complaint("The user or the password is wrong."))
        return False

    def _misbehave(self) -> None:
        bad = self.redfish.switch.misbehaviour
        self.ended.wait(DEAD_S if bad.dead else bad.slow_s)

    def _answer(
        self, status: int, content: dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(content).encode() if content is not None else b""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

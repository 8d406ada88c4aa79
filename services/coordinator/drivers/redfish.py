"""Redfish controllers: HTTPS and JSON, as the DMTF's standard has it. Decides nothing.

Follows the links that the controller gives instead of guessing paths, and says basic authentication
first, a session where that is switched off.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography import x509

from services.coordinator.drivers.power import ANSWER_S, PowerTarget, failed

_ROOT = "/redfish/v1"
_SYSTEMS = f"{_ROOT}/Systems"
_SESSIONS = f"{_ROOT}/SessionService/Sessions"
_RESET = "#ComputerSystem.Reset"
_ALLOWED = "ResetType@Redfish.AllowableValues"
_OFF, _ON = "ForceOff", "On"
_WORDS_MAX = 300


class Redfish:
    """See PowerDriver."""

    def is_on(self, target: PowerTarget) -> bool:
        """See PowerDriver."""
        with _conversation(target) as bmc:
            return bmc.system().get("PowerState") != "Off"

    def off(self, target: PowerTarget) -> None:
        """See PowerDriver. The command is sent even if the power is said to be off: some say so for
        a while after it came on."""
        _reset(target, _OFF, "cut the power")

    def on(self, target: PowerTarget) -> None:
        """See PowerDriver."""
        _reset(target, _ON, "switch it on")


def _reset(target: PowerTarget, kind: str, deed: str) -> None:
    """Has a reset of that kind done. A controller that refuses because it is so already has done
    its part."""
    with _conversation(target) as bmc:
        action = bmc.system().get("Actions", {}).get(_RESET, {})
        allowed = action.get(_ALLOWED, [kind])
        if "target" not in action or kind not in allowed:
            raise failed(target, f"it offers no way to {deed} ({kind})")
        answer = bmc.post(action["target"], {"ResetType": kind})
        if answer.is_success or (bmc.system().get("PowerState") == "Off") == (kind == _OFF):
            return
        raise failed(target, f"it refuses to {deed}: {_words(answer)}")


@contextmanager
def _conversation(target: PowerTarget) -> Iterator[_Bmc]:
    """A connection for some questions, with every failure of it as POWER_FAILED."""
    try:
        if urlsplit(target.address).scheme not in ("http", "https"):
            raise failed(target, "a Redfish address begins with https://")
        verify = _trust(target.certificate)
        with httpx.Client(
            base_url=target.address, timeout=ANSWER_S, verify=verify, trust_env=False
        ) as http:
            bmc = _Bmc(http, target)
            try:
                yield bmc
            finally:
                bmc.log_out()
    except httpx.TimeoutException as error:
        raise failed(target, f"no answer within {ANSWER_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        raise failed(target, str(error) or type(error).__name__) from error
    except ValueError as error:
        raise failed(target, f"its address, certificate or answer is wrong: {error}") from error


class _Bmc:
    """A controller that is being talked to."""

    def __init__(self, http: httpx.Client, target: PowerTarget) -> None:
        self._http = http
        self._target = target
        self._auth: httpx.BasicAuth | None = httpx.BasicAuth(target.user, target.password)
        self._session = ""
        self._path = ""

    def system(self) -> Mapping[str, Any]:
        """The machine, as the controller describes it."""
        if not self._path:
            self._path = self._find()
        return self._get(self._path)

    def post(self, path: str, body: Mapping[str, str]) -> httpx.Response:
        """Has something done."""
        return self._ask("POST", path, body)

    def log_out(self) -> None:
        """Ends the session, if there is one: controllers have room for a few only."""
        if self._session:
            path, self._session = self._session, ""
            try:
                self._http.delete(path)
            except httpx.HTTPError:
                return  # it ends by itself after a while

    def _find(self) -> str:
        members = [str(one["@odata.id"]) for one in self._get(_SYSTEMS).get("Members", [])]
        names = [path.rstrip("/").rpartition("/")[2] for path in members]
        wanted = self._target.system
        if wanted in names:
            return members[names.index(wanted)]
        if not wanted and len(members) == 1:
            return members[0]
        what = f"no system {wanted}" if wanted else "several systems, and none was named"
        raise failed(self._target, f"it has {what}; there are: {', '.join(names) or 'none'}")

    def _get(self, path: str) -> Mapping[str, Any]:
        answer = self._ask("GET", path)
        if not answer.is_success:
            raise failed(self._target, f"{path}: {_words(answer)}")
        content = answer.json()
        if not isinstance(content, dict):
            raise failed(self._target, f"{path}: no Redfish resource is there")
        return content

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> httpx.Response:
        path = urlsplit(path).path  # never to another machine, whatever a link says
        answer = self._http.request(method, path, json=body, auth=self._auth)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._auth is not None:
            self._log_in()
            answer = self._http.request(method, path, json=body)
        return answer

    def _log_in(self) -> None:
        self._auth = None
        account = {"UserName": self._target.user, "Password": self._target.password}
        answer = self._http.post(_SESSIONS, json=account)
        token = answer.headers.get("X-Auth-Token", "")
        if not answer.is_success or not token:
            raise failed(self._target, f"it refuses the user or the password: {_words(answer)}")
        self._http.headers["X-Auth-Token"] = token
        self._session = urlsplit(answer.headers.get("Location", "")).path


def _words(answer: httpx.Response) -> str:
    """What a refusal says, in the controller's own words if it has any."""
    try:
        told = answer.json()["error"]
        extended = told.get("@Message.ExtendedInfo") or [{}]
        words = extended[0].get("Message") or told.get("message") or ""
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        words = ""
    return f"{words[:_WORDS_MAX]} (HTTP {answer.status_code})".strip()


def _trust(certificate: str) -> ssl.SSLContext:
    """Whose certificates are believed. A controller's own, given to be compared with, need not name
    the address: they hardly ever do."""
    if not certificate:
        return ssl.create_default_context()
    context = ssl.create_default_context(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    given = x509.load_pem_x509_certificates(certificate.encode())
    context.check_hostname = any(_is_authority(one) for one in given)
    return context


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False

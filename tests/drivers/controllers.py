"""Controllers of a machine's power, seen alike by the tests: the fake, and real ones of each
language with the real driver for it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.chassis.ipmi import Ipmi as IpmiController
from lab.chassis.ipmi import serve
from lab.chassis.misbehaviour import Misbehaviour, Switch
from lab.chassis.redfish import Redfish as RedfishController
from lab.chassis.redfish import RedfishServer
from services.coordinator.drivers.fake import FakeController, FakePower
from services.coordinator.drivers.ipmi import Ipmi
from services.coordinator.drivers.power import PowerDriver, PowerTarget
from services.coordinator.drivers.redfish import Redfish
from tests.state.certificates import write_certificates

USERS = {"admin": "s3cret, with spaces"}


@dataclass
class Box:
    """A machine that is switched; see lab.chassis.Machine."""

    on: bool = True
    told: list[str] = field(default_factory=list)

    def is_on(self) -> bool:
        return self.on

    def power_on(self) -> None:
        self.told.append("on")
        self.on = True

    def power_off(self) -> None:
        self.told.append("off")
        self.on = False

    def reset(self) -> None:
        self.told.append("reset")


@dataclass
class Subject:
    """A driver, the controller that it reaches, and the machine behind that."""

    driver: PowerDriver
    target: PowerTarget
    box: Box
    bad: Any
    """A Misbehaviour, or the fake's own."""

    def with_password(self, password: str) -> PowerTarget:
        return replace(self.target, password=password)


@contextmanager
def fake(_folder: Path) -> Iterator[Subject]:
    box = Box()

    class Mirror(FakeController):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "on":
                box.on = bool(value)

    controller = Mirror(password=USERS["admin"], cut=box.power_off)
    power = FakePower()
    power.controllers["bmc"] = controller
    yield Subject(power, PowerTarget("bmc", "admin", USERS["admin"]), box, controller)


@contextmanager
def redfish(_folder: Path, basic: bool = True) -> Iterator[Subject]:
    box, bad = Box(), Misbehaviour()
    controller = RedfishController(Switch(box, bad), USERS, basic=basic)
    with serving(controller) as server:
        target = PowerTarget(f"http://{server.address}", "admin", USERS["admin"])
        yield Subject(Redfish(), target, box, bad)


@contextmanager
def redfish_session(folder: Path) -> Iterator[Subject]:
    with redfish(folder, basic=False) as subject:
        yield subject


@contextmanager
def redfish_tls(folder: Path) -> Iterator[Subject]:
    files = write_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    box, bad = Box(), Misbehaviour()
    with serving(RedfishController(Switch(box, bad), USERS), context) as server:
        target = PowerTarget(
            f"https://{server.address}", "admin", USERS["admin"], certificate=files.ca.read_text()
        )
        yield Subject(Redfish(), target, box, bad)


@contextmanager
def serving(
    controller: RedfishController, tls: ssl.SSLContext | None = None
) -> Iterator[RedfishServer]:
    server = RedfishServer(controller, ("127.0.0.1", 0), tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def ipmi(_folder: Path) -> Iterator[Subject]:
    box, bad, ended = Box(), Misbehaviour(), threading.Event()
    controller = IpmiController(Switch(box, bad), USERS, ("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(ended,), daemon=True)
    thread.start()
    try:
        target = PowerTarget(controller.address, "admin", USERS["admin"])
        yield Subject(Ipmi(), target, box, bad)
    finally:
        ended.set()
        thread.join(60)


KINDS = {
    "fake": fake,
    "redfish": redfish,
    "redfish-session": redfish_session,
    "redfish-tls": redfish_tls,
    "ipmi": ipmi,
}

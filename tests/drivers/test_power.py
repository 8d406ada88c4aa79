"""Every driver of a machine's power against a controller of its kind, well-behaved and not."""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.chassis.misbehaviour import Misbehaviour, Switch
from lab.chassis.redfish import Redfish as RedfishController
from services.coordinator.drivers.ipmi import Ipmi, arguments
from services.coordinator.drivers.power import PowerTarget
from services.coordinator.drivers.redfish import Redfish
from tests.drivers.controllers import KINDS, USERS, Box, Subject, serving
from tests.state.certificates import write_certificates
from tests.state.places import refused


@pytest.fixture(
    params=[
        name if name == "fake" else pytest.param(name, marks=pytest.mark.real) for name in KINDS
    ]
)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """The same test for every kind."""
    with KINDS[request.param](tmp_path) as made:
        yield made


def test_power_is_told_and_cut(subject: Subject) -> None:
    assert subject.driver.is_on(subject.target)
    subject.driver.off(subject.target)
    assert not subject.box.on
    assert not subject.driver.is_on(subject.target)


def test_cutting_what_is_off_is_no_error(subject: Subject) -> None:
    subject.driver.off(subject.target)
    subject.driver.off(subject.target)
    assert not subject.driver.is_on(subject.target)


def test_it_is_switched_on(subject: Subject) -> None:
    subject.driver.off(subject.target)
    subject.driver.on(subject.target)
    assert subject.box.on
    assert subject.driver.is_on(subject.target)


def test_switching_on_what_is_on_does_nothing_to_it(subject: Subject) -> None:
    subject.driver.on(subject.target)
    assert subject.box.on and "reset" not in subject.box.told and "off" not in subject.box.told


def test_one_that_does_not_switch_on_says_what_is_so(subject: Subject) -> None:
    subject.driver.off(subject.target)
    subject.bad.lying = True
    subject.driver.on(subject.target)
    assert not subject.driver.is_on(subject.target) and not subject.box.on


def test_one_that_refuses_to_switch_on_is_quoted(subject: Subject) -> None:
    subject.driver.off(subject.target)
    subject.bad.refuses = True
    with refused("POWER_FAILED"):
        subject.driver.on(subject.target)
    assert not subject.box.on


def test_a_wrong_password_is_refused_and_not_told_on(subject: Subject) -> None:
    wrong = subject.with_password("guessed-wrong")
    for verb in (subject.driver.is_on, subject.driver.off, subject.driver.on):
        with refused("POWER_FAILED") as error:
            verb(wrong)
        assert "guessed-wrong" not in error.value.message
        assert subject.target.address in error.value.message
    assert subject.box.on
    assert "s3cret" not in repr(subject.target)


def test_a_dead_controller_is_given_up_soon(subject: Subject) -> None:
    subject.bad.dead = True
    began = time.monotonic()
    with refused("POWER_FAILED"):
        subject.driver.is_on(subject.target)
    assert time.monotonic() - began < 60
    subject.bad.dead = False


def test_a_controller_that_refuses_is_quoted(subject: Subject) -> None:
    subject.bad.refuses = True
    with refused("POWER_FAILED"):
        subject.driver.off(subject.target)
    assert subject.box.on and subject.driver.is_on(subject.target)


def test_a_controller_that_does_nothing_says_what_is_so(subject: Subject) -> None:
    subject.bad.lying = True
    subject.driver.off(subject.target)
    assert subject.driver.is_on(subject.target) and subject.box.on


def test_a_controller_that_always_says_off_still_cuts(subject: Subject) -> None:
    subject.bad.stuck = True
    assert not subject.driver.is_on(subject.target)
    subject.driver.off(subject.target)
    if not isinstance(subject.driver, Redfish):  # there it refuses what it takes for done
        assert not subject.box.on


def test_a_slow_controller_is_waited_for(subject: Subject) -> None:
    subject.bad.slow_s = 0.2
    assert subject.driver.is_on(subject.target)
    subject.bad.slow_s = 0.0


def redfish(**how: object) -> RedfishController:
    return RedfishController(Switch(Box(), Misbehaviour()), USERS, **how)  # type: ignore[arg-type]


@pytest.mark.real
def test_which_system_is_meant_must_be_clear() -> None:
    controller = redfish(systems=("blade1", "blade2"))
    with serving(controller) as server:
        several = PowerTarget(f"http://{server.address}", "admin", USERS["admin"])
        with refused("POWER_FAILED") as error:
            Redfish().is_on(several)
        assert "there are: blade1, blade2" in error.value.message
        named = PowerTarget(f"http://{server.address}", "admin", USERS["admin"], system="blade1")
        Redfish().off(named)
        assert not Redfish().is_on(named)
        wrong = PowerTarget(f"http://{server.address}", "admin", USERS["admin"], system="blade9")
        with refused("POWER_FAILED") as error:
            Redfish().is_on(wrong)
        assert "no system blade9" in error.value.message


@pytest.mark.real
def test_a_session_is_ended() -> None:
    """Controllers have room for a few, and a fencer asks for ever."""
    controller = redfish(basic=False)
    with serving(controller) as server:
        target = PowerTarget(f"http://{server.address}", "admin", USERS["admin"])
        Redfish().is_on(target)
        assert controller.tokens == {} and any("DELETE" in one for one in controller.seen)


@pytest.mark.real
def test_a_stranger_with_another_certificate_gets_no_password(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    mine, other = write_certificates(tmp_path / "mine"), write_certificates(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.certificate, other.key)
    controller = redfish()
    with serving(controller, context) as server:
        address = f"https://{server.address}"
        for certificate in (mine.ca.read_text(), ""):
            target = PowerTarget(address, "admin", USERS["admin"], certificate=certificate)
            with refused("POWER_FAILED") as error:
                Redfish().is_on(target)
            assert "CERTIFICATE_VERIFY_FAILED" in error.value.message
    assert controller.seen == []


@pytest.mark.real
def test_a_controllers_own_certificate_need_not_name_its_address(tmp_path: Path) -> None:
    files = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with serving(redfish(), context) as server:
        port = server.address.rpartition(":")[2]
        for certificate, works in ((files.certificate, True), (files.ca, False)):
            target = PowerTarget(
                f"https://127.0.0.2:{port}".replace("127.0.0.2", "127.0.0.1"),
                "admin", USERS["admin"], certificate=certificate.read_text(),
            )  # fmt: skip
            assert Redfish().is_on(target) or not works


@pytest.mark.parametrize("certificate", ["no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_what_is_no_certificate_is_told(certificate: str) -> None:
    with refused("POWER_FAILED"):
        Redfish().is_on(PowerTarget("https://127.0.0.1:1", certificate=certificate))


@pytest.mark.parametrize("address", ["bmc.example", "ftp://bmc", "", "http://["])
def test_an_address_that_is_none_is_told(address: str) -> None:
    with refused("POWER_FAILED"):
        Redfish().is_on(PowerTarget(address))


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("bmc1.example.org", "bmc1.example.org", "623"),
        ("10.0.0.1:6230", "10.0.0.1", "6230"),
        ("[fe80::1]:6230", "fe80::1", "6230"),
        ("fe80::1", "fe80::1", "623"),
    ],
)
def test_ipmi_addresses(address: str, host: str, port: str) -> None:
    told = arguments(PowerTarget(address, "admin", "secret"), 7)
    assert told[told.index("-H") + 1] == host and told[told.index("-p") + 1] == port
    assert told[told.index("-f") + 1] == "/dev/fd/7" and "secret" not in " ".join(told)


@pytest.mark.parametrize("address", ["", "bmc -P x", "-o:1", "a b", "bmc:port"])
def test_what_is_no_ipmi_address_is_refused(address: str) -> None:
    with refused("POWER_FAILED"):
        arguments(PowerTarget(address), 7)


def program(folder: Path, text: str) -> str:
    path = folder / "ipmitool"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_ipmitool_is_given_the_password_by_a_pipe_alone(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f'echo "$@" > {seen}; env >> {seen}; for a in "$@"; do case $a in /dev/fd/*) ' \
        f'cat $a > {seen}.password;; esac; done; echo "Chassis Power is on"'  # fmt: skip
    target = PowerTarget("bmc", "admin", "s3cret")
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert Ipmi(program(tmp_path, script)).is_on(target)
    assert "s3cret" not in seen.read_text()
    assert Path(f"{seen}.password").read_text() == "s3cret\n"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Chassis Power is unknown'", "does not say whether it is on"),
        ("echo 'Error: no hostname' >&2; exit 3", "Error: no hostname"),
        ("exit 3", "exit status 3"),
    ],
)
def test_what_ipmitool_says_is_passed_on(tmp_path: Path, script: str, words: str) -> None:
    with refused("POWER_FAILED") as error:
        Ipmi(program(tmp_path, script)).is_on(PowerTarget("bmc", "admin", "x"))
    assert words in error.value.message


def test_without_ipmitool_that_is_said() -> None:
    with refused("POWER_FAILED") as error:
        Ipmi("/nowhere/ipmitool").off(PowerTarget("bmc"))
    assert "cannot be run" in error.value.message


def test_an_answer_that_drips_has_an_end(tmp_path: Path) -> None:
    """ipmitool itself may hang."""
    began = time.monotonic()
    with refused("POWER_FAILED") as error:
        Ipmi(program(tmp_path, "exec sleep 60"), run_s=0.3).is_on(PowerTarget("bmc"))
    assert "no answer within 0.3 s" in error.value.message and time.monotonic() - began < 30

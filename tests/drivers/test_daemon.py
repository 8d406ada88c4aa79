"""The private libvirtd: beside others, outliving whoever started it, leaving nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.core.v1 import reason_pb2
from services.compute.drivers import console_log
from services.compute.drivers.daemon import Daemon, accelerator
from services.compute.drivers.domain_xml import domain_xml
from services.compute.drivers.hypervisor import OffReason, Power
from services.compute.drivers.libvirt import Libvirt
from services.compute.drivers.process import Process
from services.mesh.errors import PvcError
from tests import logs
from tests.drivers.pair import until
from tests.drivers.subjects import RealSubject, started
from tests.drivers.vms import node, small_vm


@pytest.fixture
def own(tmp_path: Path, namespace: Path) -> Iterator[Daemon]:
    """A daemon that the test may ill-treat. Its screens are at ports that nobody else takes."""
    daemon = Daemon(tmp_path / "own", net_namespace=namespace, vnc_ports=(6400, 6500))
    with logs.followed(daemon.directory, "log/**/*.log"):
        yield daemon
    daemon.stop(kill_guests=True)


def pid_of(daemon: Daemon) -> int:
    return int((daemon.directory / "run" / "libvirtd.pid").read_text())


def kill(daemon: Daemon) -> None:
    """Returns when it is dead."""
    process = Process.of(pid_of(daemon))
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60)


def mounts_of_ours(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(folder) in line]  # fmt: skip


def processes_below(folder: Path) -> list[str]:
    """Command lines of the processes that have the folder at libvirt's place."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "root/run/libvirt").samefile(folder / "run"):
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("setting", "flags", "writable", "name", "why"),
    [
        ("", "fpu vmx sse", True, "kvm", "offers virtualization"),
        ("", "fpu svm", True, "kvm", "offers virtualization"),
        ("", "fpu vmxoid", True, "tcg", "no vmx or svm"),
        ("", "fpu vmx", False, "tcg", "not writable"),
        ("tcg", "fpu vmx", True, "tcg", "configuration"),
        ("kvm", "fpu", False, "kvm", "configuration"),
    ],
)
def test_accelerator(setting: str, flags: str, writable: bool, name: str, why: str) -> None:
    found = accelerator(setting, f"processor: 0\nflags\t\t: {flags}\nbugs: vmx svm\n", writable)
    assert found[0] == name
    assert why in found[1]


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with pytest.raises(PvcError, match="shorter") as caught:
        Daemon(tmp_path / ("x" * 100)).start()
    assert caught.value.reason == reason_pb2.REASON_INVALID_CONFIG


@pytest.mark.real
def test_started_once(own: Daemon) -> None:
    assert not own.healthy()
    own.start()
    pid = pid_of(own)
    own.start()
    assert own.healthy()
    assert pid_of(own) == pid


@pytest.mark.real
def test_nothing_stays_behind_or_leaks_out(own: Daemon, tmp_path: Path) -> None:
    own.start()
    subject = RealSubject(tmp_path, own)
    started(subject, small_vm("web", "root"))
    subject.hypervisor.close()
    assert len(own.guests()) == 1
    assert not mounts_of_ours(tmp_path)
    until("nothing but the three", lambda: len(processes_below(own.directory)) == 3)
    own.stop(kill_guests=True)
    assert processes_below(own.directory) == []
    assert not (own.directory / "run").exists()
    assert not [path for path in Path("/sys/fs/cgroup").glob("*/machine/*web*")]
    own.stop(kill_guests=True)


@pytest.mark.real
def test_guests_outlive_a_killed_daemon(own: Daemon, tmp_path: Path) -> None:
    own.start()
    subject = RealSubject(tmp_path, own)
    vm = started(subject, small_vm("web", "root"))
    before = subject.hypervisor.domains()[vm]
    kill(own)
    assert not own.healthy()
    assert own.guests() == (subject.pid(vm),)
    with pytest.raises(PvcError) as caught:
        subject.hypervisor.domains()
    assert caught.value.reason == reason_pb2.REASON_HYPERVISOR_FAILED
    own.start()
    after = subject.hypervisor.domains()[vm]
    assert (after.power, after.run) == (Power.RUNNING, before.run)
    subject.hypervisor.destroy(vm)
    assert subject.hypervisor.domains()[vm].power is Power.OFF
    assert own.guests() == ()
    subject.hypervisor.close()


@pytest.mark.real
def test_a_guest_that_died_meanwhile_is_seen(own: Daemon, tmp_path: Path) -> None:
    own.start()
    subject = RealSubject(tmp_path, own)
    vm = started(subject, small_vm("web"))
    own.stop(kill_guests=False)
    os.kill(subject.pid(vm), signal.SIGKILL)
    own.start()
    domain = subject.until(vm, lambda domain: domain.power is Power.OFF)
    assert domain.off_reason in (OffReason.CRASHED, OffReason.UNKNOWN)
    subject.hypervisor.close()


@pytest.mark.real
def test_a_start_that_the_daemon_did_not_survive_is_ended(own: Daemon, tmp_path: Path) -> None:
    """Killed the moment it has noted that it starts a domain: the next one can start it."""
    own.start()
    driver = Libvirt(own.uri, ("tcg", "a test"))
    driver.define(domain_xml(small_vm("web"), node(tmp_path)))
    note = own.pid_directory / "web.xml"
    starting = threading.Thread(target=ended_badly, args=(driver, "web"))
    starting.start()
    deadline = time.monotonic() + 60
    while not note.exists():
        assert time.monotonic() < deadline
    kill(own)
    starting.join(60)
    own.start()
    driver.start("web")
    assert driver.domains()["web"].power is Power.RUNNING
    assert len(own.guests()) == 1
    driver.destroy("web")
    driver.close()


def ended_badly(driver: Libvirt, vm: str) -> None:
    with pytest.raises(PvcError):
        driver.start(vm)


@pytest.mark.real
def test_it_outlives_who_started_it_and_is_adopted(own: Daemon, namespace: Path) -> None:
    program = (
        "from pathlib import Path; from services.compute.drivers.daemon import Daemon; import os;"
        f"Daemon(Path({str(own.directory)!r}), net_namespace=Path({str(namespace)!r}),"
        "vnc_ports=(6400, 6500)).start(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program], timeout=30, cwd=Path(__file__).parents[2],
                   env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert own.healthy()
    pid = pid_of(own)
    own.start()
    assert pid_of(own) == pid


@pytest.mark.real
def test_two_at_once_do_not_see_each_other(own: Daemon, real: RealSubject, tmp_path: Path) -> None:
    own.start()
    (tmp_path / "o").mkdir()
    other = RealSubject(tmp_path / "o", own)
    mine, theirs = small_vm("web", "root"), small_vm("web", "root")
    theirs.meta.uid = "another"
    started(real, mine)
    started(other, theirs)
    for subject in (real, other):
        assert set(subject.hypervisor.domains()) == {"web"}
    assert real.pid("web") != other.pid("web")
    other.hypervisor.destroy("web")
    assert real.hypervisor.domains()["web"].power is Power.RUNNING
    other.hypervisor.close()


@pytest.mark.real
def test_asking_again_and_again_leaves_no_trace(own: Daemon) -> None:
    own.start()
    for _ in range(5):
        own.start()
        assert own.healthy()
    # What it says of a connection that ends; it may speak of other things at any time.
    assert "End of file" not in (own.directory / "log" / "libvirtd.log").read_text()


@pytest.mark.real
def test_its_logs_are_rotated(own: Daemon) -> None:
    own.start()
    log = own.directory / "log" / "libvirtd.log"
    with log.open("ab") as file:
        file.write(b"x" * (console_log.MAX_BYTES + 1))
    own.start()
    assert log.stat().st_size == 0
    assert log.with_name("libvirtd.log.1").stat().st_size == console_log.MAX_BYTES


@pytest.mark.real
def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "own", libvirtd=Path("/bin/false"))
    with pytest.raises(PvcError, match="ended at its start") as caught:
        daemon.start()
    assert caught.value.reason == reason_pb2.REASON_HYPERVISOR_FAILED


@pytest.mark.real
def test_a_hung_daemon_hangs_nobody(own: Daemon, tmp_path: Path) -> None:
    own.start()
    hypervisor, newcomer = (Libvirt(own.uri, ("tcg", "a test")) for _ in range(2))
    assert hypervisor.domains() == {}
    pid = pid_of(own)
    os.kill(pid, signal.SIGSTOP)
    try:
        for subject in (hypervisor, newcomer):
            subject._link._deadline_s = 0.5
        for subject in (hypervisor, newcomer) * 6:
            with pytest.raises(PvcError) as caught:
                subject.domains()
            assert caught.value.reason == reason_pb2.REASON_DEADLINE
        assert not own.healthy()
    finally:
        os.kill(pid, signal.SIGCONT)
    for subject in (hypervisor, newcomer):
        subject._link._deadline_s = 60.0
        assert subject._link.call("settle", lambda connection: connection.isAlive())
        assert subject.domains() == {}
        subject.close()


@pytest.mark.real
def test_one_that_hangs_for_long_is_replaced(
    own: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.start()
    subject = RealSubject(tmp_path, own)
    vm = started(subject, small_vm("web"))
    before = subject.hypervisor.domains()[vm].run
    hung = pid_of(own)
    os.kill(hung, signal.SIGSTOP)
    monkeypatch.setattr("services.compute.drivers.daemon.HUNG_S", 1.5)
    own.start()
    assert pid_of(own) != hung
    assert subject.hypervisor.domains()[vm].run == before
    subject.hypervisor.close()


@pytest.mark.real
def test_it_knows_nothing_of_our_environment(own: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVC_TEST_SECRET", "hush")
    own.start()
    assert b"hush" not in Path(f"/proc/{pid_of(own)}/environ").read_bytes()


@pytest.mark.real
def test_foreign_domains_are_not_seen_or_touched(real: RealSubject, tmp_path: Path) -> None:
    vm = small_vm("theirs")
    xml = domain_xml(vm, node(tmp_path))
    before, _, rest = xml.partition("<metadata>")
    foreign = before + rest.partition("</metadata>")[2]
    real.hypervisor._call("define a foreign domain", lambda c: c.defineXML(foreign))
    try:
        assert "theirs" not in real.hypervisor.domains()
        for act in (lambda: real.hypervisor.start("theirs"), lambda: real.hypervisor.define(xml),
                    lambda: real.hypervisor.undefine("theirs")):  # fmt: skip
            with pytest.raises(PvcError, match="not PVC's") as caught:
                act()
            assert caught.value.reason == reason_pb2.REASON_ALREADY_EXISTS
    finally:
        real.hypervisor._call("clean", lambda c: c.lookupByName("theirs").undefine())

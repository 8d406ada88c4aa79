"""Domains that move between two hypervisors: what every driver promises, on the fake and on two
libvirtds with TLS between them; and what becomes of a real one that is cut in the middle."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.daemon_settings import MIGRATION_PORT
from services.compute.drivers.domain_xml import domain_xml
from services.compute.drivers.fake_migration import Wire
from services.compute.drivers.hypervisor import Crossing, OffReason, Passage, Power, Route
from services.compute.drivers.observed import parse_domain
from services.mesh.errors import PvcError
from tests.drivers.pair import End, FakeEnd, RealEnd, two_nodes, until
from tests.drivers.vms import node, small_vm
from tests.guests.tiny import READY, tiny_disk

FIRST_MS = 100


@dataclass
class Stage:
    """Two nodes, and a guest that runs on one of them."""

    one: End
    other: End
    folder: Path

    def home(self) -> tuple[End, End]:
        """Where it runs, and the other."""
        domain = self.one.domain("web")
        here = domain is not None and domain.power is not Power.OFF
        return (self.one, self.other) if here else (self.other, self.one)

    def begin(self, slow: bool = False) -> tuple[End, End]:
        """From where it runs to the other."""
        source, target = self.home()
        target.hypervisor.undefine("web")
        if slow:
            source.slow()
        source.hypervisor.migrate("web", Route(target.host, FIRST_MS))
        if slow:
            until("copying", lambda: going(source) is not None and is_in(target))
        return source, target


def going(end: End) -> Passage | None:
    passage = end.hypervisor.migration("web")
    return passage if passage is not None and passage.total_bytes else None


def is_in(end: End) -> bool:
    domain = end.domain("web")
    return domain is not None and domain.crossing is Crossing.INCOMING


def state(end: End) -> tuple[Power, Crossing] | None:
    domain = end.domain("web")
    return None if domain is None else (domain.power, domain.crossing)


HERE = (Power.RUNNING, Crossing.NONE)


def boot(end: RealEnd, folder: Path, disk: Path) -> None:
    root = folder / "web-root.qcow2"
    command = ["qemu-img", "convert", "-O", "qcow2", str(disk), str(root)]
    subprocess.run(command, check=True, timeout=60)
    machine = node(folder, "web-root")
    end.hypervisor.define(domain_xml(guest(), machine))
    end.hypervisor.start("web")
    log = Path(machine.console_log)
    until("the guest", lambda: READY in log.read_text(errors="replace"), 90)


def guest() -> vm_pb2.Vm:
    vm = small_vm("web", "root")
    vm.spec.memory.memory_mib = 96
    return vm


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("mig")
    with two_nodes(folder) as (one, other):
        boot(one, folder, tiny_disk())
        yield Stage(one, other, folder)


@pytest.fixture
def real(nodes: Stage) -> Iterator[Stage]:
    yield nodes
    for end in (nodes.one, nodes.other):
        end.fast()


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.real)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "libvirt":
        found: Stage = request.getfixturevalue("real")
        return found
    wire, clock = Wire(), [0.0]
    one, other = FakeEnd("n1", wire, clock), FakeEnd("n2", wire, clock)
    one.hypervisor.define(domain_xml(guest(), node(tmp_path, "web-root")))
    one.hypervisor.start("web")
    return Stage(one, other, tmp_path)


def test_it_goes_and_runs_on(stage: Stage) -> None:
    before = stage.home()[0].domain("web")
    source, target = stage.begin()
    ended = source.ended("web")
    assert ended.why == "" and ended.downtime_ms > 0
    left, there = source.domain("web"), target.domain("web")
    assert before is not None and left is not None and there is not None
    assert (left.power, left.off_reason, left.run) == (Power.OFF, OffReason.MIGRATED, "")
    assert state(target) == HERE and there.run
    was, now = parse_domain(before.xml), parse_domain(there.xml)
    assert (now.disks, now.cold, now.uuid) == (was.disks, was.cold, was.uuid)
    source.hypervisor.undefine("web")
    assert source.domain("web") is None


def test_nothing_speaks_against_it(stage: Stage) -> None:
    source, target = stage.home()
    target.hypervisor.undefine("web")
    assert target.hypervisor.refuses("web", source.host, ()) == ()


def test_a_host_that_cannot_be_asked(stage: Stage) -> None:
    _, target = stage.home()
    (reason,) = target.hypervisor.refuses("web", "10.97.0.99", ())
    assert "10.97.0.99 cannot be asked" in reason


def test_while_it_is_copied(stage: Stage) -> None:
    source, target = stage.begin(slow=True)
    source.hypervisor.migrate("web", Route(target.host, FIRST_MS))
    assert state(source) == HERE and state(target) == (Power.PAUSED, Crossing.INCOMING)
    source.hypervisor.set_downtime("web", 200)
    source.hypervisor.throttle("web")
    passage = source.fresh().migration("web")
    assert passage is not None and not passage.ended
    assert 0 < passage.remaining_bytes <= passage.total_bytes
    source.hypervisor.abort_migration("web")
    assert source.ended("web").why
    until("its end there", lambda: state(target) is None)
    assert state(source) == HERE


def test_what_comes_in_can_be_ended(stage: Stage) -> None:
    source, target = stage.begin(slow=True)
    target.hypervisor.destroy("web")
    assert source.ended("web").why
    assert state(source) == HERE and state(target) is None


def test_who_asks_afterwards_sees_it_by_the_domain(stage: Stage) -> None:
    source, _ = stage.begin()
    assert source.ended("web").why == ""
    another = source.fresh()
    assert another.migration("web") is None
    assert another.domains()["web"].off_reason is OffReason.MIGRATED


def test_without_a_migration_there_is_nothing_to_do(stage: Stage) -> None:
    source, _ = stage.home()
    source.hypervisor.abort_migration("web")
    source.hypervisor.set_downtime("web", 100)
    assert state(source) == HERE and source.fresh().migration("web") is None


def test_a_paused_one_arrives_paused(stage: Stage) -> None:
    source, target = stage.home()
    source.hypervisor.pause("web")
    stage.begin()
    assert source.ended("web").why == ""
    assert state(target) == (Power.PAUSED, Crossing.NONE)
    target.hypervisor.resume("web")
    assert state(target) == HERE


def test_to_nowhere(stage: Stage) -> None:
    source, _ = stage.home()
    try:
        source.hypervisor.migrate("web", Route("10.97.0.99", FIRST_MS))
        assert source.ended("web").why
    except PvcError as error:
        assert "10.97.0.99" in error.message
    assert state(source) == HERE


# --- The real ones, cut in the middle.


@pytest.mark.real
def test_the_targets_libvirtd_is_killed(real: Stage) -> None:
    source, target = real.begin(slow=True)
    assert isinstance(target, RealEnd)
    target.kill_daemon()
    assert source.ended("web").why
    target.daemon.start()
    until("its end there", lambda: state(target) is None)
    assert state(source) == HERE


@pytest.mark.real
def test_the_sources_libvirtd_is_killed(real: Stage) -> None:
    source, target = real.begin(slow=True)
    assert isinstance(source, RealEnd)
    source.kill_daemon()
    source.daemon.start()
    until("its end there", lambda: state(target) is None)
    until("it is let go on", lambda: state(source) == HERE)
    assert source.fresh().migration("web") is None


@pytest.mark.real
def test_what_comes_in_is_killed(real: Stage) -> None:
    source, target = real.begin(slow=True)
    assert isinstance(target, RealEnd)
    target.kill_emulator("web")
    assert source.ended("web").why
    assert state(source) == HERE and state(target) is None


@pytest.mark.real
def test_the_wire_is_cut(real: Stage) -> None:
    """Both sides notice by themselves."""
    source, target = real.begin(slow=True)
    assert isinstance(target, RealEnd)
    target.plug("down")
    try:
        assert source.ended("web").why
        assert state(source) == HERE
    finally:
        target.plug("up")
    target.hypervisor.destroy("web")
    assert state(target) is None


@pytest.mark.real
def test_it_goes_on_without_whoever_began_it(real: Stage) -> None:
    source, target = real.home()
    assert isinstance(source, RealEnd)
    target.hypervisor.undefine("web")
    source.slow(60)
    first = source.fresh()
    first.migrate("web", Route(target.host, FIRST_MS))
    until("copying", lambda: going(source) is not None)
    first.close()  # its thread still waits, for an answer that nobody takes
    until("its arrival", lambda: state(target) == HERE, 120)
    until("its departure", lambda: state(source) == (Power.OFF, Crossing.NONE))
    left = source.domain("web")
    assert left is not None and left.off_reason is OffReason.MIGRATED


@pytest.mark.real
def test_post_copy(real: Stage) -> None:
    source, target = real.home()
    target.hypervisor.undefine("web")
    source.slow()
    source.hypervisor.migrate("web", Route(target.host, FIRST_MS, post_copy=True))
    until("copying", lambda: going(source) is not None)
    source.hypervisor.start_post_copy("web")
    source.hypervisor.start_post_copy("web")
    until("the other way", lambda: bool((p := going(source)) and p.post_copy))
    assert state(source) == (Power.PAUSED, Crossing.OUTGOING)
    assert is_in(target)
    source.fast()
    assert source.ended("web").why == ""
    assert state(target) == HERE


@pytest.mark.real
def test_only_nodes_of_the_cluster_get_in(real: Stage) -> None:
    """Whoever has no certificate of the cluster's authority."""
    source, _ = real.home()
    assert isinstance(source, RealEnd)
    program = (
        "import socket, ssl; c = ssl._create_unverified_context();"
        f"s = c.wrap_socket(socket.create_connection(('{source.host}', {MIGRATION_PORT}), 5));"
        "s.settimeout(5); print(len(s.recv(1)))"
    )
    enter = ["nsenter", f"--net=/run/netns/{source.namespace}", "python3", "-c", program]
    done = subprocess.run(enter, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 or done.stdout.strip() == "0", done


@pytest.mark.real
def test_disks_of_its_own_are_copied_along(real: Stage) -> None:
    source, target = real.home()
    target.hypervisor.undefine("web")
    here = real.folder / "web-root.qcow2"
    there = real.folder / "web-root-there.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", str(there), str(64 << 20)], check=True
    )
    files = {str(here): str(there)}
    assert target.hypervisor.refuses("web", source.host, files) == ()
    source.hypervisor.migrate("web", Route(target.host, FIRST_MS, files=files))
    assert source.ended("web").why == ""
    domain = target.domain("web")
    assert domain is not None and domain.power is Power.RUNNING
    assert parse_domain(domain.xml).disks["root"].path == str(there)
    compare = ["qemu-img", "compare", "-U", str(here), str(there)]
    subprocess.run(compare, check=True, timeout=60)
    # And back, for those that come after.
    source.hypervisor.undefine("web")
    target.hypervisor.migrate("web", Route(source.host, FIRST_MS, files={str(there): str(here)}))
    assert target.ended("web").why == ""


@pytest.mark.real
def test_firmware_variables_go_along(real: Stage) -> None:
    """They are part of the memory that is copied; a file that is not there is made."""
    one, other = real.one, real.other
    wanted = small_vm("efi")
    wanted.spec.firmware = vm_pb2.FIRMWARE_UEFI
    machine = node(real.folder)
    nvram = Path(machine.nvram)
    one.hypervisor.define(domain_xml(wanted, machine))
    one.hypervisor.start("efi")
    kept = nvram.rename(nvram.with_suffix(".of-one"))
    other.hypervisor.undefine("efi")
    one.hypervisor.migrate("efi", Route(other.host, FIRST_MS))
    until("its end", lambda: bool((p := one.hypervisor.migration("efi")) and p.ended), 60)
    passage = one.hypervisor.migration("efi")
    assert passage is not None and passage.why == "", passage
    assert nvram.read_bytes() == kept.read_bytes()
    other.hypervisor.destroy("efi")
    for end in (one, other):
        end.hypervisor.undefine("efi")


@pytest.mark.real
def test_other_settings_and_certificates_are_taken_up_while_guests_run(real: Stage) -> None:
    """As when a machine joins a cluster, or its certificate is renewed."""
    source, _ = real.home()
    assert isinstance(source, RealEnd)
    before, run = source.daemon_pid(), source.domain("web")
    source.daemon.start()
    assert source.daemon_pid() == before
    source.renew()
    source.daemon.start()
    assert source.daemon_pid() != before
    after = source.domain("web")
    assert run is not None and after is not None and after.run == run.run
    source, target = real.begin()
    assert source.ended("web").why == "" and state(target) == HERE


EAR = """
import signal, socket
ears, stop = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)), []
ears.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
ears.settimeout(0.2)
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
print("listening", flush=True)
seen = plain = 0
while True:
    try:
        packet = ears.recv(1 << 17)
    except TimeoutError:
        if stop: break
        continue
    seen += len(packet)
    plain += bytes([7]) * 64 in packet or bytes([9]) * 64 in packet
print(seen, plain)
"""
"""Bytes on the wire, and packets with what the test wrote to disks."""


@contextmanager
def overheard(end: RealEnd) -> Iterator[list[int]]:
    """What an ear at the node's wire hears: filled in at the end."""
    enter = ["nsenter", f"--net=/run/netns/{end.namespace}", "python3", "-c", EAR]
    heard: list[int] = []
    with subprocess.Popen(enter, stdout=subprocess.PIPE, text=True) as ear:
        assert ear.stdout is not None and ear.stdout.readline() == "listening\n"
        try:
            yield heard
        finally:
            ear.terminate()
            heard += map(int, ear.stdout.read().split())


@pytest.mark.real
def test_copies_on_write_and_discs_go_along(real: Stage) -> None:
    """What stood on another image stands alone there; a disc, which the hypervisor does not copy,
    is there already. The bytes go through TLS, and nothing of the source's files is asked for."""
    one, other, folder = real.one, real.other, real.folder
    here = {x: folder / f"own-{x}.qcow2" for x in ("base", "data", "disc")}
    there = {x: folder / f"own-{x}-there.qcow2" for x in ("data", "disc")}
    make = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*make, str(here["base"]), "8M"], check=True, timeout=30)
    write = ["qemu-io", "-c", "write -P 7 1M 2M", str(here["base"])]
    subprocess.run(write, check=True, timeout=30, capture_output=True)
    over = ["-b", str(here["base"]), "-F", "qcow2", str(here["data"])]
    subprocess.run([*make, *over], check=True, timeout=30)
    write = ["qemu-io", "-c", "write -P 9 4M 1M", str(here["data"])]
    subprocess.run(write, check=True, timeout=30, capture_output=True)
    for path in (here["disc"], there["disc"], there["data"]):
        subprocess.run([*make, str(path), "8M"], check=True, timeout=30)
    wanted = small_vm("own", "data", "disc")
    wanted.spec.disks[1].device = vm_pb2.DISK_DEVICE_CDROM
    wanted.spec.disks[1].read_only = True
    one.hypervisor.define(domain_xml(wanted, node(folder, "own-data", "own-disc")))
    one.hypervisor.start("own")
    other.hypervisor.undefine("own")
    files = {str(here[x]): str(there[x]) for x in there}
    assert other.hypervisor.refuses("own", one.host, files) == ()
    assert isinstance(one, RealEnd)
    with overheard(one) as heard:
        one.hypervisor.migrate("own", Route(other.host, FIRST_MS, post_copy=True, files=files))
        until("its end", lambda: bool((p := one.hypervisor.migration("own")) and p.ended), 60)
    seen, plain = heard
    assert seen > 3 << 20 and plain == 0, "its disks go over the wire as they are"
    passage = one.hypervisor.migration("own")
    assert passage is not None and passage.why == "", passage
    domain = other.domain("own")
    assert domain is not None and domain.power is Power.RUNNING
    disks = parse_domain(domain.xml).disks
    assert {x: disks[x].path for x in there} == {x: str(there[x]) for x in there}
    for path in here.values():
        path.rename(path.with_suffix(".gone"))
    info = ["qemu-img", "info", "-U", "--output=json", str(there["data"])]
    told = subprocess.run(info, check=True, timeout=30, capture_output=True, text=True).stdout
    assert "backing" not in told
    read = ["qemu-io", "-r", "-U", "-c", "read -P 7 1M 2M", "-c", "read -P 9 4M 1M"]
    done = subprocess.run([*read, str(there["data"])], check=True, timeout=30, capture_output=True)
    assert b"Pattern verification failed" not in done.stdout
    other.hypervisor.destroy("own")
    for end in (one, other):
        end.hypervisor.undefine("own")


@pytest.mark.real
@pytest.mark.parametrize("how", ["aborted", "the target killed", "the wire cut"])
def test_cut_while_its_disks_are_copied(real: Stage, how: str) -> None:
    """It goes on at the source on its own disk, and can be moved again."""
    source, target = real.home()
    assert isinstance(source, RealEnd) and isinstance(target, RealEnd)
    target.hypervisor.undefine("web")
    here, there = real.folder / "web-root.qcow2", real.folder / "web-root-cut.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", str(there), str(64 << 20)]
    subprocess.run(create, check=True, timeout=30)
    source.slow()
    route = Route(target.host, FIRST_MS, files={str(here): str(there)})
    source.hypervisor.migrate("web", route)
    until("copying", lambda: going(source) is not None and is_in(target))
    match how:
        case "aborted":
            source.hypervisor.abort_migration("web")
        case "the target killed":
            target.kill_emulator("web")
        case _:
            target.plug("down")
            for _ in range(2):  # the second one hangs up
                source.hypervisor.abort_migration("web")
    try:
        assert source.ended("web").why
        assert state(source) == HERE
    finally:
        target.plug("up")
    target.hypervisor.destroy("web")
    until("its end there", lambda: state(target) is None)
    domain = source.domain("web")
    assert domain is not None and parse_domain(domain.xml).disks["root"].path == str(here)
    check = ["qemu-img", "check", "-q", "-U", str(here)]
    subprocess.run(check, check=True, timeout=60)

"""The agent on this machine, in namespaces of its own: guests get addresses, find names, reach the
outside; what dies comes back, what is foreign stays, and nothing is left."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pvc.network.v1.network_pb2 import NetworkStatus
from services.network.agent import NetworkAgent
from services.network.converge import clean_up
from services.network.core.desired import Place
from services.network.drivers import namespace as ns
from tests.network.benches import RUN, RealBench, run, run_in, wait_for
from tests.network.test_agent import House
from tests.network.worlds import mac, network, vm

pytestmark = pytest.mark.real

BRIDGE = "pvcbr-default"
TELL = """#!{python}
import json, os, sys
if sys.argv[1] == "bound":
    with open({file!r}, "w") as out:
        json.dump(dict(os.environ), out)
"""


class RealHouse(House):
    """A store with an agent on a real bench."""

    def __init__(self, bench: RealBench, *made: object) -> None:
        super().__init__(*made)
        self.bench = bench
        self.place = Place(bench.namespace, str(bench.folder / "servers"))

    def converge(self) -> NetworkStatus:
        """One step of a new agent; the state of the network `default` after it."""
        fabric = self.bench.again()
        NetworkAgent(self.store, self.clock, fabric, self.place, "nodes/n1").step()
        return self.network().status


def ask_dhcp(bench: RealBench, guest: str) -> dict[str, str]:
    """What a DHCP client in the guest is told."""
    told, script = bench.folder / f"{guest}.json", bench.folder / f"{guest}.py"
    script.write_text(TELL.format(python=sys.executable, file=str(told)))
    script.chmod(0o755)
    words = ["-i", "eth0", "-f", "-q", "-n", "-t", "30", "-T", "1", "-s", str(script)]
    run_in(guest, "busybox", "udhcpc", *words, "-O", "mtu")
    return dict(json.loads(told.read_text()))


def set_up(guest: str, told: dict[str, str]) -> None:
    """What a guest does with it."""
    run("ip", "-n", guest, "address", "add", f"{told['ip']}/{told['mask']}", "dev", "eth0")
    run("ip", "-n", guest, "route", "add", "default", "via", told["router"])


def resolve(guest: str, name: str) -> str:
    return run_in(guest, "busybox", "nslookup", "-type=a", name, "10.64.0.1")


def test_a_guest_gets_its_address_and_finds_names(real: RealBench) -> None:
    row = network()
    row.spec.mtu = 1400
    house = RealHouse(real, row, vm("web", mac(1)), vm("db", mac(2)))
    status = house.converge()
    assert (status.state, status.why, status.bridge) == (NetworkStatus.STATE_READY, "", BRIDGE)
    assert status.namespace == real.namespace
    guest = real.plug(BRIDGE, "a", mac(1))
    told = ask_dhcp(real, guest)
    addresses = house.addresses()
    assert told["ip"] == addresses["vms/web/net0"]
    assert (told["router"], told["dns"], told["mask"]) == ("10.64.0.1", "10.64.0.1", "24")
    assert (told["mtu"], told["domain"], told["hostname"]) == ("1400", "default.pvc", "web")
    set_up(guest, told)
    assert addresses["vms/db/net0"] in resolve(guest, "db.default.pvc")
    assert addresses["vms/web/net0"] in resolve(guest, "net0.web.default.pvc")
    house.converge()
    (lease,) = [found for found in house.network().status.addresses if found.vm == "vms/web"]
    assert lease.HasField("lease_time")


def test_a_new_vm_is_heard_of_without_a_restart(real: RealBench) -> None:
    house = RealHouse(real, network())
    house.converge()
    pid = real.server_pid(BRIDGE)
    house.put(vm("late", mac(7)))
    house.converge()
    told = ask_dhcp(real, real.plug(BRIDGE, "a", mac(7)))
    assert told["ip"] == house.addresses()["vms/late/net0"]
    assert real.server_pid(BRIDGE) == pid


def test_a_guest_cannot_take_the_name_of_another(real: RealBench) -> None:
    house = RealHouse(real, network(), vm("web", mac(1)))
    house.converge()
    guest = real.plug(BRIDGE, "a", mac(9))
    script = real.folder / "none"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    words = ["-i", "eth0", "-f", "-q", "-n", "-t", "30", "-T", "1", "-s", str(script)]
    run_in(guest, "busybox", "udhcpc", *words, "-F", "web", "-x", "hostname:web")
    run("ip", "-n", guest, "address", "add", "10.64.0.9/24", "dev", "eth0")
    answer = resolve(guest, "web.default.pvc")
    assert house.addresses()["vms/web/net0"] in answer and answer.count("10.64.0.") == 3


def test_the_second_time_nothing_changes(real: RealBench) -> None:
    house = RealHouse(real, network(), network("lab", "10.65.0.0/24"), vm("web", mac(1)))
    house.converge()
    revision, before = house.store.snapshot().revision, real.inside("ip", "-d", "-j", "link")
    table = real.inside("nft", "-j", "list", "ruleset")
    times = sorted((path.name, path.stat().st_mtime_ns) for path in server_files(real))
    house.converge()
    assert house.store.snapshot().revision == revision
    assert links(real.inside("ip", "-d", "-j", "link")) == links(before)
    assert real.inside("nft", "-j", "list", "ruleset") == table
    assert sorted((path.name, path.stat().st_mtime_ns) for path in server_files(real)) == times


def server_files(real: RealBench) -> list[Path]:
    return list((real.folder / "servers").iterdir())


def links(text: str) -> list[tuple[object, ...]]:
    """Without whether a cable is in: the kernel finds that out some time after one is made."""
    return [
        (row["ifname"], row["ifindex"], row["mtu"], set(row["flags"]) - {"NO-CARRIER", "LOWER_UP"})
        for row in json.loads(text)
    ]


def test_guests_reach_the_outside_under_the_node_s_address(real: RealBench) -> None:
    house = RealHouse(real, network(), vm("web", mac(1)))
    house.converge()
    out = real.outside("198.51.100.1/24", "198.51.100.2/24")
    guest = real.plug(BRIDGE, "a", mac(1))
    set_up(guest, ask_dhcp(real, guest))
    listener = ns.within(out, lambda: socket.create_server(("198.51.100.2", 0)))
    with listener, within_guest(guest, listener.getsockname()) as connection:
        listener.settimeout(60)
        accepted, peer = listener.accept()
        assert peer[0] == "198.51.100.1"
        accepted.sendall(b"hello")
        assert connection.recv(9) == b"hello"
        accepted.close()
    assert reaches(out, house.addresses()["vms/web/net0"]) is False


def within_guest(guest: str, address: tuple[str, int]) -> socket.socket:
    return ns.within(guest, lambda: socket.create_connection(address, 30))


def reaches(outside: str, address: str) -> bool:
    """Whether somebody out there can begin a connection to a guest, even knowing the way."""
    run("ip", "-n", outside, "route", "add", "10.64.0.0/24", "via", "198.51.100.1")
    try:
        ns.within(outside, lambda: socket.create_connection((address, 22), 30)).close()
    except OSError as error:
        assert "permitted" in str(error) or "unreachable" in str(error) or "route" in str(error)
        return False
    return True


def test_guests_of_networks_with_nat_do_not_reach_each_other_nor_the_node(real: RealBench) -> None:
    house = RealHouse(
        real,
        network(),
        network("lab", "10.65.0.0/24"),
        vm("web", mac(1)),
        vm("other", f"{mac(2)}@lab"),
        vm("near", mac(3)),
    )
    house.converge()
    guests = {}
    for name, number, bridge in (("a", 1, BRIDGE), ("b", 2, "pvcbr-lab"), ("c", 3, BRIDGE)):
        guests[name] = real.plug(bridge, name, mac(number))
        set_up(guests[name], ask_dhcp(real, guests[name]))
    here = house.addresses()["vms/near/net0"]
    listener = ns.within(guests["c"], lambda: socket.create_server((here, 80)))
    node = ns.within(real.namespace, lambda: socket.create_server(("0.0.0.0", 81)))
    with listener, node:
        within_guest(guests["a"], (here, 80)).close()
        with pytest.raises(OSError):
            within_guest(guests["b"], (here, 80))
        with pytest.raises(OSError):
            within_guest(guests["a"], ("10.64.0.1", 81))
        real.fabric.connect(here, 80, 30).close()
    assert "3 received" in run_in(guests["a"], "ping", "-c3", "-i0.2", "10.64.0.1")


def test_a_web_page_of_a_guest_is_read_from_outside_the_namespace(real: RealBench) -> None:
    house = RealHouse(real, network(), vm("web", mac(1)))
    house.converge()
    guest = real.plug(BRIDGE, "a", mac(1))
    set_up(guest, ask_dhcp(real, guest))
    page = real.folder / "www"
    page.mkdir()
    (page / "index.html").write_text("it is me\n")
    words = ["nsenter", f"--net=/run/netns/{guest}", "busybox", "httpd", "-f", "-p", "80"]
    server = subprocess.Popen([*words, "-h", str(page)])
    try:
        address = house.addresses()["vms/web/net0"]
        wait_for(lambda: page_of(real, address).endswith("it is me\n"), "the page")
    finally:
        server.kill()
        server.wait()


def page_of(real: RealBench, address: str) -> str:
    try:
        with real.fabric.connect(address, 80, 30) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as answer:
                return answer.read().decode()
    except OSError:
        return ""


def test_a_killed_server_is_healed_and_leases_survive(real: RealBench) -> None:
    house = RealHouse(real, network(), vm("web", mac(1)))
    house.converge()
    guest = real.plug(BRIDGE, "a", mac(1))
    first = ask_dhcp(real, guest)
    stranger = ask_dhcp(real, real.plug(BRIDGE, "b", mac(99)))
    real.crash_server(BRIDGE)
    assert house.converge().state == NetworkStatus.STATE_READY
    assert {row.address for row in real.fabric.leases(BRIDGE)} == {first["ip"], stranger["ip"]}
    assert ask_dhcp(real, guest)["ip"] == first["ip"]
    assert len(real.processes()) == 1


def test_a_question_over_tcp_makes_no_second_server(real: RealBench) -> None:
    """For each of them dnsmasq makes a child with the same command line."""
    house = RealHouse(real, network(), vm("web", mac(1)))
    house.converge()
    pid = real.server_pid(BRIDGE)
    with real.fabric.connect("10.64.0.1", 53, 30):
        wait_for(lambda: len(real.processes()) == 2, "the child")
        house.converge()
    assert real.server_pid(BRIDGE) == pid


def test_removing_everything_leaves_nothing(real: RealBench) -> None:
    house = RealHouse(real)
    for row in (network(), network("lab", "10.65.0.0/24", nat=False)):
        house.create(row)
    NetworkAgent(house.store, house.clock, real.fabric, house.place, "nodes/n1").step()
    assert len(real.processes()) == 2
    for name in ("networks/default", "networks/lab"):
        house.delete(name)
    NetworkAgent(house.store, house.clock, real.fabric, house.place, "nodes/n1").step()
    assert real.processes() == []
    assert [link.name for link in real.fabric.links()] == ["lo"]
    assert json.loads(real.inside("nft", "-j", "list", "tables"))["nftables"][1:] == []
    assert clean_up(real.fabric, True, "n1") == ()
    assert not real.folder.exists() and not (ns.FOLDER / real.namespace).exists()


def test_what_is_foreign_is_not_touched(real: RealBench) -> None:
    house = RealHouse(real, network(), vm("web", mac(1)))
    run("ip", "netns", "add", real.namespace)
    assert "loopback" in house.converge().why
    real.ip("link", "set", "lo", "up")
    real.ip("link", "add", "name", "br-foreign", "type", "bridge")
    real.ip("address", "add", "192.0.2.1/24", "dev", "br-foreign")
    real.ip("link", "set", "br-foreign", "up", "alias", "somebody else's")
    real.inside(
        "nft",
        "add table inet mine; add chain inet mine input { type filter hook input priority 0; }",
    )
    words = ["--no-daemon", "--port=0", "--conf-file=/dev/null", "--interface=br-foreign"]
    foreign = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{real.namespace}", "/usr/sbin/dnsmasq", *words,
         "--bind-interfaces", "--dhcp-range=192.0.2.10,192.0.2.20", "--dhcp-leasefile=/dev/null"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        before = real.state()
        assert house.converge().state == NetworkStatus.STATE_READY
        assert real.state() == before
        assert clean_up(real.fabric, True, "n1") == ()
        assert real.state() == before and foreign.poll() is None
        assert real.processes() == [] and ns.exists(real.namespace)
    finally:
        foreign.kill()
        foreign.wait()


def test_killed_at_random_moments_it_converges(real: RealBench, tmp_path: Path) -> None:
    """A process of its own converges and is killed; then one more step must do."""
    seed = int(os.environ.get("PVC_SEED", "1"))
    chance, rounds = random.Random(seed), int(os.environ.get("PVC_ROUNDS", "8"))
    house = RealHouse(real, network(), network("lab", "10.65.0.0/24"), vm("web", mac(1)))
    script = Path(__file__).with_name("converging.py")
    for _ in range(rounds):
        words = [sys.executable, str(script), real.namespace, str(real.folder)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"begin\n"
        threading.Event().wait(chance.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if chance.random() < 0.3:
            assert clean_up(real.again(), True, "n1") == (), f"seed {seed}"
            assert real.processes() == [], f"seed {seed}"
    ready = NetworkStatus.STATE_READY
    wait_for(lambda: house.converge().state == ready, f"readiness with seed {seed}")
    assert len(real.processes()) == 2, f"seed {seed}"
    assert clean_up(real.again(), True, "n1") == (), f"seed {seed}"
    assert real.processes() == [] and not real.folder.exists(), f"seed {seed}"


def test_this_run_has_a_name_of_its_own() -> None:
    assert str(os.getpid()) in RUN

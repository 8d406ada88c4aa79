"""What every fabric promises, on the fake and on this machine alike."""

from __future__ import annotations

import socket
import subprocess
import threading
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from services.network.core.addresses import Range
from services.network.core.firewall import Zone, fingerprint, ruleset
from services.network.core.naming import own_mac
from services.network.core.servers import Host, ServerPlan, Service, server_plan
from services.network.drivers.fabric import Fabric, FabricError, ForeignError, Overlay, Server
from services.network.drivers.namespace import within
from tests.network.benches import Bench, RealBench, wait_for

MARK = "pvc:namespace"
BRIDGE, BRIDGE_MARK = "pvcbr-a", "pvc:network:a"
MAC = own_mac(BRIDGE)
SUBNET = IPv4Network("10.77.0.0/24")
FORWARD = "net/ipv4/ip_forward"


def plan(folder: Path, *hosts: Host, mtu: int = 1500) -> ServerPlan:
    leases = Range(IPv4Address("10.77.0.10"), IPv4Address("10.77.0.99"))
    service = Service(BRIDGE, SUBNET, IPv4Address("10.77.0.1"), leases, "a.pvc", mtu, False)
    return server_plan(service, hosts, str(folder / "servers"))


def host(vm: str, last: int) -> Host:
    address = IPv4Address("10.77.0.0") + last
    return Host(vm, "net0", f"52:54:00:00:00:{last:02x}", address, first=True)


def make_bridge(fabric: Fabric, mtu: int = 1500, address: str = "10.77.0.1/24") -> None:
    fabric.make_namespace(MARK)
    fabric.put_bridge(BRIDGE, BRIDGE_MARK, MAC, mtu, address)


def start(fabric: Fabric, wanted: ServerPlan) -> None:
    fabric.run_server(wanted.bridge, wanted.tag, wanted.config, wanted.tables, dict(wanted.files))


def server(fabric: Fabric) -> Server:
    (found,) = fabric.servers()
    return found


def test_a_missing_namespace_is_empty(bench: Bench) -> None:
    fabric = bench.fabric
    assert (fabric.links(), fabric.ruleset(), fabric.servers()) == ((), (), ())
    assert fabric.sysctl(FORWARD) is None
    fabric.remove_namespace(MARK)
    with pytest.raises(FabricError):
        fabric.put_bridge(BRIDGE, BRIDGE_MARK, MAC, 1500, "")


def test_a_namespace_is_made_once_and_marked(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    bench.fabric.make_namespace("another")
    (loopback,) = bench.fabric.links()
    assert (loopback.name, loopback.alias, loopback.up) == ("lo", MARK, True)
    with pytest.raises(ForeignError):
        bench.fabric.remove_namespace("another")
    bench.fabric.remove_namespace(MARK)
    assert bench.fabric.links() == ()


def test_a_bridge_is_made_and_changed(bench: Bench) -> None:
    make_bridge(bench.fabric)
    make_bridge(bench.fabric)
    make_bridge(bench.fabric, mtu=1400, address="10.77.0.2/24")
    link = {found.name: found for found in bench.again().links()}[BRIDGE]
    assert (link.kind, link.alias, link.mac, link.mtu, link.up, link.addresses) == (
        "bridge",
        BRIDGE_MARK,
        MAC,
        1400,
        True,
        {"10.77.0.2/24"},
    )
    bench.fabric.remove_bridge(BRIDGE, BRIDGE_MARK, MAC)
    bench.fabric.remove_bridge(BRIDGE, BRIDGE_MARK, MAC)
    assert [found.name for found in bench.fabric.links()] == ["lo"]


def test_a_foreign_bridge_is_refused(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    bench.add_bridge(BRIDGE)
    before = bench.fabric.links()
    with pytest.raises(ForeignError, match=BRIDGE):
        bench.fabric.put_bridge(BRIDGE, BRIDGE_MARK, MAC, 1400, "10.77.0.1/24")
    with pytest.raises(ForeignError, match=BRIDGE):
        bench.fabric.remove_bridge(BRIDGE, BRIDGE_MARK, MAC)
    assert bench.fabric.links() == before


def test_a_bridge_that_we_died_before_marking_is_ours(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    bench.add_bridge(BRIDGE, MAC)
    bench.fabric.put_bridge(BRIDGE, BRIDGE_MARK, MAC, 1500, "10.77.0.1/24")
    assert {link.alias for link in bench.fabric.links()} == {MARK, BRIDGE_MARK}


def test_a_ruleset_is_replaced_whole(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    first = ruleset([Zone("pvcbr-a", SUBNET, nat=True, uplink="")])
    second = ruleset([Zone("pvcbr-b", SUBNET, nat=False, uplink="")])
    for rules in (first, first, second):
        bench.fabric.load_ruleset(rules)
        assert fingerprint(bench.again().ruleset()) == fingerprint(rules)
    bench.fabric.load_ruleset(())
    bench.fabric.load_ruleset(())
    assert bench.fabric.ruleset() == ()


def test_a_sysctl_is_put_back_to_what_it_was_first(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    seen = bench.fabric.sysctl(FORWARD)
    assert seen is not None and (seen.value, seen.before) == ("0", None)
    for value in ("1", "1", "2"):
        bench.again().set_sysctl(FORWARD, value)
    seen = bench.again().sysctl(FORWARD)
    assert seen is not None and seen.before == "0"
    bench.again().set_sysctl(FORWARD, None)
    bench.again().set_sysctl(FORWARD, None)
    seen = bench.fabric.sysctl(FORWARD)
    assert seen is not None and (seen.value, seen.before) == ("0", None)
    with pytest.raises(FabricError):
        bench.fabric.set_sysctl("net/ipv4/no-such-setting", "1")


def test_a_server_is_started_and_adopted(bench: Bench) -> None:
    make_bridge(bench.fabric)
    wanted = plan(bench.folder, host("web", 20))
    start(bench.fabric, wanted)
    found = server(bench.again())
    assert found.pid > 0 and found.fresh and found.answers
    assert (found.bridge, found.config, found.tables) == (BRIDGE, wanted.tag, wanted.tables)
    assert bench.again().leases(BRIDGE) == ()


def test_a_server_is_fed_without_a_restart(bench: Bench) -> None:
    make_bridge(bench.fabric)
    start(bench.fabric, plan(bench.folder, host("web", 20)))
    before = server(bench.fabric)
    more = plan(bench.folder, host("web", 20), host("db", 21))
    bench.again().feed_server(BRIDGE, more.tables, dict(more.files))
    after = server(bench.fabric)
    assert (after.pid, after.tables) == (before.pid, more.tables)
    assert before.tables != after.tables


def test_a_server_is_replaced(bench: Bench) -> None:
    make_bridge(bench.fabric)
    start(bench.fabric, plan(bench.folder))
    before = server(bench.fabric)
    other = plan(bench.folder, mtu=1400)
    start(bench.again(), other)
    after = server(bench.fabric)
    assert after.config == other.tag != before.config and after.pid != before.pid


def test_a_crashed_server_is_seen_until_it_is_stopped(bench: Bench) -> None:
    make_bridge(bench.fabric)
    start(bench.fabric, plan(bench.folder))
    bench.crash_server(BRIDGE)
    found = server(bench.again())
    assert (found.pid, found.answers, found.fresh) == (0, False, False)
    with pytest.raises(FabricError):
        bench.fabric.feed_server(BRIDGE, "tables", {})
    bench.fabric.stop_server(BRIDGE)
    bench.fabric.stop_server(BRIDGE)
    assert bench.fabric.servers() == ()


def test_a_hanging_server_does_not_answer_and_can_be_replaced(bench: Bench) -> None:
    make_bridge(bench.fabric)
    start(bench.fabric, plan(bench.folder))
    before = server(bench.fabric)
    bench.hang_server(BRIDGE)
    assert not server(bench.fabric).answers
    start(bench.fabric, plan(bench.folder))
    after = server(bench.fabric)
    assert after.answers and after.pid != before.pid


def test_a_server_of_a_bridge_made_anew_is_stale(bench: Bench) -> None:
    make_bridge(bench.fabric)
    start(bench.fabric, plan(bench.folder))
    bench.remove_link(BRIDGE)
    make_bridge(bench.fabric)
    assert not server(bench.fabric).fresh
    start(bench.fabric, plan(bench.folder))
    assert server(bench.fabric).fresh


def test_a_server_without_a_bridge_does_not_start(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    with pytest.raises(FabricError, match=BRIDGE):
        start(bench.fabric, plan(bench.folder))
    assert bench.fabric.servers() == ()


def test_nobody_listens(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    with pytest.raises(OSError):
        bench.fabric.connect("127.0.0.1", 9, 1.0)


@pytest.mark.real
def test_a_connection_begins_inside_the_namespace(real: RealBench) -> None:
    make_bridge(real.fabric)
    with LinuxListener(real) as listener:
        here, threads = own_namespace(), threading.active_count()
        with real.fabric.connect("10.77.0.1", listener.port, 60.0) as connection:
            connection.sendall(b"ping")
            assert connection.recv(10) == b"ping"
            assert connection.getpeername() == ("10.77.0.1", listener.port)
        assert own_namespace() == here
        assert threading.active_count() <= threads


def own_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


class LinuxListener:
    """Says everything back to one caller, inside a bench's namespace."""

    def __init__(self, real: RealBench) -> None:
        self.socket = within(real.namespace, lambda: socket.create_server(("0.0.0.0", 0)))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def serve(self) -> None:
        connection, _ = self.socket.accept()
        with connection:
            connection.sendall(connection.recv(10))

    def __enter__(self) -> LinuxListener:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self.thread.join(60)


@pytest.mark.real
def test_a_server_does_not_run_as_root(real: RealBench) -> None:
    make_bridge(real.fabric)
    start(real.fabric, plan(real.folder))
    status = Path(f"/proc/{server(real.fabric).pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("Uid:")]
    assert "0" not in line.split()[1:]


@pytest.mark.real
def test_a_name_is_fed_to_the_running_server(real: RealBench) -> None:
    make_bridge(real.fabric)
    start(real.fabric, plan(real.folder, host("web", 20)))
    more = plan(real.folder, host("web", 22), host("db", 21))
    real.fabric.feed_server(BRIDGE, more.tables, dict(more.files))
    for name, address in (("web.a.pvc", "10.77.0.22"), ("net0.db.a.pvc", "10.77.0.21")):
        # A question that is already being answered when the server is told comes before that.
        wait_for(lambda n=name, a=address: a in resolved(real, n), f"{name} at {address}")


def resolved(real: RealBench, name: str) -> str:
    """What the server says, also when it knows nothing."""
    enter = ["nsenter", f"--net=/run/netns/{real.namespace}", "busybox", "nslookup", "-type=a"]
    words = [*enter, name, "10.77.0.1"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout


@pytest.mark.real
def test_a_namespace_half_made_by_ip_is_made(real: RealBench) -> None:
    left = Path("/run/netns") / real.namespace
    left.parent.mkdir(exist_ok=True)
    left.touch()
    assert real.fabric.links() == ()
    real.fabric.make_namespace(MARK)
    assert [link.alias for link in real.fabric.links()] == [MARK]


@pytest.mark.real
@pytest.mark.parametrize("key", ["kernel/panic", "net/../kernel/panic", "/etc/passwd"])
def test_only_settings_of_the_network_are_reached(real: RealBench, key: str) -> None:
    real.fabric.make_namespace(MARK)
    with pytest.raises(FabricError, match="no setting of the network"):
        real.fabric.sysctl(key)


VNI, DEVICE, LOCAL = 4711, "pvcvx-4711", "127.0.0.1"


def put_overlay(bench: Bench, peers: set[str], local: str = LOCAL) -> None:
    mark, own = "pvc:overlay:a", own_mac(DEVICE)
    bench.fabric.put_overlay(DEVICE, mark, own, VNI, local, 1500, BRIDGE, peers)


def overlay_of(bench: Bench) -> Overlay:
    (link,) = [link for link in bench.fabric.links() if link.name == DEVICE]
    assert (link.kind, link.up, link.mtu, link.alias) == ("vxlan", True, 1500, "pvc:overlay:a")
    assert link.overlay is not None
    return link.overlay


def test_a_bridge_is_carried_to_others_until_it_is_not(bench: Bench) -> None:
    make_bridge(bench.fabric)
    put_overlay(bench, {"127.0.1.2", "127.0.1.3"})
    put_overlay(bench, {"127.0.1.3", "127.0.1.4"})
    assert overlay_of(bench) == Overlay(VNI, LOCAL, 4789, frozenset({"127.0.1.3", "127.0.1.4"}))
    (bridge,) = [link for link in bench.fabric.links() if link.name == BRIDGE]
    assert bridge.ports == {DEVICE}
    put_overlay(bench, {"127.0.1.3"}, "127.0.0.9")
    assert overlay_of(bench).local == "127.0.0.9"
    for _ in range(2):
        bench.fabric.remove_overlay(DEVICE, "pvc:overlay:a", own_mac(DEVICE))
    assert DEVICE not in {link.name for link in bench.fabric.links()}


def test_a_foreign_device_of_that_name_is_left_alone(bench: Bench) -> None:
    make_bridge(bench.fabric)
    bench.add_bridge(DEVICE)
    with pytest.raises(ForeignError):
        put_overlay(bench, {"127.0.1.2"})
    with pytest.raises(ForeignError):
        bench.fabric.remove_overlay(DEVICE, "pvc:overlay:a", own_mac(DEVICE))


def test_a_device_without_its_bridge_fails(bench: Bench) -> None:
    bench.fabric.make_namespace(MARK)
    with pytest.raises(FabricError):
        put_overlay(bench, {"127.0.1.2"})

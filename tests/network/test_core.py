"""Names, addresses, specs, texts and rules: one rule each."""

from __future__ import annotations

import json
from collections.abc import Set
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.network.v1.network_pb2 import NetworkSpec
from services.network.core import firewall, naming, spec
from services.network.core.addresses import Range, allocate
from services.network.core.firewall import Zone, fingerprint, ruleset
from services.network.core.servers import Host, Service, config_text, hosts_text, names_text
from services.network.drivers.dnsmasq import Servers
from tests.network.worlds import check_golden, ip, mac, network

SUBNET = IPv4Network("10.64.0.0/24")
SMALL = Range(ip("10.64.0.10"), ip("10.64.0.17"))
SERVICE = Service(
    bridge="pvcbr-default",
    subnet=SUBNET,
    gateway=ip("10.64.0.1"),
    leases=Range(ip("10.64.0.10"), ip("10.64.0.254")),
    domain="default.pvc",
    mtu=1500,
    own_resolvers=False,
)
HOSTILE = ["", "a\nb", "a\0b", "../a", "a/b", "A", "-a", "a-", "ä", "a b", "a,b", "a;b", "x" * 64,
           "$(id)", "a.b", "<a>", "%s", "a\u202eb", "a'b", "\u0430"]  # fmt: skip

network_ids = st.from_regex(naming.NETWORK_ID, fullmatch=True)
macs = st.integers(0, 40).map(mac)
addresses = st.integers(0, 20).map(lambda number: ip("10.64.0.5") + number)


def test_a_bridge_has_the_name_of_a_short_network() -> None:
    assert naming.bridge_name("default") == "pvcbr-default"
    assert naming.bridge_name("development") == "pvcbr-q5nzhaegn"


@given(network_ids, network_ids)
def test_bridge_names_fit_the_kernel_and_differ(one: str, other: str) -> None:
    assert len(naming.bridge_name(one)) <= 15
    assert (naming.bridge_name(one) == naming.bridge_name(other)) == (one == other)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_names_no_bridge(text: str) -> None:
    with pytest.raises(ValueError):
        naming.bridge_name(text)
    with pytest.raises(ValueError):
        naming.bridge_mark(text)


@given(network_ids)
def test_a_bridge_has_a_local_unicast_mac(network_id: str) -> None:
    first = int(naming.own_mac(naming.bridge_name(network_id)).split(":")[0], 16)
    assert first & 0b11 == 0b10


def test_a_bridge_is_ours_by_its_mark_or_by_its_mac_before_it_has_one() -> None:
    mine = naming.own_mac("pvcbr-a")
    assert naming.is_our_bridge("pvcbr-a", "bridge", "pvc:network:a", "02:00:00:00:00:01")
    assert naming.is_our_bridge("pvcbr-a", "bridge", "", mine)
    assert not naming.is_our_bridge("pvcbr-a", "bridge", "", "02:00:00:00:00:01")
    assert not naming.is_our_bridge("pvcbr-a", "bridge", "mine", mine)
    assert not naming.is_our_bridge("pvcbr-a", "veth", "pvc:network:a", mine)
    assert not naming.is_our_bridge("br0", "bridge", "pvc:network:a", mine)


@given(st.sets(macs), st.dictionaries(macs, addresses), st.sets(addresses))
def test_addresses_are_kept_unique_and_free(
    wanted: Set[str], held: dict[str, IPv4Address], taken: Set[IPv4Address]
) -> None:
    held = {one: address for one, address in held.items() if address in SMALL}
    given_ = allocate(wanted, held, SMALL, taken)
    assert len(set(given_.values())) == len(given_)
    for one, address in given_.items():
        assert one in wanted and address in SMALL
        assert held.get(one) == address or address not in taken
    full = set(given_.values()) | set(taken)
    free = [number for number in range(len(SMALL)) if SMALL.first + number not in full]
    assert not free or set(given_) == set(wanted)


@given(st.sets(macs, min_size=1), st.sets(macs), st.sets(macs))
def test_nobody_loses_an_address_when_others_come_and_go(
    before: Set[str], come: Set[str], go: Set[str]
) -> None:
    first = allocate(before, {}, SMALL)
    after = allocate((before | come) - go, first, SMALL)
    for one in first.keys() - go:
        assert after[one] == first[one]
    assert allocate((before | come) - go, after, SMALL) == after


@given(st.sets(macs, max_size=8))
def test_a_nic_that_comes_back_finds_its_address(wanted: Set[str]) -> None:
    first = allocate(wanted, {}, SMALL)
    assert allocate(wanted, {}, SMALL) == first


def test_a_full_range_gives_to_as_many_as_it_can() -> None:
    wanted = [mac(number) for number in range(12)]
    assert len(allocate(wanted, {}, SMALL, {ip("10.64.0.12")})) == len(SMALL) - 1


def test_the_defaults_of_a_network() -> None:
    full = spec.filled("dev", NetworkSpec(ipv4={"cidr": "10.64.0.0/24"}))
    assert (full.domain, full.mtu) == ("dev.pvc", 1500)
    ipv4 = (full.ipv4.gateway, full.ipv4.dhcp_first, full.ipv4.dhcp_last)
    assert ipv4 == ("10.64.0.1", "10.64.0.10", "10.64.0.254")


@given(st.integers(8, 30), st.integers(0, 2**22))
def test_the_defaults_of_any_network_are_without_mistakes(length: int, number: int) -> None:
    base = IPv4Network((int(ip("10.0.0.0")) + (number << 2), length), strict=False)
    if base.prefixlen < 8 or not base.is_private:
        return
    full = spec.filled("dev", NetworkSpec(nat=True, ipv4={"cidr": str(base)}))
    assert spec.mistakes(full) == []
    assert ip(full.ipv4.gateway) not in spec.range_of(full)


def test_a_bare_network_has_neither_addresses_nor_nat() -> None:
    assert spec.mistakes(spec.filled("dev", NetworkSpec())) == []
    (wrong,) = spec.mistakes(spec.filled("dev", NetworkSpec(nat=True)))
    assert wrong.field == "nat"


@pytest.mark.parametrize(
    ("field", "ipv4"),
    [
        ("ipv4.cidr", {"cidr": "10.64.0.1/24"}),
        ("ipv4.cidr", {"cidr": "10.64.0.0"}),
        ("ipv4.cidr", {"cidr": "10.64.0.0/31"}),
        ("ipv4.cidr", {"cidr": "10.0.0.0/7"}),
        ("ipv4.cidr", {"cidr": "127.0.0.0/24"}),
        ("ipv4.cidr", {"cidr": "169.254.1.0/24"}),
        ("ipv4.cidr", {"cidr": "224.0.0.0/24"}),
        ("ipv4.cidr", {"cidr": "240.0.0.0/24"}),
        ("ipv4.cidr", {"cidr": "0.0.0.0/8"}),
        ("ipv4.cidr", {"cidr": "fd00::/64"}),
        ("ipv4.cidr", {"cidr": "10.64.0.0/24\ninterface=eth0"}),
        ("ipv4.gateway", {"cidr": "10.64.0.0/24", "gateway": "10.65.0.1"}),
        ("ipv4.gateway", {"cidr": "10.64.0.0/24", "gateway": "10.64.0.255"}),
        ("ipv4.gateway", {"cidr": "10.64.0.0/24", "gateway": "10.64.0.0"}),
        ("ipv4.dhcp_first", {"cidr": "10.64.0.0/24", "dhcp_first": "x"}),
        ("ipv4.dhcp_last", {"cidr": "10.64.0.0/24", "dhcp_last": "10.64.0.9"}),
        ("ipv4.dhcp_last", {"cidr": "10.64.0.0/24", "dhcp_last": "10.64.1.9"}),
    ],
)
def test_a_mistake_in_ipv4_is_named(field: str, ipv4: dict[str, str]) -> None:
    (wrong, *_) = spec.mistakes(spec.filled("dev", NetworkSpec(ipv4=ipv4)))
    assert wrong.field == field


@pytest.mark.parametrize("domain", ["a\nb", "a..b", ".a", "A.b", "a b", "-a.b", "/", "a/b,c", "ä"])
def test_a_hostile_domain_is_a_mistake(domain: str) -> None:
    (wrong,) = spec.mistakes(spec.filled("dev", NetworkSpec(domain=domain)))
    assert wrong.field == "domain"


def test_what_followed_from_the_former_addresses_follows_from_the_new() -> None:
    before = network().spec
    after = NetworkSpec()
    after.CopyFrom(before)
    after.ipv4.cidr, after.ipv4.dhcp_first = "10.65.0.0/24", "10.65.0.40"
    full = spec.revised("default", before, after)
    ipv4 = (full.ipv4.gateway, full.ipv4.dhcp_first, full.ipv4.dhcp_last)
    assert ipv4 == ("10.65.0.1", "10.65.0.40", "10.65.0.254")


def test_networks_overlap() -> None:
    others = [network("a", "10.64.0.0/16"), network("b", "10.65.0.0/24"), network("c", "")]
    found = spec.overlaps(IPv4Network("10.64.7.0/24"), others)
    assert [row.name for row in found] == ["networks/a"]


def host(vm: str, nic: str, last: int, first: bool = True) -> Host:
    return Host(vm, nic, mac(last), ip("10.64.0.0") + last, first)


HOSTS = (host("web", "net0", 20), host("web", "net1", 21, first=False), host("db", "net0", 22))


def test_the_texts_of_a_server_are_as_kept() -> None:
    folder = "/run/pvc/network/servers"
    check_golden("default.conf", config_text(SERVICE, folder))
    check_golden("default.hosts", hosts_text(HOSTS))
    check_golden("default.names", names_text(SERVICE, HOSTS))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_reaches_no_text(text: str) -> None:
    wrong = Host(text, "net0", mac(1), ip("10.64.0.9"), True)
    with pytest.raises(ValueError):
        hosts_text([wrong])
    with pytest.raises(ValueError):
        names_text(SERVICE, [wrong])
    with pytest.raises(ValueError):
        names_text(SERVICE, [Host("web", text, mac(1), ip("10.64.0.9"), True)])
    with pytest.raises(ValueError):
        hosts_text([Host("web", "net0", text, ip("10.64.0.9"), True)])


ZONES = (
    Zone("pvcbr-default", SUBNET, nat=True, uplink=""),
    Zone("pvcbr-lab", IPv4Network("10.65.0.0/24"), nat=False, uplink=""),
    Zone("pvcbr-dmz", IPv4Network("10.66.0.0/24"), nat=True, uplink="eth0"),
)


def test_the_rules_of_networks_are_as_kept() -> None:
    check_golden("default.rules", as_lines(ruleset(ZONES[:1])))
    check_golden(
        "three.order",
        "".join(f"{line.partition(' #')[0]}\n" for line in fingerprint(ruleset(ZONES))),
    )
    assert ruleset([]) == ()


def as_lines(rules: tuple[firewall.Json, ...]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rules)


def test_the_order_of_networks_makes_no_difference() -> None:
    assert ruleset(ZONES) == ruleset(reversed(ZONES))


def test_every_comment_fits_and_is_unique() -> None:
    comments = [line for line in fingerprint(ruleset(ZONES)) if line.startswith("rule")]
    assert len(set(comments)) == len(comments)
    assert max(len(line) for line in comments) < 128


def test_a_fingerprint_shows_what_was_changed_or_added_or_moved() -> None:
    rules = ruleset(ZONES)
    *most, before_last, last = rules
    foreign = {"rule": {"chain": "input", "expr": [{"accept": None}]}}
    dropping = {"chain": {**rules[0]["chain"], "policy": "drop"}}
    for other in (
        (*most, before_last),
        (*most, last, before_last),
        (*rules, foreign),
        (dropping, *rules[1:]),
    ):
        assert fingerprint(other) != fingerprint(rules)


def test_a_refusal_of_one_network_comes_before_the_permission_of_another() -> None:
    forward = [line for line in fingerprint(ruleset(ZONES)) if line.startswith("rule forward")]
    refusal = next(i for i, line in enumerate(forward) if "pvcbr-dmz: nobody begins" in line)
    permission = next(i for i, line in enumerate(forward) if "pvcbr-default: guests go" in line)
    assert refusal < permission


def test_a_lease_file_that_is_just_being_written_is_read_as_far_as_it_makes_sense(
    tmp_path: Path,
) -> None:
    whole = "1700000000 52:54:00:00:00:01 10.64.0.10 web 01:52:54:00:00:00:01\n"
    mixed = "1700000000 52:54:00:00:00:02 10.64.0. web 01:52\n² a 10.64.0.12 c d\n"
    (tmp_path / "pvcbr-a.leases").write_text(mixed + whole + whole[:40])
    assert [row.address for row in Servers(tmp_path).leases("pvcbr-a")] == ["10.64.0.10"]

"""Which address a NIC gets. Pure: the same NICs and the same earlier answers give the same
addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Address


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses from first to last, both included."""

    first: IPv4Address
    last: IPv4Address

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __len__(self) -> int:
        return max(0, int(self.last) - int(self.first) + 1)


def allocate(
    macs: Iterable[str],
    held: Mapping[str, IPv4Address],
    within: Range,
    taken: Set[IPv4Address] = frozenset(),
) -> dict[str, IPv4Address]:
    """An address for every MAC that can have one: what it held before, or else a free one.

    `held` may name MACs that are gone; their addresses are free again. A held address
    may be outside of the range: the range may have been another one. `taken` are addresses that
    nobody may get anew: the gateway's, and those that strangers have leased. A MAC is missing in
    the answer when the range is full. Of two MACs that hold the same address the smaller keeps
    it."""
    wanted = sorted(set(macs))
    given: dict[str, IPv4Address] = {}
    used: set[IPv4Address] = set()
    for mac in wanted:
        before = held.get(mac)
        if before is not None and before not in used:
            given[mac] = before
            used.add(before)
    for mac in wanted:
        if mac not in given and (free := first_free(mac, within, used | taken)) is not None:
            given[mac] = free
            used.add(free)
    return given


def first_free(mac: str, within: Range, used: Set[IPv4Address]) -> IPv4Address | None:
    """The free address next to a place that the MAC itself chooses, so that a NIC that was removed
    and comes back finds its former address unless somebody took it. None when the range is
    full."""
    size = len(within)
    if size == 0:
        return None
    start = int.from_bytes(hashlib.sha256(mac.encode()).digest()[:8]) % size
    for step in range(min(size, len(used) + 1)):
        address = within.first + (start + step) % size
        if address not in used:
            return address
    return None

"""What PVC calls its things on a machine, and how it knows them again. Pure."""

from __future__ import annotations

import base64
import hashlib
import re

NAMESPACE_MARK = "pvc:namespace"
PREFIX = "pvcbr-"
OVERLAY_PREFIX = "pvcvx-"
SHORT = 8
NETWORK_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def bridge_name(network_id: str) -> str:
    """The bridge of a network, 15 characters at most: "pvcbr-default".

    Nine characters behind the prefix are always a hash, fewer are always the name itself."""
    check_network_id(network_id)
    if len(network_id) <= SHORT:
        return PREFIX + network_id
    digest = hashlib.sha256(network_id.encode()).digest()
    return PREFIX + base64.b32encode(digest).decode().lower()[: SHORT + 1]


def bridge_mark(network_id: str) -> str:
    """What the bridge's alias says, so that it is known for ours."""
    check_network_id(network_id)
    return f"pvc:network:{network_id}"


def overlay_name(vni: int) -> str:
    """The device that carries a network between the nodes: "pvcvx-4711"."""
    return f"{OVERLAY_PREFIX}{vni}"


def overlay_mark(network_id: str) -> str:
    """What that device's alias says."""
    check_network_id(network_id)
    return f"pvc:overlay:{network_id}"


def own_mac(name: str) -> str:
    """A device's own hardware address: locally administered, and the same whenever and wherever it
    is made."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def is_our_bridge(name: str, kind: str, mark: str, mac: str) -> bool:
    """Whether an interface is a bridge that we made, marked or killed right before it was
    marked."""
    marked = mark.startswith("pvc:network:") or (mark == "" and mac == own_mac(name))
    return kind == "bridge" and name.startswith(PREFIX) and marked


def is_our_overlay(name: str, kind: str, mark: str, mac: str) -> bool:
    """The same of a device that carries a network."""
    marked = mark.startswith("pvc:overlay:") or (mark == "" and mac == own_mac(name))
    return kind == "vxlan" and name.startswith(OVERLAY_PREFIX) and marked


def check_network_id(network_id: str) -> None:
    """Raises ValueError for what may not become part of a file name, an alias or a
    configuration."""
    if not NETWORK_ID.fullmatch(network_id):
        raise ValueError(f"{network_id!r} cannot name a network")


def digest_of(*texts: str) -> str:
    """A short tag of some texts, the same for the same texts alone."""
    joined = "".join(f"{len(text)}:{text}" for text in texts)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]

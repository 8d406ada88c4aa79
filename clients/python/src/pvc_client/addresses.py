"""Where a cluster answers: addresses as people write them, and how a connection to one is made.

Opens nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LOCAL_SOCKET = "unix:/run/pvc/pvc.sock"
PEM = "-----BEGIN "
"""How a certificate begins that is given as text and not by its file."""
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
KEEPALIVE_MS = 10_000
"""How often a connection that calls are on is asked whether the other end is there. The gateway
allows twice as much."""
PING_TIMEOUT_MS = 5_000


def split(address: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses in "n1:7371,n2:7371", or in a list. Raises ValueError when there are none."""
    whole = isinstance(address, str) and address.startswith(("ipv4:", "ipv6:"))
    if isinstance(address, str):
        address = [address] if whole else address.split(",")
    found = tuple(dict.fromkeys(one.strip() for one in address if one.strip()))
    if not found:
        raise ValueError("a cluster needs an address: HOST:PORT, or unix:PATH on a node of it")
    return found


def is_loopback(address: str) -> bool:
    """Whether the address cannot be reached from another machine."""
    from ipaddress import ip_address

    host = address.removeprefix("ipv4:").rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def root_certificates(ca: str | Path | None) -> bytes | None:
    """The PEM of a CA: itself, or from the file that was named; None for the system's. Raises
    OSError."""
    if isinstance(ca, str) and ca.startswith(PEM):
        return ca.encode()
    return Path(ca).read_bytes() if ca is not None else None


def channel_options(*, alone: bool) -> tuple[tuple[str, int], ...]:
    """How channels behave. alone: there is no other address to go to, so this one gets more
    time."""
    return (
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        # Of the two, grpc goes by the second, which is a minute unless it is said.
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS * (4 if alone else 1)),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS * (4 if alone else 1)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 20_000 if alone else 2_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.enable_http_proxy", 0),
    )

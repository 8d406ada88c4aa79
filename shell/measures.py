"""Sizes and times the way people write and read them. Pure."""

from __future__ import annotations

import re

KIB, MIB, GIB = 1024, 1024**2, 1024**3
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.I | re.A)
_SPAN = re.compile(r"(\d+)([smhdw])", re.A)
_SPAN_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str, unit: str = "") -> int:
    """Bytes of "20G", "1.5 GiB", "768M". unit: what a bare number counts.

    Raises ValueError for what is no size, or no whole number of bytes.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write it like 20G or 768M")
    factor = _UNITS[(found.group(2) or unit).upper()]
    size = float(found.group(1)) * factor
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def parse_span(text: str) -> int:
    """Seconds of "90s", "12h", "1h30m", "30d". Raises ValueError."""
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ValueError(f"{text!r} is no time span; write it like 30d, 12h or 90s")
    return sum(int(number) * _SPAN_S[unit] for number, unit in found)


def size(count: int) -> str:
    """A number of bytes: "20G", "1.5G", "768M"."""
    value, unit = float(count), "B"
    for unit in ("B", "K", "M", "G", "T"):
        if abs(value) < 1024 or unit == "T":
            break
        value /= 1024
    shown = f"{value:.1f}".removesuffix(".0")
    return f"{shown}{unit}"


def mebibytes(count: int) -> str:
    """A number of MiB as a size."""
    return size(count * MIB) if count else ""


def span(seconds: float) -> str:
    """A length of time in its one or two largest units: "42s", "3m10s", "5h", "12d"."""
    left = max(int(seconds), 0)
    if left < 60:
        return f"{left}s"
    if left < 600:
        return f"{left // 60}m{left % 60:02}s"
    if left < 7200:
        return f"{left // 60}m"
    if left < 172800:
        return f"{left // 3600}h"
    return f"{left // 86400}d"

"""gzip for answers, whole ones and streams of which every piece is to arrive at once. Pure."""

from __future__ import annotations

import gzip
import re
import zlib

WORTH_BYTES = 1024
"""Shorter answers are not packed."""
LEVEL = 4
_WINDOW = 16 + zlib.MAX_WBITS
"""With gzip's own header."""
_CODING = re.compile(r"\s*([\w*-]+)\s*(?:;\s*q=([0-9.]+))?\s*")


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a caller that sends this header takes gzip."""
    weights: dict[str, float] = {}
    for one in accept_encoding.split(","):
        found = _CODING.fullmatch(one)
        if found is not None:
            weights[found.group(1).lower()] = _weight(found.group(2))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(text: str | None) -> float:
    try:
        return float(text) if text is not None else 1.0
    except ValueError:
        return 0.0


def packed(content: bytes) -> bytes:
    """The content, packed; the same bytes for the same content."""
    return gzip.compress(content, LEVEL, mtime=0)


class Packer:
    """Packs a stream so that whoever has all pieces up to one can unpack that."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, _WINDOW)

    def piece(self, content: bytes) -> bytes:
        """The next piece, packed."""
        return self._deflate.compress(content) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """What is behind the last piece."""
        return self._deflate.flush()

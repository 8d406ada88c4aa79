"""How storage is told to refuse a node, so that whatever still runs there can write no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StorageFence(Protocol):
    """The verbs. They raise PvcError when the storage does not answer."""

    def covers(self, volumes: Sequence[str]) -> str:
        """Why not all of these volumes can be kept from a node; "" when they can."""
        ...

    def fence(self, clients: Sequence[str]) -> bool:
        """Refuses these clients from now on (NodeStatus.storage_clients); whether every part of the
        storage has confirmed it. May be repeated."""
        ...


class NoStorageFence:
    """Of a cluster whose storage can refuse nobody: directories, which any node just writes to."""

    def covers(self, volumes: Sequence[str]) -> str:
        """See StorageFence."""
        first = f"{volumes[0]} is in a directory" if volumes else "its pools are directories"
        return f"{first}, and a directory cannot refuse a node"

    def fence(self, clients: Sequence[str]) -> bool:
        """See StorageFence."""
        del clients
        return False

"""What the network service is told in the section [network] of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.network.core.desired import Place


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The section [network].

    namespace: a network namespace of PVC's own, made if missing; "" for the machine's own network.
    folder: where files of servers are while they run. They mean nothing after a reboot, so it is
    below /run; "" is /run/pvc/network, or one named after the namespace. All users must be able to
    pass through the folders above it.
    uplink: the interface by which guests leave; "" for whichever the machine's routes say.
    default_cidr: the addresses of the network `default`, which is made with the cluster.
    address: where other nodes reach this one, by which networks are carried to them; "" for
    nowhere."""

    namespace: str = ""
    folder: str = ""
    uplink: str = ""
    default_cidr: str = "10.64.0.0/24"
    address: str = ""

    @property
    def path(self) -> Path:
        """The folder, whether it was told or not."""
        named = f"network-{self.namespace}" if self.namespace else "network"
        return Path(self.folder) if self.folder else Path("/run/pvc") / named

    @property
    def place(self) -> Place:
        """What the deciding half must know of it."""
        return Place(self.namespace, str(self.path / "servers"), self.uplink, self.address)

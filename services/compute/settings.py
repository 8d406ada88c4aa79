"""What a node's compute service must be told. Made by whoever puts the process together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """See the fields."""

    node: str
    """ "nodes/n1"."""
    directory: Path
    """Keeps console logs and UEFI variables: /var/lib/pvc/compute."""
    version: str = ""
    """PVC's own."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Service → where it listens on this node inside the cluster."""
    migration_host: str = ""
    """Where this node's hypervisor takes VMs from others; "" for nowhere."""
    memory_reserve_mib: int = 1024
    """Memory that VMs may not have."""
    cpu_model: str = ""
    """The cluster's default CPU model; "" for what fits the accelerator."""
    parallel: int = 8
    """VMs that are worked on at a time; 0: one after the other, in the caller's thread."""

    def console_log(self, vm: str) -> Path:
        """The file that keeps what a VM's serial console printed. vm: "web"."""
        return self.directory / "console" / f"{vm}.log"

    def nvram(self, vm: str) -> Path:
        """The file that keeps a VM's UEFI variables."""
        return self.directory / "nvram" / f"{vm}.fd"

    def prepare(self) -> None:
        """Makes the directories."""
        for name in ("console", "nvram"):
            (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)

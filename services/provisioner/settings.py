"""What the provisioner is told in the section [provisioner] of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.provisioner.build import BuildSettings


@dataclass(frozen=True, slots=True)
class ProvisionerSettings:
    """The section [provisioner].

    work_dir: where images are built and kept for the next time; some gigabytes.
    mirror: where Debian packages come from, one-line apt sources ("deb http://… bookworm main");
    empty for the machine's own sources."""

    work_dir: str = "/var/lib/pvc/provisioner"
    mirror: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """work_dir as a path."""
        return Path(self.work_dir)

    @property
    def build(self) -> BuildSettings:
        """What a build must know of it."""
        return BuildSettings(self.path / "build", self.path / "apt", self.mirror)

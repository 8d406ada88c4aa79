"""What the provisioner of a node must know of its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.mesh.config import Config
from services.provisioner.build import BuildSettings


@dataclass(frozen=True, slots=True)
class ProvisionerSettings:
    """work_dir: where images are built and kept for the next time; some gigabytes. mirrors: sources
    of Debian packages, as lines of sources.list; empty for the machine's own."""

    work_dir: Path
    mirrors: tuple[str, ...] = ()

    @property
    def build(self) -> BuildSettings:
        """What a build must know of it."""
        return BuildSettings(self.work_dir / "build", self.work_dir / "apt", self.mirrors)


def settings_of(config: Config) -> ProvisionerSettings:
    """What a node's configuration says."""
    section = config.provisioner
    work_dir = Path(section.work_dir or Path(config.node.state_dir) / "images")
    return ProvisionerSettings(work_dir, section.mirrors)

"""Takes PVC off this machine: its VMs, its libvirtd, its networks, its state. The opposite of
`init`.

Nothing that PVC did not make is touched. May be repeated after it was cut.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from services.compute.main import end_guests
from services.mesh.config import Config, load
from services.mesh.opening import database, open_store
from services.network.converge import clean_up
from services.network.main import fabric_of
from services.network.main import settings_of as network_settings_of


def remove(path: Path | None = None) -> tuple[str, ...]:
    """Removes everything; gives what remains and why, nothing as a rule.

    Raises PvcError, before anything is removed: IN_USE while pvcd runs, which would make it all
    anew, HYPERVISOR_FAILED when the libvirt that runs the VMs does not answer.
    """
    config = load(path)
    if database(config).exists():
        open_store(config).close()  # refuses while another process has it
    end_guests(config)
    settings = network_settings_of(config)
    left = clean_up(fabric_of(settings), bool(settings.namespace), config.node_name)
    for folder in _folders(config):
        shutil.rmtree(folder, ignore_errors=True)
    return (*left, *(f"{folder} is still there" for folder in _folders(config) if folder.exists()))


def _folders(config: Config) -> tuple[Path, ...]:
    return Path(config.node.run_dir), Path(config.node.state_dir)

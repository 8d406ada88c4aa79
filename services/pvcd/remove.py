"""Takes PVC off this machine: its VMs, its libvirtd, its networks, its state. The opposite of
`init`.

Nothing that PVC did not make is touched. May be repeated after it was cut.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.compute.main import end_guests
from services.mesh.config import Config, load
from services.mesh.errors import PvcError
from services.mesh.opening import database, open_store
from services.network.converge import clean_up
from services.network.main import fabric_of
from services.network.main import settings_of as network_settings_of


def remove(path: Path | None = None, *, force: bool = False) -> tuple[str, ...]:
    """Removes everything; gives what remains and why, nothing as a rule. force: also where the
    cluster was not told, or cannot be asked.

    Raises PvcError, before anything is removed: IN_USE while PVC runs, which would make it all
    anew, WRONG_STATE while the machine is a node of a cluster that goes on without it,
    HYPERVISOR_FAILED when the libvirt that runs the VMs does not answer.
    """
    config = load(path)
    if config.state.driver == "zookeeper":
        if not force:
            _check_left(config)
    elif database(config).exists():
        open_store(config).close()  # refuses while another process has it
    end_guests(config)
    settings = network_settings_of(config)
    left = clean_up(fabric_of(settings), bool(settings.namespace), config.node_name)
    for folder in _folders(config):
        shutil.rmtree(folder, ignore_errors=True)
    return (*left, *(f"{folder} is not empty" for folder in _folders(config) if _holds(folder)))


def _check_left(config: Config) -> None:
    """Raises IN_USE while the node's services hold its session, WRONG_STATE while the cluster has
    it; STORE_UNAVAILABLE when that cannot be found out."""
    store = open_store(config)
    try:
        snapshot = store.snapshot()
    finally:
        store.close()
    name = config.node_name
    if name in snapshot.leases:
        raise PvcError(reason_pb2.REASON_IN_USE, f"{name} works: stop its services first")
    if snapshot.find(cluster_pb2.Node, name) is not None:
        raise PvcError(
            reason_pb2.REASON_WRONG_STATE,
            f"the cluster still counts on {name}: take it out there first, "
            f"'pvc node remove {config.node.name}'",
        )


def _holds(folder: Path) -> bool:
    """Whether something is left in it: a folder that is mounted stays, empty."""
    return folder.exists() and any(folder.iterdir())


def _folders(config: Config) -> tuple[Path, ...]:
    return Path(config.node.run_dir), Path(config.node.state_dir)

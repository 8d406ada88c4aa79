"""Opens the store that the configuration names. Stores themselves know no configuration."""

from __future__ import annotations

from pathlib import Path

from services.mesh.config import Config
from services.state.ensemble import Ensemble
from services.state.sqlite import SqliteStore
from services.state.store import Store
from services.state.zookeeper import ZookeeperStore

DATABASE = "state.db"


def database(config: Config) -> Path:
    """Where a single machine keeps its state."""
    return Path(config.node.state_dir) / DATABASE


def open_store(config: Config) -> Store:
    """The store. Raises PvcError STORE_UNAVAILABLE, saying who has it or what does not answer."""
    if config.state.driver == "zookeeper":
        hosts = ",".join(config.state.hosts)
        return ZookeeperStore(Ensemble(hosts, session_timeout_s=config.state.session_timeout_s))
    database(config).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SqliteStore(database(config))

"""Opens the store that the configuration names. Stores themselves know no configuration."""

from __future__ import annotations

from pathlib import Path

from pvc.core.v1 import reason_pb2
from services.mesh.config import Config
from services.mesh.errors import PvcError
from services.state.ensemble import Ensemble, Tls
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
        return ZookeeperStore(ensemble(config))
    database(config).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SqliteStore(database(config))


def ensemble(config: Config) -> Ensemble:
    """How the configuration says that ZooKeeper is reached. Raises PvcError INVALID_CONFIG when the
    credentials cannot be read, or others can read them too."""
    folder = config.tls_dir
    files = Tls(folder / "ca.crt", folder / "node.crt", folder / "node.key")
    return Ensemble(
        ",".join(config.state.hosts),
        session_timeout_s=config.state.session_timeout_s,
        tick_s=config.state.tick_ms / 1000,
        credentials=credentials(config.state.credentials_file),
        tls=files if config.state.tls else None,
    )


def credentials(file: str) -> str:
    if not file:
        return ""
    try:
        text = Path(file).read_text().strip()
        open_to_others = Path(file).stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(f"state.credentials_file {file} cannot be read: {error}") from error
    if open_to_others:
        raise _invalid(f"state.credentials_file {file} can be read by others: chmod 600 {file}")
    if ":" not in text:
        raise _invalid(f"state.credentials_file {file} must hold USER:PASSWORD in one line")
    return text


def _invalid(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, message)

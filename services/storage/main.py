"""Puts the storage service together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pvc.core.v1 import meta_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh.channel import Peers
from services.mesh.clock import Clock
from services.mesh.config import Config
from services.mesh.desk import Desk
from services.mesh.jobs import Job, Jobs, work_of
from services.mesh.loop import Loop, Read
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.state.store import Store
from services.storage import files as kept
from services.storage.agent import LOOK_PERIOD_S, Agent
from services.storage.core import pools, usage
from services.storage.core.accept import PREFIX, SERVICE
from services.storage.drivers.directory import DirectoryDriver
from services.storage.drivers.driver import Driver
from services.storage.far_files import NoFarFiles, PeerFiles
from services.storage.first_pool import FirstPool
from services.storage.jobs.pools import PoolJobs
from services.storage.jobs.snapshots import SnapshotJobs
from services.storage.jobs.volumes import VolumeJobs
from services.storage.open_volumes import ComputeVolumes
from services.storage.service import StorageService
from services.storage.workshop import FarFiles, OpenVolumes, Workshop

JOBS_PERIOD_S = 10.0
"""A look for work without any change: after a session was lost, or another's commit came first."""
EXPIRY_PERIOD_S = 600.0
AGENT_READS: tuple[Read, ...] = ("pools", "pools/volumes", "nodes", *work_of(SERVICE))

DEFAULT_POOL = "pools/local"


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """What the storage service of a node must know."""

    node: str
    """"nodes/n1"."""
    state_dir: Path
    """For the files that are kept for a day."""
    pool_path: str
    """The folder of the default pool."""
    pool_reserve_bytes: int = 0
    """What new volumes leave free there; 0 for the usual."""
    files_reserve_bytes: int = kept.RESERVE_BYTES
    """What kept files leave free."""
    parallel: int = 4
    """How many operations are worked on at a time."""


def default_pool(
    settings: StorageSettings, clock: Clock, name: str = DEFAULT_POOL
) -> storage_pb2.Pool:
    """The row of the pool that every cluster begins with, to be committed when the cluster is made;
    or, under another name, of a further node's first one.

    The agent of its node then takes the folder.
    """
    now = clock.now()
    meta = meta_pb2.Meta(uid=clock.new_id(), generation=1, create_time=now, update_time=now)
    return pools.new_pool(
        name, settings.pool_path, settings.node, meta, settings.pool_reserve_bytes
    )


def settings_of(config: Config) -> StorageSettings:
    """What a node's configuration says."""
    state_dir, section = Path(config.node.state_dir), config.storage
    return StorageSettings(
        node=config.node_name,
        state_dir=state_dir,
        pool_path=section.pool_path or str(state_dir / "pools" / "local"),
        pool_reserve_bytes=section.pool_reserve_mib << 20,
        parallel=section.parallel,
    )


def build_on(ground: Ground) -> Parts:
    """From a node's configuration."""
    settings = settings_of(ground.config)
    return build(settings, ground.store, ground.clock, ground.peers, DirectoryDriver())


def build(
    settings: StorageSettings, store: Store, clock: Clock, peers: Peers, driver: Driver
) -> Parts:
    """The service of one node; open volumes are reached through the compute service of their VM."""
    far = PeerFiles(peers)
    return assemble(settings, store, clock, ComputeVolumes(peers), driver, far)


def assemble(
    settings: StorageSettings,
    store: Store,
    clock: Clock,
    open_volumes: OpenVolumes,
    driver: Driver,
    far_files: FarFiles | None = None,
) -> Parts:
    """As `build`, with any way to open volumes and to other nodes' files."""
    files = kept.Files(
        settings.state_dir / "files", settings.node, clock, settings.files_reserve_bytes
    )
    far = far_files or NoFarFiles()
    shop = Workshop(store, clock, driver, open_volumes, files, settings.node, far)
    workers = [
        Jobs(store, clock, SERVICE, settings.node, methods, settings.parallel)
        for methods in apart(job_methods(shop))
    ]
    agent = Agent(store, clock, driver, settings.node)
    first = FirstPool(
        store,
        settings.node,
        partial(default_pool, settings, clock),
        lambda: not Path(settings.pool_path).exists(),
    )

    def look() -> None:
        first.step()
        agent.step()

    def expire() -> None:
        snapshot = store.snapshot()
        files.expire(lambda name: usage.importing(snapshot, name) is not None)

    service = StorageService(Desk(store, clock, settings.node), files)
    return Parts(
        servicers=((api_grpc.add_StorageServiceServicer_to_server, service),),
        loops=(
            *(
                Loop(f"storage-{name}", jobs.step, JOBS_PERIOD_S, work_of(SERVICE))
                for name, jobs in zip(("jobs", "exports"), workers, strict=True)
            ),
            Loop("storage-agent", look, LOOK_PERIOD_S, AGENT_READS),
            Loop("storage-files", expire, EXPIRY_PERIOD_S, reads=()),
        ),
        close=tuple(jobs.stop for jobs in workers),
    )


def job_methods(shop: Workshop) -> dict[str, Job]:
    """Method → the job that does its work."""
    return {
        **PoolJobs(shop).methods(),
        **VolumeJobs(shop).methods(),
        **SnapshotJobs(shop).methods(),
    }


def apart(methods: dict[str, Job]) -> tuple[dict[str, Job], dict[str, Job]]:
    """All but exports, and those: work of other nodes waits for them, so that they wait for
    nobody."""
    exports = {name: job for name, job in methods.items() if name == f"{PREFIX}ExportVolume"}
    return {name: job for name, job in methods.items() if name not in exports}, exports

"""Puts the provisioner of a node together; touches nothing until its loops run."""

from __future__ import annotations

from pvc.provisioner.v1.provisioner_service_pb2_grpc import (
    add_ProvisionerServiceServicer_to_server,
)
from services.mesh.channel import Peers
from services.mesh.clock import Clock
from services.mesh.desk import Desk
from services.mesh.jobs import Jobs, work_of
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.provisioner.build import builtin_recipes
from services.provisioner.builder import ImageBuilder
from services.provisioner.cache import ImageCache
from services.provisioner.core.facts import SERVICE
from services.provisioner.jobs.images import Builder, ImageJobs
from services.provisioner.jobs.vms import VmJobs
from services.provisioner.neighbours import GrpcNeighbours, Neighbours
from services.provisioner.seed_files import SeedFiles
from services.provisioner.service import ProvisionerService
from services.provisioner.settings import ProvisionerSettings, settings_of
from services.provisioner.sweep import READS as SWEEP_READS
from services.provisioner.sweep import Sweep
from services.provisioner.waiting import Waiting
from services.provisioner.workshop import Workshop
from services.state.store import Store

JOBS_PERIOD_S = 10.0
"""A look for work without any change: after a session was lost, or another's commit came first."""
SWEEP_PERIOD_S = 60.0
PARALLEL = 8
"""Operations that are worked on at a time; most of them wait for other services."""


def build_on(ground: Ground) -> Parts:
    """From a node's configuration."""
    config = ground.config
    return build(ground.store, ground.clock, config.node_name, settings_of(config), ground.peers)


def build(
    store: Store, clock: Clock, node: str, settings: ProvisionerSettings, peers: Peers
) -> Parts:
    """node: "nodes/n1"."""
    neighbours = GrpcNeighbours(peers, store)
    return assemble(store, clock, node, settings, neighbours, ImageBuilder(settings.build))


def assemble(
    store: Store,
    clock: Clock,
    node: str,
    settings: ProvisionerSettings,
    neighbours: Neighbours,
    builder: Builder,
) -> Parts:
    """As `build`, with any way to the other services and any builder."""
    recipes = builtin_recipes()
    seeds = SeedFiles(settings.work_dir / "seeds", clock)
    shop = Workshop(store, clock, neighbours, Waiting(store, clock))
    cache = ImageCache(settings.work_dir / "cache", clock)
    methods = {
        **ImageJobs(shop, cache, builder, recipes).methods(),
        **VmJobs(shop, seeds).methods(),
    }
    jobs = Jobs(store, clock, SERVICE, node, methods, PARALLEL)
    service = ProvisionerService(Desk(store, clock, node), recipes, neighbours, seeds)
    sweep = Sweep(store, neighbours, seeds, node)
    return Parts(
        servicers=((add_ProvisionerServiceServicer_to_server, service),),
        loops=(
            Loop("provisioner-jobs", jobs.step, JOBS_PERIOD_S, work_of(SERVICE)),
            Loop("provisioner-sweep", sweep.step, SWEEP_PERIOD_S, SWEEP_READS),
        ),
        close=(jobs.stop,),
    )

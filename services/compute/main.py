"""Puts the compute service of one node together."""

from __future__ import annotations

from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from services.compute.agent import Agent
from services.compute.consoles import Consoles, Logs
from services.compute.disk_service import DiskService
from services.compute.drivers.hypervisor import Hypervisor, OpenDisks
from services.compute.guests import Guests
from services.compute.jobs import VmJobs
from services.compute.open_disks import OpenVolumes
from services.compute.presence import Presence, read_hardware
from services.compute.service import VmService
from services.compute.settings import ComputeSettings
from services.compute.volumes import Channel, StorageVolumes, VolumeService
from services.mesh.clock import Clock
from services.mesh.desk import Desk
from services.mesh.jobs import Jobs
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.state.store import Store

AGENT_PERIOD_S = 1.0
"""For what becomes due by time alone: back-offs, a guest that does not shut down."""
GUESTS_PERIOD_S = 1.0
JOBS_PERIOD_S = 5.0
LOGS_PERIOD_S = 5.0
JOBS_PARALLEL = 16
"""Jobs mostly wait."""


def build(
    settings: ComputeSettings,
    store: Store,
    clock: Clock,
    storage: Channel,
    hypervisor: Hypervisor,
    disks: OpenDisks,
) -> Parts:
    """storage: node → a channel to its storage service, for calls that wait."""
    volumes = StorageVolumes(store, clock, storage)
    return assemble(settings, store, clock, volumes, hypervisor, disks)


def assemble(
    settings: ComputeSettings,
    store: Store,
    clock: Clock,
    volumes: VolumeService,
    hypervisor: Hypervisor,
    disks: OpenDisks,
) -> Parts:
    """As `build`, with any way to ask for volumes."""
    settings.prepare()
    node, facts, desk = settings.node, hypervisor.facts(), Desk(store, clock, settings.node)
    presence = Presence(store, clock, settings, facts, read_hardware())
    agent = Agent(store, clock, hypervisor, settings, facts, presence)
    guests = Guests(store, clock, hypervisor, node, agent.memory)
    open_volumes = OpenVolumes(store, disks, node)
    work = VmJobs(store, clock, node, hypervisor, volumes, open_volumes)
    jobs = Jobs(store, clock, "compute", node, work.methods(), JOBS_PARALLEL)
    consoles = Consoles(hypervisor, settings)
    agent_loop = Loop("compute-agent", agent.step, AGENT_PERIOD_S)
    agent.wake = guests.wake = agent_loop.wake
    hypervisor.on_event(agent_loop.wake)
    vms = VmService(desk, settings, facts.accelerator, consoles)
    return Parts(
        servicers=(
            (api_grpc.add_VmServiceServicer_to_server, vms),
            (api_grpc.add_DiskServiceServicer_to_server, DiskService(desk, open_volumes)),
        ),
        loops=(
            agent_loop,
            Loop("compute-guests", guests.step, GUESTS_PERIOD_S),
            Loop("compute-jobs", jobs.step, JOBS_PERIOD_S),
            Loop("compute-logs", Logs(store, settings).step, LOGS_PERIOD_S),
        ),
        close=(jobs.stop, agent.stop, guests.stop, consoles.stop),
    )

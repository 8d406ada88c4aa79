"""Puts the compute service of one node together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc

from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from services.compute.agent import Agent
from services.compute.concerns import reads_of
from services.compute.consoles import Consoles, Logs
from services.compute.core.requests import SERVICE
from services.compute.disk_service import DiskService
from services.compute.drivers.daemon import Daemon, machine_accelerator
from services.compute.drivers.daemon_settings import Door
from services.compute.drivers.hypervisor import Hypervisor, OpenDisks
from services.compute.drivers.libvirt import Libvirt
from services.compute.drivers.libvirt_disks import LibvirtDisks
from services.compute.drivers.watchdog import watchdog_at
from services.compute.guard import Guard, end_all
from services.compute.guests import Guests
from services.compute.jobs import VmJobs
from services.compute.open_disks import OpenVolumes
from services.compute.presence import Presence, read_hardware, read_load
from services.compute.service import VmService
from services.compute.settings import ComputeSettings
from services.compute.standing import Standing
from services.compute.succession import Succession
from services.compute.volumes import Channel, StorageVolumes, VolumeService
from services.mesh.clock import Clock
from services.mesh.config import Config
from services.mesh.desk import Desk
from services.mesh.jobs import Jobs, work_of
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.process import Ground
from services.mesh.version import VERSION
from services.state.store import Store

AGENT_PERIOD_S = 0.25
"""For what becomes due by time alone: a look at a migration, back-offs, a guest that does not shut
down. Whether anything is due costs microseconds."""
GUESTS_PERIOD_S = 1.0
JOBS_PERIOD_S = 5.0
LOGS_PERIOD_S = 5.0
DAEMON_PERIOD_S = 2.0
"""How long a death of the private libvirtd goes unseen."""
JOBS_PARALLEL = 16
"""Jobs mostly wait."""


def settings_of(config: Config) -> ComputeSettings:
    """What a node's configuration says."""
    return ComputeSettings(
        node=config.node_name,
        directory=Path(config.node.state_dir) / "compute",
        version=VERSION,
        addresses=(config.public_addresses() or config.addresses()) | _doors(config),
        memory_reserve_mib=config.compute.reserved_memory_mib,
        cpu_model=config.compute.cpu_model,
        parallel=config.compute.parallel,
        migration_host=door.address if (door := door_of(config)) else config.compute.migration_host,
    )


def _doors(config: Config) -> dict[str, str]:
    """Where machines that join can ask, for those who tell them."""
    return {"door": config.door} if config.door else {}


def door_of(config: Config) -> Door | None:
    """How VMs get in from other nodes: at the node's address in the mesh, which guests in a network
    namespace of their own are not at."""
    private = not config.compute.libvirt_uri
    if not (private and config.mesh.listen) or config.network.namespace:
        return None
    return Door(config.mesh.listen, config.tls_dir)


def daemon_of(config: Config) -> Daemon | None:
    """The libvirtd of PVC's own; None when the configuration names another."""
    if config.compute.libvirt_uri:
        return None
    namespace = config.network.namespace
    return Daemon(
        Path(config.node.state_dir) / "libvirt",
        net_namespace=Path("/run/netns") / namespace if namespace else None,
        door=door_of(config),
    )


def end_guests(config: Config) -> None:
    """Ends and forgets every VM of this node; and the private libvirtd, if there is one. For taking
    PVC off the machine, while pvcd does not run."""
    if (daemon := daemon_of(config)) is not None:
        daemon.stop(kill_guests=True)
        return
    libvirt = Libvirt(config.compute.libvirt_uri, machine_accelerator())
    try:
        forget_all(libvirt)
    finally:
        libvirt.close()


def forget_all(hypervisor: Hypervisor) -> None:
    """Leaves no domain of PVC's; foreign ones are not even seen."""
    for vm in hypervisor.domains():
        hypervisor.destroy(vm)
        hypervisor.undefine(vm)


def build_on(ground: Ground) -> Parts:
    """From a node's configuration; starts the private libvirtd, and keeps it alive. It outlives
    this process, as its guests do."""
    standing = Standing(ground.store, ground.config.node_name)
    guard = guard_of(ground, standing)
    guard.begin()
    try:
        parts = _build_on(ground, standing, guard)
    except BaseException:
        guard.leave()
        raise
    return replace(parts, close=(*parts.close, guard.leave))


def guard_of(ground: Ground, standing: Standing) -> Guard:
    """It comes first: an agent that ended unasked leaves an armed watchdog behind."""
    compute, clock = ground.config.compute, ground.clock
    device, timeout_s = watchdog_at(compute.watchdog), float(compute.watchdog_timeout_s)
    return Guard(ground.store, clock, standing, device, compute.watchdog, timeout_s)


def _build_on(ground: Ground, standing: Standing, guard: Guard) -> Parts:
    config, daemon = ground.config, daemon_of(ground.config)
    keeping: list[Loop] = []
    chosen = machine_accelerator(config.compute.accelerator.replace("auto", ""))
    if daemon is None:
        libvirt = Libvirt(config.compute.libvirt_uri, chosen)
    else:
        daemon.start()
        libvirt = Libvirt(
            daemon.uri,
            chosen,
            pid_directory=daemon.pid_directory,
            log_directory=daemon.log_directory,
            peers=daemon.peers,
        )
        keeping.append(Loop("compute-libvirtd", daemon.start, DAEMON_PERIOD_S, reads=()))

    def storage(node: str) -> grpc.Channel:
        return ground.peers.blocking("storage", node)

    settings, disks = settings_of(config), LibvirtDisks(libvirt)
    guard.kill = partial(end_all, libvirt)
    line = Succession(Path(config.node.state_dir), Path(config.node.run_dir))
    parts = build(settings, ground.store, ground.clock, storage, libvirt, disks, standing, line)
    return replace(parts, loops=(*keeping, *parts.loops), close=(libvirt.close, *parts.close))


def build(
    settings: ComputeSettings,
    store: Store,
    clock: Clock,
    storage: Channel,
    hypervisor: Hypervisor,
    disks: OpenDisks,
    standing: Standing | None = None,
    succession: Succession | None = None,
) -> Parts:
    """storage: node → a channel to its storage service, for calls that wait."""
    volumes = StorageVolumes(store, clock, storage)
    return assemble(settings, store, clock, volumes, hypervisor, disks, standing, succession)


def assemble(
    settings: ComputeSettings,
    store: Store,
    clock: Clock,
    volumes: VolumeService,
    hypervisor: Hypervisor,
    disks: OpenDisks,
    standing: Standing | None = None,
    succession: Succession | None = None,
) -> Parts:
    """As `build`, with any way to ask for volumes."""
    settings.prepare()
    node, facts, desk = settings.node, hypervisor.facts(), Desk(store, clock, settings.node)
    presence = Presence(store, clock, settings, facts, read_hardware(), standing, succession)
    presence.measure = read_load
    agent = Agent(store, clock, hypervisor, settings, facts, presence)
    guests = Guests(store, clock, hypervisor, node, agent.memory)
    open_volumes = OpenVolumes(store, disks, node)
    work = VmJobs(store, clock, node, hypervisor, volumes, open_volumes)
    jobs = Jobs(store, clock, SERVICE, node, work.methods(), JOBS_PARALLEL)
    consoles = Consoles(hypervisor, settings)
    agent_loop = Loop("compute-agent", agent.step, AGENT_PERIOD_S, reads_of(node))
    agent.wake = agent_loop.wake
    guests.wake = agent.look_again
    hypervisor.on_event(agent.look_again)
    logs = Logs(store, settings, lambda: hypervisor.domains().keys())
    vms = VmService(desk, settings, facts.accelerator, consoles)
    return Parts(
        servicers=(
            (api_grpc.add_VmServiceServicer_to_server, vms),
            (api_grpc.add_DiskServiceServicer_to_server, DiskService(desk, open_volumes)),
        ),
        loops=(
            agent_loop,
            Loop("compute-guests", guests.step, GUESTS_PERIOD_S, reads=()),
            Loop("compute-jobs", jobs.step, JOBS_PERIOD_S, work_of(SERVICE)),
            Loop("compute-logs", logs.step, LOGS_PERIOD_S, reads=()),
        ),
        close=(jobs.stop, agent.stop, guests.stop, consoles.stop),
    )

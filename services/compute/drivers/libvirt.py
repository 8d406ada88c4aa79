"""The hypervisor verbs on a real libvirt, by its own library. It decides nothing, retries nothing,
and never shows or touches a domain without PVC's mark.
"""

from __future__ import annotations

import logging
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeVar

import libvirt

from pvc.core.v1 import reason_pb2
from services.compute.drivers import console_log, observed
from services.compute.drivers.daemon_settings import Peers
from services.compute.drivers.hypervisor import Console, Domain, Facts, Guest, OffReason, Power
from services.compute.drivers.libvirt_calls import lookup
from services.compute.drivers.libvirt_console import StreamConsole
from services.compute.drivers.libvirt_link import DEADLINE_S
from services.compute.drivers.libvirt_migration import LibvirtMigrations, crossing
from services.mesh.errors import PvcError

AGENT_SHUTDOWN_S = 3
"""How long a guest's agent may take to say that it will shut down, before the button is pressed."""
DESTROY_DEADLINE_S = 60.0
"""libvirt asks the emulator to end, and kills it when it does not."""
KILL_S = 20.0
"""How long the emulator's process may take to be gone after libvirt says that it is."""
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE

_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.STOPPING,
}
_OFF_REASON = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffReason.SHUT_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffReason.START_FAILED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: OffReason.MIGRATED,
}
AGENT_SILENT = {
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
}
"""What libvirt says when there is no agent, or one that does not answer."""
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)

T = TypeVar("T")

log = logging.getLogger("pvc.libvirt")


class Libvirt(LibvirtMigrations):
    """Implements Hypervisor. Thread-safe."""

    def __init__(
        self,
        uri: str,
        accelerator: tuple[str, str],
        *,
        pid_directory: Path = Path("/run/libvirt/qemu"),
        log_directory: Path | None = None,
        deadline_s: float = DEADLINE_S,
        peers: Peers | None = None,
    ) -> None:
        """accelerator: what to use and why; see daemon.machine_accelerator. pid_directory: where
        this libvirt keeps its emulators' process ids. log_directory: where it keeps their logs, if
        those are to go with their domains; None: they are somebody else's, and stay. peers: how
        those of other nodes are reached; None: by the certificates that libvirt finds itself."""
        super().__init__(uri, pid_directory, deadline_s, peers)
        self._accelerator = accelerator
        self._log_directory = log_directory

    def facts(self) -> Facts:
        """See Hypervisor."""
        name, why = self._accelerator
        kind = "kvm" if name == "kvm" else "qemu"

        def ask(connection: libvirt.virConnect) -> Facts:
            abilities = connection.getDomainCapabilities(None, "x86_64", "q35", kind, 0)
            return Facts(
                accelerator=name,
                accelerator_why=why,
                emulator_version=_version(connection.getVersion()),
                libvirt_version=_version(connection.getLibVersion()),
                cpu_models=_cpu_models(abilities),
            )

        return self._call("read the node's abilities", ask)

    def domains(self) -> Mapping[str, Domain]:
        """See Hypervisor."""

        def ask(connection: libvirt.virConnect) -> dict[str, Domain]:
            seen = (self._seen(domain) for domain in connection.listAllDomains(0))
            return {domain.vm: domain for domain in seen if domain is not None}

        return self._call("list the domains", ask)

    def define(self, xml: str) -> None:
        """See Hypervisor. Devices keep their places on the PCI bus."""
        wanted = observed.parse_domain(xml)
        assert wanted.vm, "a domain without PVC's mark would be lost at once"

        def act(connection: libvirt.virConnect) -> None:
            former = lookup(connection, wanted.vm)
            kept = xml if former is None else observed.kept_places(xml, former.XMLDesc(0))
            connection.defineXML(kept)

        self._call(f"define {wanted.vm}", act)

    def start(self, vm: str) -> None:
        """See Hypervisor."""

        def act(domain: libvirt.virDomain) -> None:
            if not domain.isActive():
                domain.create()

        self._on("start", vm, act)

    def shutdown(self, vm: str) -> None:
        """See Hypervisor."""

        def act(domain: libvirt.virDomain) -> None:
            if not domain.isActive():
                return
            if observed.parse_domain(domain.XMLDesc(0)).agent_connected:
                try:
                    domain.agentSetResponseTimeout(AGENT_SHUTDOWN_S, 0)
                    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
                except libvirt.libvirtError as error:
                    if error.get_error_code() not in AGENT_SILENT:
                        raise
                else:
                    return
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

        self._on("shut down", vm, act)

    def destroy(self, vm: str) -> None:
        """See Hypervisor."""
        emulator = self._emulator(vm)

        def act(connection: libvirt.virConnect) -> None:
            domain = lookup(connection, vm)
            if domain is not None and domain.isActive():
                _destroy(domain)
            if emulator is not None and not emulator.wait(KILL_S):
                raise PvcError(
                    reason_pb2.REASON_HYPERVISOR_FAILED,
                    f"the emulator of {vm} (process {emulator.pid}) does not end, even when "
                    "killed; it may wait for its storage",
                )

        self._call(f"switch off {vm}", act, DESTROY_DEADLINE_S)

    def undefine(self, vm: str) -> None:
        """See Hypervisor."""

        def act(connection: libvirt.virConnect) -> None:
            domain = lookup(connection, vm)
            if domain is None:
                return
            if domain.isActive():
                raise PvcError(reason_pb2.REASON_WRONG_STATE, f"{vm} runs; switch it off first")
            kept = observed.parse_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            # Logs first: cut here, the domain is still known, and this is done again.
            if kept.console_log:
                console_log.remove(Path(kept.console_log))
            if self._log_directory is not None:
                console_log.remove(self._log_directory / f"{vm}.log")
            domain.undefineFlags(_UNDEFINE)

        self._call(f"forget {vm}", act)

    def reset(self, vm: str) -> None:
        """See Hypervisor."""
        self._on("reset", vm, lambda domain: domain.reset(0))

    def pause(self, vm: str) -> None:
        """See Hypervisor."""

        def act(domain: libvirt.virDomain) -> None:
            if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                domain.suspend()

        self._on("pause", vm, act)

    def resume(self, vm: str) -> None:
        """See Hypervisor."""
        self._on("resume", vm, _resume)

    def attach(self, vm: str, device_xml: str) -> None:
        """See Hypervisor."""
        alias = observed.device_alias(device_xml)

        def act(domain: libvirt.virDomain) -> None:
            if alias not in observed.device_aliases(domain.XMLDesc(0)):
                domain.attachDeviceFlags(device_xml, _LIVE)

        self._on(f"plug {alias} into", vm, act)

    def detach(self, vm: str, device_xml: str, timeout_s: float) -> None:
        """See Hypervisor."""
        alias = observed.device_alias(device_xml)
        departed = _Departure(vm, alias)
        self._link.on_device(departed.told)
        try:
            if self._on(f"unplug {alias} from", vm, lambda domain: _unplug(domain, alias)):
                departed.wait(timeout_s, lambda: self._has(vm, alias))
        finally:
            self._link.forget_device_listener(departed.told)

    def update_device(self, vm: str, device_xml: str) -> None:
        """See Hypervisor."""
        what = f"change {observed.device_alias(device_xml)} of"
        self._on(what, vm, lambda domain: domain.updateDeviceFlags(device_xml, _LIVE))

    def set_vcpus(self, vm: str, vcpus: int) -> None:
        """See Hypervisor. Without acceleration processors can only be added."""

        def act(domain: libvirt.virDomain) -> None:
            now = observed.parse_domain(domain.XMLDesc(0))
            if vcpus < now.vcpus and now.accelerator != "kvm":
                # QEMU drops the processor and never says so; libvirt goes on counting it, and
                # every later save or migration of the domain hangs.
                raise PvcError(
                    reason_pb2.REASON_NOT_SUPPORTED,
                    f"an emulated machine cannot lose processors while it runs; restart {vm}",
                    field="spec.cpu.vcpus",
                )
            if vcpus != now.vcpus:
                domain.setVcpusFlags(vcpus, _LIVE)

        self._on("change the processors of", vm, act)

    def set_memory(self, vm: str, memory_mib: int) -> None:
        """See Hypervisor."""
        self._on(
            "change the memory of",
            vm,
            lambda domain: domain.setMemoryFlags(memory_mib << 10, _LIVE),
        )

    def guest(self, vm: str, timeout_s: float) -> Guest | None:
        """See Hypervisor."""

        def ask(domain: libvirt.virDomain) -> Guest | None:
            try:
                domain.agentSetResponseTimeout(max(1, round(timeout_s)), 0)
                told = domain.guestInfo(
                    libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME | libvirt.VIR_DOMAIN_GUEST_INFO_OS, 0
                )
                interfaces = domain.interfaceAddresses(
                    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0
                )
            except libvirt.libvirtError as error:
                if error.get_error_code() in AGENT_SILENT:
                    log.debug("%s: its agent is silent: %s", vm, error)
                    return None
                raise
            return _guest(told, interfaces)

        try:
            return self._on("ask the agent of", vm, ask, timeout_s + 1)
        except PvcError as error:
            if error.reason == reason_pb2.REASON_DEADLINE:
                log.debug("%s: its agent is silent: %s", vm, error.message)
                return None
            raise

    def open_console(self, vm: str, force: bool) -> Console:
        """See Hypervisor."""
        flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else 0

        def act(domain: libvirt.virDomain) -> StreamConsole:
            stream = domain.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
            try:
                domain.openConsole(None, stream, flags)
            except libvirt.libvirtError as error:
                busy = "Active console session exists"
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED and busy in str(
                    error
                ):
                    raise PvcError(
                        reason_pb2.REASON_BUSY,
                        f"somebody else has the console of {vm}; take it over by force",
                    ) from error
                raise
            return StreamConsole(self._link, stream)

        return self._on("open the console of", vm, act)

    def _has(self, vm: str, alias: str) -> bool:
        xml = self._on("look at", vm, lambda domain: domain.XMLDesc(0))
        return alias in observed.device_aliases(xml)

    def _seen(self, domain: libvirt.virDomain) -> Domain | None:
        """The domain, or None if it is foreign or has just vanished."""
        try:
            xml = domain.XMLDesc(0)
            state, reason = domain.state()
            number, trouble = domain.ID(), _trouble(domain, state, reason)
            between = crossing(domain, state, reason)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        vm = observed.parse_domain(xml).vm
        if not vm or vm != domain.name():
            return None
        power = _POWER.get(state, Power.OFF)
        return Domain(
            vm=vm,
            uuid=domain.UUIDString(),
            power=power,
            off_reason=_OFF_REASON.get(reason, OffReason.UNKNOWN)
            if power is Power.OFF
            else OffReason.UNKNOWN,
            run="" if power is Power.OFF else self._run(vm, number),
            xml=xml,
            trouble=trouble,
            crossing=between,
        )

    def _run(self, vm: str, number: int) -> str:
        """libvirt counts its domains anew when it starts anew; the emulator's own process tells
        runs apart for certain."""
        emulator = self._emulator(vm)
        return f"{number}" if emulator is None else f"{emulator.pid}-{emulator.start_time}"


def _trouble(domain: libvirt.virDomain, state: int, reason: int) -> str:
    """What stopped it unasked: the storage's trouble, or the guest itself."""
    if state == libvirt.VIR_DOMAIN_PMSUSPENDED:
        return "its guest put itself to sleep"
    if (state, reason) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
        return ""
    words = {libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE: "has no space"}
    try:
        found = domain.diskErrors(0).items()
    except libvirt.libvirtError as error:
        # It ended, or its emulator does not answer; the others are to be seen all the same.
        log.debug("%s: its disks cannot be asked about: %s", domain.name(), error)
        return "its storage failed"
    told = [f"{target} {words.get(error, 'cannot be read or written')}" for target, error in found]
    return " and ".join(sorted(told)) or "its storage failed"


def _resume(domain: libvirt.virDomain) -> None:
    match domain.state()[0]:
        case libvirt.VIR_DOMAIN_RUNNING:
            return
        case libvirt.VIR_DOMAIN_PMSUSPENDED:
            domain.pMWakeup(0)
        case _:
            domain.resume()


class _Departure:
    """Waits for one device to leave."""

    def __init__(self, vm: str, alias: str) -> None:
        self._vm, self._alias = vm, alias
        self._told = threading.Event()
        self._refused = False

    def told(self, vm: str, alias: str, gone: bool) -> None:
        """An event of libvirt's; from its thread."""
        if (vm, alias) == (self._vm, self._alias):
            self._refused = not gone
            self._told.set()

    def wait(self, timeout_s: float, still_there: Callable[[], bool]) -> None:
        """Raises GUEST_UNRESPONSIVE if it refused or did not leave; events may be lost, so look."""
        self._told.wait(timeout_s)
        if self._refused or (not self._told.is_set() and still_there()):
            how = "refuses to" if self._refused else f"did not in {timeout_s:g} s"
            raise PvcError(
                reason_pb2.REASON_GUEST_UNRESPONSIVE,
                f"{self._vm} was asked to let go of {self._alias} and {how}; is its system up? "
                "Otherwise the device goes at the next restart",
            )


def _unplug(domain: libvirt.virDomain, alias: str) -> bool:
    """Asks the guest to let go; False when the device is not there."""
    if not domain.isActive() or alias not in observed.device_aliases(domain.XMLDesc(0)):
        return False
    try:
        domain.detachDeviceAlias(alias, _LIVE)
    except libvirt.libvirtError as error:
        # It was asked before and is still thinking: QEMU has no code for that.
        if "already in the process of unplug" not in str(error):
            raise
    return True


def _destroy(domain: libvirt.virDomain) -> None:
    """Just after its own restart libvirt is still taking domains back, and says of one that it has
    killed that it does not run; or it ended by itself at this moment."""
    try:
        domain.destroy()
    except libvirt.libvirtError:
        if domain.isActive():
            raise


def _guest(told: Mapping[str, Any], interfaces: Mapping[str, Any]) -> Guest:
    """What a guest says need not be so: what is no address is left out."""
    addresses = []
    for interface in interfaces.values():
        for entry in interface.get("addrs") or ():
            try:
                address = ip_interface(f"{entry['addr'].partition('%')[0]}/{entry['prefix']}")
            except ValueError:
                log.debug("no address: %r", entry)
                continue
            if not (address.is_loopback or address.is_link_local):
                addresses.append(str(address))
    return Guest(
        host_name=told.get("hostname", ""),
        os=told.get("os.pretty-name") or told.get("os.name", ""),
        addresses=tuple(addresses),
    )


def _cpu_models(abilities: str) -> tuple[str, ...]:
    models = ET.fromstring(abilities).iterfind("cpu/mode[@name='custom']/model[@usable='yes']")
    return tuple(sorted(model.text or "" for model in models))


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

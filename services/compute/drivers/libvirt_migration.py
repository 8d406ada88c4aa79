"""Live migration on a real libvirt: the two libvirtds move the domain between themselves, by TLS,
whatever becomes of this process. Nothing here waits for the copying or decides how it goes on.

Flags that need a reason:

* UNSAFE: libvirt knows by a file system's type alone whether other nodes see the same files, and
  refuses all that it does not know. That the target sees the images, and that none is cached so
  that flushes are ignored, is checked by `refuses`.
* AUTO_CONVERGE from the start, at one percent: QEMU can change how much it slows a guest down while
  it migrates, but not whether it may. `throttle` makes the steps large.
* No UNDEFINE_SOURCE: what is left behind says MIGRATED, which is how an agent that was not there
  learns what happened.
"""

from __future__ import annotations

import json
import logging
import threading
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from services.compute.drivers import arrivals
from services.compute.drivers.daemon_settings import Peers, bracketed
from services.compute.drivers.hypervisor import Crossing, Passage, Route
from services.compute.drivers.libvirt_calls import Calls, lookup
from services.compute.drivers.libvirt_link import DEADLINE_S, KEEPALIVE_COUNT, KEEPALIVE_S
from services.mesh.errors import PvcError

THROTTLE_FIRST_PERCENT = 1
THROTTLE_STEP_PERCENT = 20
"""With this the guest is slowed to a standstill, nearly, within some seconds."""
PEER_DEADLINE_S = 10.0
_COPIED_NODES = "migration-"
"""Block nodes of libvirt's that disks are copied to are called like this."""

_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNSAFE
    | libvirt.VIR_MIGRATE_TLS
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
)
_HALTED = frozenset(
    {
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
    }
)
"""States of a domain that is on its way, at either end."""
_COMING = _HALTED | {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
}
"""States that a domain that comes in can have, and others too."""

log = logging.getLogger("pvc.libvirt")


class LibvirtMigrations(Calls):
    """Implements Migrations. Thread-safe."""

    def __init__(
        self,
        uri: str,
        pid_directory: Path,
        deadline_s: float = DEADLINE_S,
        peers: Peers | None = None,
    ) -> None:
        super().__init__(uri, pid_directory, deadline_s)
        self._peers = peers or Peers()
        self._moving = threading.Lock()
        self._aborting: set[str] = set()
        """VMs whose migrations were to end."""
        self._passages: dict[str, Passage] = {}
        """VM → its last migration that this process began: how it ended, once it has."""

    def refuses(self, vm: str, host: str, copied: Collection[str]) -> tuple[str, ...]:
        """See Migrations."""
        uri = self._peers.uri(host, str(self._peers.here or ""))
        try:
            xml, capabilities = self._link.run(
                f"ask {host} for {vm}", lambda: _abroad(uri, vm), PEER_DEADLINE_S
            )
        except libvirt.libvirtError as error:
            return (f"its node's libvirt at {host} cannot be asked: {_words(error)}",)
        except PvcError as error:
            return (f"its node's libvirt at {host} cannot be asked: {error.message}",)
        return self._call(
            f"see whether {vm} can come in",
            lambda connection: (
                *arrivals.missing_files(xml, copied),
                *_unknown_machine(connection, xml),
                *_unknown_processor(connection, xml, capabilities),
            ),
        )

    def migrate(self, vm: str, route: Route) -> None:
        """See Migrations."""

        def prepare(domain: libvirt.virDomain) -> bool:
            if _goes_on(domain):
                return False
            domain.migrateSetMaxDowntime(route.downtime_ms)
            return True

        with self._moving:
            known = self._passages.get(vm)
            if known is not None and not known.ended:
                return
            self._passages.pop(vm, None)
            self._aborting.discard(vm)
        if not self._on("migrate", vm, prepare):
            return
        with self._moving:
            self._passages[vm] = Passage()
        # A connection of its own: it waits for as long as the copying takes, and a connection takes
        # few calls at a time.
        threading.Thread(
            target=self._carry, args=(vm, route), name=f"migrate-{vm}", daemon=True
        ).start()

    def migration(self, vm: str) -> Passage | None:
        """See Migrations."""

        def ask(connection: libvirt.virConnect) -> Passage | None:
            domain = lookup(connection, vm)
            return _passage(domain) if domain is not None else None

        found = self._call(f"ask how far {vm} is", ask)
        with self._moving:
            return found or self._passages.get(vm)

    def set_downtime(self, vm: str, downtime_ms: int) -> None:
        """See Migrations."""
        self._on("allow a longer pause to", vm, lambda d: d.migrateSetMaxDowntime(downtime_ms))

    def throttle(self, vm: str) -> None:
        """See Migrations. libvirt has no verb for it: QEMU is asked directly."""
        order = {
            "execute": "migrate-set-parameters",
            "arguments": {"cpu-throttle-increment": THROTTLE_STEP_PERCENT},
        }

        def act(domain: libvirt.virDomain) -> None:
            libvirt_qemu.qemuMonitorCommand(domain, json.dumps(order), 0)

        self._on("slow down", vm, act)

    def start_post_copy(self, vm: str) -> None:
        """See Migrations."""

        def act(domain: libvirt.virDomain) -> None:
            if tuple(domain.state()) not in _HALTED:
                domain.migrateStartPostCopy(0)

        self._on("start post-copy of", vm, act)

    def abort_migration(self, vm: str) -> None:
        """See Migrations."""

        with self._moving:
            again = vm in self._aborting
            self._aborting.add(vm)

        def act(domain: libvirt.virDomain) -> None:
            if not _goes_on(domain):
                return
            if again:
                _hang_up(domain)
            try:
                domain.abortJob()
            except libvirt.libvirtError as error:
                if not again:
                    raise
                log.debug("%s: is being aborted already: %s", vm, _words(error))

        self._on("abort the migration of", vm, act)

    def _carry(self, vm: str, route: Route) -> None:
        """The migration from begin to end; in a thread of its own."""
        try:
            ended = self._carried(vm, route)
        except libvirt.libvirtError as error:
            log.info("%s: its migration to %s ended: %s", vm, route.host, _words(error))
            ended = Passage(ended=True, why=_words(error))
        except Exception as error:
            log.exception("%s: a mistake in its migration", vm)
            ended = Passage(ended=True, why=f"a mistake in PVC: {error}")
        with self._moving:
            self._passages[vm] = ended
        self._link.changed()

    def _carried(self, vm: str, route: Route) -> Passage:
        connection = libvirt.open(self._link.uri)
        try:
            connection.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
            domain = connection.lookupByName(vm)
            flags, parameters = _terms(domain, route)
            domain.migrateToURI3(self._peers.uri(route.host, self._peers.daemon), parameters, flags)
            return Passage(ended=True, downtime_ms=_downtime_ms(domain))
        finally:
            connection.close()


def crossing(domain: libvirt.virDomain, state: int, reason: int) -> Crossing:
    """Whether it is between two nodes, by libvirt's state of it."""
    if (state, reason) not in _COMING:
        return Crossing.NONE
    try:
        domain.jobStats()
    except libvirt.libvirtError as error:
        match error.get_error_code():
            case libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
                return Crossing.INCOMING  # what is asked for is known at the other end only
            case libvirt.VIR_ERR_OPERATION_INVALID:
                return Crossing.NONE  # it has just ended
        raise
    return Crossing.OUTGOING if (state, reason) in _HALTED else Crossing.NONE


def _terms(domain: libvirt.virDomain, route: Route) -> tuple[int, dict[str, Any]]:
    """Flags and parameters of the call that migrates."""
    flags = _FLAGS
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{bracketed(route.host)}",
        libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL: THROTTLE_FIRST_PERCENT,
        libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT: THROTTLE_FIRST_PERCENT,
    }
    if route.post_copy:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    if route.files:
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        there, targets = arrivals.with_files(xml, route.files)
        parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = there
        parameters[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = there
        if targets:
            flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
            parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(targets)
    return flags, parameters


def _goes_on(domain: libvirt.virDomain) -> bool:
    """It is being migrated away from here."""
    return domain.isActive() and _passage(domain) is not None


def _hang_up(domain: libvirt.virDomain) -> None:
    """Closes the connections that its disks are copied through. When the other end is gone without
    a word nothing else ends the copying before TCP gives up, a quarter of an hour later, and
    libvirt waits for that. It has no verb for it: QEMU is asked directly."""
    there = json.loads(libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-yank"}', 0))
    ours = [x for x in there["return"] if x.get("node-name", "").startswith(_COPIED_NODES)]
    if ours:
        order = {"execute": "yank", "arguments": {"instances": ours}}
        libvirt_qemu.qemuMonitorCommand(domain, json.dumps(order), 0)


def _passage(domain: libvirt.virDomain) -> Passage | None:
    """How far the migration is that goes on, if one does."""
    try:
        told = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in (
            libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        ):  # fmt: skip
            return None  # it is off, or comes in
        raise
    leaves = told.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    if told.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE or not leaves:
        return None
    state = tuple(domain.state())
    return _read(told, state == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY))


def _read(told: Mapping[str, Any], post_copy: bool) -> Passage:
    page = told.get("memory_page_size", 4096)
    return Passage(
        remaining_bytes=told.get("data_remaining", 0),
        total_bytes=told.get("data_total", 0),
        dirty_bytes_per_s=told.get("memory_dirty_rate", 0) * page,
        copied_bytes_per_s=told.get("memory_bps", 0) + told.get("disk_bps", 0),
        iterations=told.get("memory_iteration", 0),
        throttle_percent=told.get("auto_converge_throttle", 0),
        post_copy=post_copy,
    )


def _downtime_ms(domain: libvirt.virDomain) -> int:
    """How long the pause was of a migration that has just succeeded."""
    try:
        told = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError as error:
        log.debug("%s: libvirt does not know how its migration went: %s", domain.name(), error)
        return 0
    return int(told.get("downtime", 0))


def _abroad(uri: str, vm: str) -> tuple[str, str]:
    """The domain as another node's libvirt has it; and that node's abilities, which take longer to
    be told, where the domain has its very processor."""
    connection = libvirt.open(uri)
    try:
        xml = connection.lookupByName(vm).XMLDesc(0)
        return xml, connection.getCapabilities() if _is_host_processor(xml) else ""
    finally:
        connection.close()


def _is_host_processor(xml: str) -> bool:
    root = ET.fromstring(xml)
    processor = root.find("cpu[@mode='host-passthrough']")
    return processor is not None and root.get("type") == "kvm"


def _unknown_machine(connection: libvirt.virConnect, xml: str) -> tuple[str, ...]:
    """Emulator, machine type and accelerator: one question to libvirt."""
    root = ET.fromstring(xml)
    kind = root.find("os/type")
    assert kind is not None, "a domain has an <os>"
    try:
        connection.getDomainCapabilities(
            root.findtext("devices/emulator"), kind.get("arch"), kind.get("machine"),
            root.get("type"), 0,
        )  # fmt: skip
    except libvirt.libvirtError as error:
        return (f"this node's emulator cannot be its machine: {_words(error)}",)
    return ()


def _unknown_processor(
    connection: libvirt.virConnect, xml: str, capabilities: str
) -> tuple[str, ...]:
    """What is emulated is the same everywhere; with acceleration the node's own must be able to."""
    root = ET.fromstring(xml)
    processor, kind = root.find("cpu"), root.find("os/type")
    if root.get("type") != "kvm" or processor is None or kind is None:
        return ()
    try:
        if _is_host_processor(xml):
            theirs = ET.fromstring(capabilities).find("host/cpu")
            assert theirs is not None, "a host has a <cpu>"
            found = connection.compareCPU(ET.tostring(theirs, encoding="unicode"), 0)
        else:
            found = connection.compareHypervisorCPU(
                root.findtext("devices/emulator"), kind.get("arch"), kind.get("machine"), "kvm",
                ET.tostring(processor, encoding="unicode"),
                libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
            )  # fmt: skip
    except libvirt.libvirtError as error:
        return (f"this node has not its processor: {_words(error)}",)
    if found in (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET):
        return ()
    return ("this node's processor cannot do all that its processor can",)


def _words(error: libvirt.libvirtError) -> str:
    return error.get_error_message() or str(error)

"""What the parts of the libvirt driver share: calls with deadlines, and how one of PVC's domains is
found. Foreign domains are never touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import libvirt

from pvc.core.v1 import reason_pb2
from services.compute.drivers.domain_xml import NAMESPACE
from services.compute.drivers.libvirt_link import DEADLINE_S, Link
from services.compute.drivers.process import Process
from services.mesh.errors import PvcError, not_found

T = TypeVar("T")


class Calls:
    """One connection to libvirt. Thread-safe."""

    def __init__(self, uri: str, pid_directory: Path, deadline_s: float = DEADLINE_S) -> None:
        """pid_directory: where this libvirt keeps its emulators' process ids."""
        self._link = Link(uri, deadline_s)
        self._pid_directory = pid_directory

    def close(self) -> None:
        """Ends the connection."""
        self._link.close()

    def on_event(self, wake: Callable[[], None]) -> None:
        """See Hypervisor."""
        self._link.on_event(wake)

    def on_domain(self, what: str, vm: str, verb: Callable[[libvirt.virDomain], T]) -> T:
        """For kindred drivers: a verb on one of PVC's domains."""
        return self._on(what, vm, verb)

    def _call(
        self, what: str, verb: Callable[[libvirt.virConnect], T], deadline_s: float | None = None
    ) -> T:
        try:
            return self._link.call(what, verb, deadline_s)
        except libvirt.libvirtError as error:
            raise failed(what, error) from error

    def _on(
        self,
        what: str,
        vm: str,
        verb: Callable[[libvirt.virDomain], T],
        deadline_s: float | None = None,
    ) -> T:
        def act(connection: libvirt.virConnect) -> T:
            domain = lookup(connection, vm)
            if domain is None:
                raise not_found(f"vms/{vm}")
            return verb(domain)

        return self._call(f"{what} {vm}", act, deadline_s)

    def _emulator(self, vm: str) -> Process | None:
        """Its process, if this machine's libvirt says which that is."""
        return Process.from_file(self._pid_directory / f"{vm}.pid")


def lookup(connection: libvirt.virConnect, vm: str) -> libvirt.virDomain | None:
    """PVC's domain of that name. Raises ALREADY_EXISTS when the name is a foreign domain's."""
    try:
        domain = connection.lookupByName(vm)
        domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        match error.get_error_code():
            case libvirt.VIR_ERR_NO_DOMAIN:
                return None
            case libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                raise PvcError(
                    reason_pb2.REASON_ALREADY_EXISTS,
                    f"this node's libvirt has a domain {vm} that is not PVC's; "
                    "rename one of the two, or import it",
                ) from error
        raise
    return domain


def failed(what: str, error: libvirt.libvirtError) -> PvcError:
    words = error.get_error_message() or str(error)
    return PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, f"libvirt could not {what}: {words}")

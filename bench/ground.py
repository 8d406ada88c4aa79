"""What the benches measure on: one PVC at a time, with few VMs or with a thousand, and a libvirtd
that knows the same thousand without PVC."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import libvirt
from google.protobuf.message import Message

from bench.figures import check, say
from pvc.compute.v1 import vm_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.drivers.daemon import Daemon
from services.mesh.config import load
from services.mesh.opening import open_store
from services.state.store import Put, Store
from tests.guests.tiny import tiny_disk
from tests.system.rig import TIMEOUT_S, Rig, gib

CROWD = 1000
ROWS_PER_COMMIT = 250
MEMORY_MIB = 128
DISKS = ("root", "data")


class Ground:
    """Gives the benches what they stand on; takes it all away at the end."""

    def __init__(self) -> None:
        self._running: tuple[int, Rig] | None = None
        self._count = 0
        self._libvirt = ExitStack()
        self._crowded: Daemon | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._libvirt:
            self._end()

    def pvc(self, vms: int = 0) -> Rig:
        """A PVC that runs, with so many VMs that are off. It may be used up; the next bench that
        wants one with another number of VMs gets a new one."""
        if self._running is not None and self._running[0] == vms:
            return self._running[1]
        self._end()
        self._count += 1
        name = f"pvcb{os.getpid() % 10_000}x{self._count}"
        rig = Rig(Path("/tmp") / name, name)
        self._running = (vms, rig)
        with_room(rig)
        rig.begin()
        if vms:
            say(f"making a PVC with {vms} VMs")
            crowd(rig, vms)
        return rig

    def plain_libvirt(self, vms: int) -> Daemon:
        """A libvirtd beside PVC's, with as many domains as PVC has VMs, made of the same XML."""
        if self._crowded is None:
            xml = self.pvc(vms).cluster.vms.domain_xml(name_of(0))
            self._crowded = self._libvirt.enter_context(libvirtd("crowd"))
            say(f"defining {vms} domains")
            with connected(self._crowded.uri) as connection:
                for number in range(vms):
                    connection.defineXML(renamed(xml, name_of(number), number))
        return self._crowded

    def _end(self) -> None:
        if self._running is not None:
            rig = self._running[1]
            self._running = None
            rig.close()


def with_room(rig: Rig) -> None:
    """Enough addresses for everybody."""
    text = rig.config.read_text()
    rig.config.write_text(text.replace("[network]", '[network]\ndefault_cidr = "10.64.0.0/20"'))


@contextmanager
def libvirtd(name: str) -> Iterator[Daemon]:
    """A libvirtd of the benches' own."""
    folder = Path(f"/tmp/pvcb{os.getpid() % 10_000}-{name}")
    daemon = Daemon(folder)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop(kill_guests=True)
        shutil.rmtree(folder)


@contextmanager
def connected(uri: str) -> Iterator[libvirt.virConnect]:
    """A connection to a libvirtd."""
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def process_of(daemon: Daemon) -> int:
    """Its process id."""
    return int((daemon.directory / "run" / "libvirtd.pid").read_text())


def add_tiny(rig: Rig) -> None:
    """The tiny guest's disk, which VMs are copied from."""
    rig.add_tiny(tiny_disk())


def spec_of(vm: str, *disks: str) -> vm_pb2.VmSpec:
    """A small VM on the volumes VM-DISK, with an interface."""
    spec = vm_pb2.VmSpec(description=f"the machine {vm} of somebody", tags=["web", "production"])
    spec.memory.memory_mib = MEMORY_MIB
    for order, disk in enumerate(disks, 1):
        spec.disks.add(id=disk, volume=f"pools/local/volumes/{vm}-{disk}", boot_order=order)
    spec.nics.add(id="net0", network="networks/default")
    return spec


def name_of(number: int) -> str:
    """A VM of the crowd; the others are copied from number 0."""
    return f"vm-{number:04}"


def crowd(rig: Rig, vms: int) -> None:
    """Makes a VM as a user would, and as many copies of its rows as are wanted, as PVC itself
    wrote them. Leaves PVC running, calm, with all of them off."""
    first = name_of(0)
    for disk in DISKS:
        rig.cluster.volumes.create(f"local/{first}-{disk}", gib(1 / 64)).result(TIMEOUT_S)
    rig.cluster.vms.create(first, spec_of(first, *DISKS), start=True).result(TIMEOUT_S)
    rig.cluster.vms.stop(first).result(TIMEOUT_S)
    rig.stop()
    store = open_store(load(rig.config))
    try:
        _copy_rows(store, first, vms)
    finally:
        store.close()
    for disk in DISKS:
        (path,) = (rig.pools / "volumes").glob(f"*{first}-{disk}*")
        for number in range(1, vms):
            # Links: nobody ever writes into them, and there are thousands.
            os.link(path, path.with_name(path.name.replace(first, name_of(number))))
    rig.start()
    check(sum(1 for _ in rig.cluster.vms.list()) >= vms, "not all VMs are there")


def _copy_rows(store: Store, first: str, vms: int) -> None:
    snapshot = store.snapshot()
    vm = snapshot.find(vm_pb2.Vm, f"vms/{first}")
    assert vm is not None
    own = f"/{first}-"
    volumes = [row for row in snapshot.rows(storage_pb2.Volume) if own in row.name]
    copies = [renumbered(row, first, number) for number in range(1, vms) for row in (vm, *volumes)]
    for begin in range(0, len(copies), ROWS_PER_COMMIT):
        store.commit([Put(row) for row in copies[begin : begin + ROWS_PER_COMMIT]])


def renumbered(row: Message, first: str, number: int) -> Message:
    """The row as it would be of another VM: every name in it replaced by one of the same length, so
    that the encoding stays right, and new ids."""
    text = row.SerializeToString().replace(first.encode(), name_of(number).encode())
    copy: Any = type(row).FromString(text)
    copy.meta.etag = ""
    copy.meta.uid = f"{number:06}{copy.meta.uid[6:]}"
    if isinstance(copy, vm_pb2.Vm):
        copy.spec.uuid, copy.spec.nics[0].mac = uuid_of(number), mac_of(number)
    return copy  # type: ignore[no-any-return]


def renamed(xml: str, name: str, number: int) -> str:
    """The domain as one that is not PVC's, under another name, on its own addresses."""
    xml = re.sub(r"<metadata>.*?</metadata>", "", xml, flags=re.DOTALL)
    xml = re.sub(r"<name>.*?</name>", f"<name>{name}</name>", xml)
    xml = re.sub(r"<uuid>.*?</uuid>", f"<uuid>{uuid_of(number + CROWD)}</uuid>", xml)
    return re.sub(r'<mac address=".*?"', f'<mac address="{mac_of(number + CROWD)}"', xml)


def uuid_of(number: int) -> str:
    """As libvirt writes them."""
    return str(uuid.UUID(int=(0xB << 76) + number, version=4))


def mac_of(number: int) -> str:
    """Of QEMU's range."""
    return f"52:54:00:bb:{number >> 8:02x}:{number & 255:02x}"

"""What a running domain is made of, against what it would be made of now: what changes live, what
has to wait.

Pure. Both sides come from domain XML by the same reading, so that only real differences show.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from services.compute.core.steps import (
    Attach,
    Detach,
    Kind,
    LiveChange,
    SetMemory,
    SetVcpus,
    UpdateDevice,
    key,
)
from services.compute.drivers.observed import Observed, ObservedDisk, ObservedNic

PLUGGABLE = frozenset({"scsi", "virtio"})
"""Buses whose drives come and go while the domain runs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What separates a running domain from its spec."""

    steps: tuple[LiveChange, ...]
    """To be done now."""
    pending: tuple[str, ...]
    """To be done by a restart, as status.pending_restart names it."""


def difference(
    live: Observed, wish: Observed, tried: Mapping[str, str], refused: Collection[str] = ()
) -> Difference:
    """tried: what this run of the guest was asked already, by key, with its signature; it is not
    asked the same again. refused: keys of those that failed; the others just take their time."""
    pending = [path for path, value in wish.cold.items() if live.cold.get(path) != value]
    steps: list[LiveChange] = []
    _sizes(live, wish, steps, pending)
    _disks(live, wish, steps, pending)
    _nics(live, wish, steps, pending)
    now = [step for step in steps if tried.get(key(step)) != signature(step, wish)]
    left = [key(step) for step in steps if step not in now and key(step) in refused]
    return Difference(tuple(now), tuple(sorted({*pending, *left})))


def signature(step: LiveChange, wish: Observed) -> str:
    """What a live change is to bring about; two with the same one ask the guest for the same."""
    match step:
        case SetVcpus(vcpus):
            return str(vcpus)
        case SetMemory(memory_mib):
            return str(memory_mib)
        case Attach(Kind.DISK, id) | Detach(Kind.DISK, id) | UpdateDevice(Kind.DISK, id):
            return f"{type(step).__name__} {wish.disks.get(id)}"
        case Attach(_, id) | Detach(_, id) | UpdateDevice(_, id):
            return f"{type(step).__name__} {wish.nics.get(id)}"


def _sizes(live: Observed, wish: Observed, steps: list[LiveChange], pending: list[str]) -> None:
    if wish.vcpus > live.max_vcpus:
        pending.append("cpu.vcpus")
    elif wish.vcpus != live.vcpus:
        steps.append(SetVcpus(wish.vcpus, f"{live.vcpus} → {wish.vcpus} processors"))
    if wish.memory_mib > live.max_memory_mib:
        pending.append("memory.memory_mib")
    elif wish.memory_mib != live.memory_mib:
        steps.append(SetMemory(wish.memory_mib, f"{live.memory_mib} → {wish.memory_mib} MiB"))


def _disks(live: Observed, wish: Observed, steps: list[LiveChange], pending: list[str]) -> None:
    for id, disk in live.disks.items():
        if id not in wish.disks and disk.bus in PLUGGABLE:
            steps.append(Detach(Kind.DISK, id, "the spec has it no longer"))
        elif id not in wish.disks:
            pending.append(f"disks.{id}")
    for id, disk in wish.disks.items():
        step = _disk(id, live.disks.get(id), disk)
        if step is not None:
            steps.append(step)
        elif not _alike(live.disks.get(id), disk) or live.disks[id].path != disk.path:
            pending.append(f"disks.{id}")


def _disk(id: str, live: ObservedDisk | None, wish: ObservedDisk) -> LiveChange | None:
    """What brings one drive about; None when nothing does, or nothing is to be done."""
    pluggable = wish.bus in PLUGGABLE
    if live is None:
        return Attach(Kind.DISK, id, "it is new in the spec") if pluggable else None
    if live.path == wish.path or not _alike(live, wish):
        return None
    if wish.device == "cdrom":
        return UpdateDevice(Kind.DISK, id, "another disc")
    return Detach(Kind.DISK, id, "another volume is to take its place") if pluggable else None


def _alike(live: ObservedDisk | None, wish: ObservedDisk) -> bool:
    """The same drive, whatever is in it."""
    return live is not None and replace(live, path="", format="") == replace(
        wish, path="", format=""
    )


def _nics(live: Observed, wish: Observed, steps: list[LiveChange], pending: list[str]) -> None:
    for id in live.nics:
        if id not in wish.nics:
            steps.append(Detach(Kind.NIC, id, "the spec has it no longer"))
    for id, nic in wish.nics.items():
        match live.nics.get(id):
            case None:
                steps.append(Attach(Kind.NIC, id, "it is new in the spec"))
            case there if there == nic:
                continue
            case there if _plug(there) != _plug(nic):
                pending.append(f"nics.{id}")
            case there if there.bridge != nic.bridge:
                steps.append(UpdateDevice(Kind.NIC, id, "another network"))
            case _:
                why = "its cable is pulled" if nic.link_down else "its cable is put in"
                steps.append(UpdateDevice(Kind.NIC, id, why))


def _plug(nic: ObservedNic) -> ObservedNic:
    """What cannot change live of an interface."""
    return replace(nic, bridge="", link_down=False)

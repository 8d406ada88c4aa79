"""What a command would destroy, in words, for the question before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from shell import columns
from shell.measures import size

NAMED_MAX = 20
"""More than so many are counted, not named."""


def listed(names: Iterable[str]) -> str:
    """Names with commas between them; of very many the first and how many more."""
    found = list(names)
    more = len(found) - NAMED_MAX
    return ", ".join(found[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def volume_words(session: Any, names: Sequence[str]) -> list[str]:
    """Volumes with their sizes: "local/web-root (20G, 3.1G written)"; of very many the names."""
    return [
        _volume(session, name) if place < NAMED_MAX else columns.ids(name)
        for place, name in enumerate(names)
    ]


def _volume(session: Any, name: str) -> str:
    from pvc_client.errors import NotFound

    shown = columns.ids(name)
    with suppress(NotFound):
        found = session.cluster.volumes.get(name)
        total, used = found.status.size_bytes or found.spec.size_bytes, found.status.allocated_bytes
        told = [size(total)] if total else []
        told += [f"{size(used)} written"] if used else []
        return f"{shown} ({', '.join(told)})" if told else shown
    return shown


def vm_loss(session: Any, vms: Sequence[Any], volumes: bool) -> str:
    """What goes with VMs, and what stays. volumes: whether theirs go too."""
    there = [disk.volume for vm in vms for disk in vm.spec.disks if disk.volume]
    words = listed(volume_words(session, there) if volumes else map(columns.ids, there))
    told = []
    if volumes:
        told.append(f"Volumes lost for ever: {words or 'none'}.")
    elif there:
        told.append(f"Volumes that stay: {words}.")
    if running := [columns.last(vm.name) for vm in vms if is_on(vm)]:
        told.append(f"Running now: {listed(running)}.")
    few = vms if len(vms) <= NAMED_MAX else []
    snapshots = [one for vm in few for one in session.cluster.vms.snapshots.of(vm.name)]
    if len(vms) > len(few):
        told.append("Snapshots of them go too.")
    if snapshots:
        told.append(f"Snapshots that go: {listed(columns.ids(one.name) for one in snapshots)}.")
    return "".join(f"\n{line}" for line in told)


def is_on(vm: Any) -> bool:
    """Whether a guest would lose something if the power were cut now."""
    word = columns.enum_word(vm.status, "state")
    return word in ("running", "paused", "stopping", "starting")


def node_loss(session: Any, name: str) -> str:
    """What is on a node that is taken out: its VMs, the volumes on its own disks."""
    full = f"nodes/{columns.last(name)}"
    vms = session.cluster.vms.list(filter=f'decision.node = "{full}"', read_mask=["name"])
    pools = session.cluster.pools.list(filter=f'spec.node = "{full}"')
    told = []
    if there := [columns.last(vm.name) for vm in vms]:
        told.append(f"VMs on {columns.last(name)}: {listed(there)}.")
    for pool in pools:
        volumes = list(session.cluster.volumes.list(parent=pool.name))
        if volumes:
            held = sum(one.status.size_bytes or one.spec.size_bytes for one in volumes)
            which = listed(columns.last(one.name) for one in volumes)
            head = f"Pool {columns.last(pool.name)} holds {len(volumes)} volumes ({size(held)})"
            told.append(f"{head}: {which}.")
    return "".join(f"\n{line}" for line in told)


def image_loss(session: Any, names: Sequence[str]) -> str:
    """The volumes behind images, with their sizes."""
    images = [session.cluster.images.get(name) for name in names]
    words = volume_words(session, [one.status.volume for one in images if one.status.volume])
    return f"\nVolumes lost for ever: {listed(words)}." if words else ""


def pool_loss(session: Any, name: str) -> str:
    """The volumes that a pool holds."""
    volumes = list(session.cluster.volumes.list(parent=session.cluster.pools.get(name).name))
    words = volume_words(session, [one.name for one in volumes[:NAMED_MAX]])
    more = f" and {len(volumes) - NAMED_MAX} more" if len(volumes) > NAMED_MAX else ""
    return f"\nIts volumes: {', '.join(words)}{more}." if words else ""

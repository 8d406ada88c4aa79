"""What a VM's spec says of other VMs and of nodes: refused where it names what is not there, or VMs
that wait for each other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.mesh import rows
from services.mesh.errors import refuse
from services.state.store import Put, Snapshot

AFTER = "vm.spec.ha.start_after"
NODES = "vm.spec.placement.nodes"


def check_companions(snapshot: Snapshot, vm: vm_pb2.Vm, before: vm_pb2.Vm | None) -> None:
    """Raises DANGLING_REFERENCE, INVALID_FIELD. What was named before and is gone since is no
    reason to refuse another change."""
    known = before.spec if before is not None else vm_pb2.VmSpec()
    for index, name in enumerate(vm.spec.ha.start_after):
        where = f"{AFTER}[{index}]"
        if name == vm.name:
            refuse(reason_pb2.REASON_INVALID_FIELD, f"{name} cannot start after itself", where)
        if name not in known.ha.start_after and snapshot.find(vm_pb2.Vm, name) is None:
            refuse(reason_pb2.REASON_DANGLING_REFERENCE, f"{name} does not exist", where)
    for index, name in enumerate(vm.spec.placement.nodes):
        if name not in known.placement.nodes and snapshot.find(cluster_pb2.Node, name) is None:
            where = f"{NODES}[{index}]"
            refuse(reason_pb2.REASON_DANGLING_REFERENCE, f"{name} does not exist", where)
    _check_no_circle(snapshot, vm)


def _check_no_circle(snapshot: Snapshot, vm: vm_pb2.Vm) -> None:
    if not vm.spec.ha.start_after:
        return
    after = {row.name: row.spec.ha.start_after for row in snapshot.rows(vm_pb2.Vm)}
    after[vm.name] = vm.spec.ha.start_after
    circle = _way_back(after, vm.name)
    if circle:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{' waits for '.join(circle)}: none of them would ever start; leave one out",
            AFTER,
        )


def _way_back(after: Mapping[str, Sequence[str]], start: str) -> list[str]:
    """The shortest way from a VM to itself by what each starts after; empty when there is none."""
    ways, seen = [[start]], set[str]()
    while ways:
        way = ways.pop(0)
        for name in after.get(way[-1], ()):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def following(snapshot: Snapshot, old: str, new: str) -> Iterator[Put]:
    """Those that start after a VM go on to, when it has another name."""
    for vm in snapshot.rows(vm_pb2.Vm):
        if old in vm.spec.ha.start_after and vm.name != old:
            after = rows.copied(vm)
            names = [new if name == old else name for name in vm.spec.ha.start_after]
            after.spec.ha.start_after[:] = names
            yield Put(after)

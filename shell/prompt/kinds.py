"""The kinds of things that a prompt knows by name: where they are watched, what stands beside their
names, which columns tell most of one. Loads nothing of the contract before it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shell.columns import enum_word, ids, last
from shell.measures import mebibytes, size


@dataclass(frozen=True, slots=True)
class Kind:
    """One collection of the cluster."""

    collection: str
    """As the client has it: "vms"."""
    message: str
    """Where its class is: "pvc.compute.v1.vm_pb2:Vm"."""
    columns: str
    """What of shell.columns shows one; "" for nodes, the columns of which are made."""
    mask: tuple[str, ...]
    """The fields that are kept in memory of each."""
    told: Callable[[Any], str]
    """A few words beside the name."""
    watched: bool = True
    """The contract can watch it; else it is listed when somebody looks."""

    parent: str = ""
    """What it is inside of, for lists."""
    newest: bool = False
    """Names that sort later are newer, and come first when nothing is typed."""

    @property
    def singular(self) -> str:
        """One of them: "vm"."""
        return self.collection.removesuffix("s")

    def type(self) -> Any:
        """The class of its rows."""
        module, _, name = self.message.partition(":")
        return getattr(importlib.import_module(module), name)


def _words(*parts: str) -> str:
    return "  ".join(filter(None, parts))


def vm_told(vm: Any) -> str:
    """ "running  n1", with where it goes while it moves."""
    moves = vm.decision.HasField("migration")
    node = last(vm.decision.node)
    return _words(
        enum_word(vm.status, "state") or "new",
        f"{node} → {last(vm.decision.migration.target)}" if moves else node,
    )


def node_told(node: Any) -> str:
    """ "online", and what is wrong."""
    faults = len(node.status.faults)
    return _words(
        enum_word(node.decision, "state") or "new",
        f"{node.status.cpus} cpus" if node.status.cpus else "",
        mebibytes(node.status.memory_mib),
        f"{faults} fault{'s' if faults > 1 else ''}" if faults else "",
    )


def operation_told(operation: Any) -> str:
    """ "StartVm web  running 40%"."""
    state = enum_word(operation, "state")
    percent = f" {operation.percent}%" if state == "running" else ""
    return _words(f"{last(operation.method)} {ids(operation.target)}", f"{state}{percent}")


def state_told(row: Any) -> str:
    """Its state, for what says no more that matters."""
    return enum_word(row.status, "state")


def volume_told(volume: Any) -> str:
    """ "ready  10 GiB"."""
    bytes = volume.status.size_bytes or volume.spec.size_bytes
    return _words(enum_word(volume.status, "state"), size(bytes))


def pool_told(pool: Any) -> str:
    """ "ready  ceph  1.2 TiB free"."""
    free = size(pool.status.available_bytes)
    driver = pool.spec.WhichOneof("driver") or ""
    return _words(state_told(pool), driver, f"{free} free" if free else "")


def network_told(network: Any) -> str:
    """ "ready  10.0.0.0/24"."""
    return _words(state_told(network), network.spec.ipv4.cidr)


def image_told(image: Any) -> str:
    """ "ready  512 MiB"."""
    return _words(state_told(image), size(image.status.size_bytes))


def token_told(token: Any) -> str:
    """ "operator  for the backup"."""
    return _words(enum_word(token, "role"), token.description)


_NAMED = ("name", "meta.etag")
_STATE = (*_NAMED, "status.state")
KINDS: Mapping[str, Kind] = {
    kind.collection: kind
    for kind in (
        Kind(
            "vms", "pvc.compute.v1.vm_pb2:Vm", "VM",
            (*_STATE, "status.why", "status.vcpus", "status.memory_mib", "status.guest.addresses",
             "spec.cpu.vcpus", "spec.memory", "spec.tags", "spec.disks", "spec.nics",
             "spec.description", "decision.node", "decision.migration.target", "decision.why",
             "decision.power"),
            vm_told,
        ),
        Kind(
            "nodes", "pvc.coordinator.v1.cluster_pb2:Node", "",
            (*_NAMED, "decision.state", "decision.why", "spec.tags", "spec.address",
             "spec.coordinator", "status.version", "status.cpus", "status.memory_mib",
             "status.memory_for_vms_mib", "status.accelerator", "status.faults"),
            node_told,
        ),
        Kind(
            "operations", "pvc.core.v1.operation_pb2:Operation", "OPERATION",
            (*_NAMED, "state", "stage", "percent", "method", "target", "error", "caller", "node"),
            operation_told, newest=True,
        ),
        Kind(
            "networks", "pvc.network.v1.network_pb2:Network", "NETWORK",
            (*_STATE, "status.why", "spec.ipv4", "spec.nat", "spec.description"), network_told,
        ),
        Kind(
            "images", "pvc.provisioner.v1.image_pb2:Image", "IMAGE",
            (*_STATE, "status.why", "status.size_bytes", "spec.pool", "spec.description"),
            image_told,
        ),
        Kind(
            "pools", "pvc.storage.v1.storage_pb2:Pool", "POOL",
            (*_STATE, "status.why", "status.capacity_bytes", "status.available_bytes", "spec"),
            pool_told,
        ),
        Kind(
            "volumes", "pvc.storage.v1.storage_pb2:Volume", "VOLUME",
            (*_STATE, "status.why", "status.size_bytes", "status.allocated_bytes", "status.parent",
             "spec.size_bytes", "spec.format", "spec.description"),
            volume_told,
        ),
        Kind(
            "tokens", "pvc.gateway.v1.token_pb2:Token", "TOKEN",
            ("name", "role", "description", "expire_time"), token_told, watched=False,
        ),
        Kind(
            "events", "pvc.core.v1.event_pb2:Event", "EVENT", ("name",), lambda event: "",
            watched=False,
        ),
    )
}  # fmt: skip
"""By collection."""


def snapshot_told(snapshot: Any) -> str:
    """What its maker said of it."""
    return str(snapshot.description)


INNER: Mapping[str, str] = {
    "vms.snapshots": "pvc.compute.v1.vm_pb2:VmSnapshot",
    "volumes.snapshots": "pvc.storage.v1.storage_pb2:Snapshot",
}
"""Collections inside of things, as the client has them → where the classes of their rows are."""


PARTS: Mapping[str, str] = {"vms.disks": "volume", "vms.nics": "network"}
"""Parts of a VM's spec that have ids → the field that tells most of one."""


def kind_of(key: str) -> Kind:
    """The kind of a collection: "vms", or of one inside of something: "vms.snapshots:web"."""
    path, inside, parent = key.partition(":")
    if not inside:
        return KINDS[path]
    mask = ("name", "description")
    return Kind(path, INNER[path], "", mask, snapshot_told, watched=False, parent=parent)


GROUPS: Mapping[str, str] = {kind.singular: name for name, kind in KINDS.items()}
"""The group of commands about a kind → its collection."""

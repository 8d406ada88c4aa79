"""VMs and stores for the mesh's tests."""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from services.state.memory import MemoryStore
from services.state.store import Put


def vm(vm_id: str, memory_mib: int = 1024, tags: tuple[str, ...] = (), **labels: str) -> vm_pb2.Vm:
    """A running VM with one disk."""
    row = vm_pb2.Vm(name=f"vms/{vm_id}")
    row.meta.labels.update(labels)
    row.meta.create_time.FromJsonString("2026-03-01T12:00:00Z")
    row.spec.memory.memory_mib = memory_mib
    row.spec.tags.extend(tags)
    row.spec.disks.add(id="root", volume=f"pools/a/volumes/{vm_id}")
    row.status.state = vm_pb2.VM_STATE_RUNNING
    return row


def store_with(*rows: vm_pb2.Vm) -> MemoryStore:
    """A store that holds these rows."""
    store = MemoryStore()
    store.commit([Put(row) for row in rows])
    return store


def changed(store: MemoryStore, name: str, memory_mib: int) -> int:
    """Gives a stored VM another memory; returns the revision."""
    row = vm_pb2.Vm()
    there = store.snapshot().find(vm_pb2.Vm, name)
    assert there is not None
    row.CopyFrom(there)
    row.spec.memory.memory_mib = memory_mib
    return store.commit([Put(row)])

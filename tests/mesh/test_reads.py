"""What wakes the loops of the services: a change of a label wakes none that has nothing to do with
it, and a change that concerns one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.jobs import work_of
from services.mesh.loop import Read, parts_of
from services.network.agent import READS as NETWORK
from services.network.core.desired import GUESTS, desired, guest_of
from services.provisioner.sweep import READS as SWEEP
from services.state.memory import MemoryStore
from services.state.store import ANY_VERSION, Put
from services.storage.main import AGENT_READS as STORAGE
from tests.network.worlds import PLACE, network, vm

Operation = operation_pb2.Operation
READERS: dict[str, Sequence[Read]] = {
    "network": NETWORK,
    "sweep": SWEEP,
    "storage": STORAGE,
    "jobs": work_of("storage"),
}


def crowd() -> MemoryStore:
    store = MemoryStore()
    vms = [vm(f"vm{number}", f"52:54:00:00:00:{number:02x}") for number in range(8)]
    volume = storage_pb2.Volume(name="pools/a/volumes/b")
    ended = Operation(name="operations/0", service="storage", state=Operation.STATE_SUCCEEDED)
    rows = [network_pb2.Network(name="networks/default"), *vms, volume, ended]
    store.commit([Put(row) for row in rows])
    return store


def woken(store: MemoryStore, *rows: object) -> set[str]:
    """Whom a commit of these rows wakes."""
    before = {name: parts_of(store.snapshot(), reads) for name, reads in READERS.items()}
    for row in rows:
        row.meta.etag = ANY_VERSION  # type: ignore[attr-defined]
    store.commit([Put(row) for row in rows])  # type: ignore[arg-type]
    return {
        name
        for name, reads in READERS.items()
        if not all(map(is_, before[name], parts_of(store.snapshot(), reads)))
    }


def described(row: vm_pb2.Vm) -> None:
    row.spec.description, row.meta.labels["tier"] = "another", "front"


def stopped(row: vm_pb2.Vm) -> None:
    row.status.state = vm_pb2.VM_STATE_STOPPED


def moved(row: vm_pb2.Vm) -> None:
    row.status.node = "nodes/n9"


def plugged(row: vm_pb2.Vm) -> None:
    row.spec.nics.add(id="net1", network="networks/default", mac="52:54:00:00:01:00")


def given_a_disk(row: vm_pb2.Vm) -> None:
    row.spec.disks.add(id="d", volume="pools/a/volumes/b")


@pytest.mark.parametrize(
    ("change", "whom"),
    [
        (described, set()),
        (stopped, set()),
        (moved, {"network"}),
        (plugged, {"network"}),
        (given_a_disk, {"sweep"}),
    ],
)
def test_a_vm_wakes_those_whom_it_concerns(
    change: Callable[[vm_pb2.Vm], None], whom: set[str]
) -> None:
    store = crowd()
    row = vm("vm3", "52:54:00:00:00:03")
    change(row)
    assert woken(store, row) == whom


def test_an_operation_wakes_its_own_service() -> None:
    store = crowd()
    method = "pvc.compute.v1.VmService/UpdateVm"
    mine = Operation(name="operations/1", service="compute", target="vms/vm3", method=method)
    assert woken(store, mine) == set()
    other = Operation(name="operations/2", service="storage", target="pools/a/volumes/b")
    assert woken(store, other) == {"storage", "jobs", "sweep"}
    other.state = Operation.STATE_FAILED
    assert woken(store, other) == {"storage", "jobs", "sweep"}
    other.percent = 100
    assert woken(store, other) == set(), "it has ended"


def test_a_deletion_of_a_vm_has_it_swept_after() -> None:
    store = crowd()
    method = "pvc.compute.v1.VmService/DeleteVm"
    mine = Operation(name="operations/1", service="compute", target="vms/vm3", method=method)
    assert woken(store, mine) == {"sweep"}


def test_rows_wake_those_who_look_after_them() -> None:
    store = crowd()
    assert woken(store, network_pb2.Network(name="networks/b")) == {"network"}
    assert woken(store, storage_pb2.Volume(name="pools/a/volumes/c")) == {"storage", "sweep"}
    assert woken(store, storage_pb2.Pool(name="pools/a")) == {"storage"}


def test_of_a_vm_networks_depend_on_nothing_but_what_is_read() -> None:
    vms = [vm(f"vm{number}", f"52:54:00:00:00:{number:02x}") for number in range(8)]
    for row in vms:
        row.decision.node, row.status.node = "nodes/n1", "nodes/n2"
        row.spec.description = "whatever"
    guests = [guest for row in vms if (guest := guest_of(row)) is not None]
    assert desired([network()], guests, {}, PLACE) == desired([network()], vms, {}, PLACE)
    assert guest_of(vm_pb2.Vm(name="vms/alone")) is None
    assert crowd().snapshot().extract(GUESTS)[3].name == "vms/vm3"

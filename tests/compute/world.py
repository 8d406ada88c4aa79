"""One node in a process: a store, the real coordinator, the real agent, a fake hypervisor, a clock
that the test moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import meta_pb2, operation_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.agent import Agent
from services.compute.core import edits, requests
from services.compute.guests import Guests
from services.compute.presence import Hardware, Presence
from services.compute.settings import ComputeSettings
from services.coordinator.loop import Coordinator
from services.mesh.clock import sortable_id
from services.mesh.desk import Call
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Put, Snapshot
from tests.compute.fake_hypervisor import TellingHypervisor

Operation = operation_pb2.Operation
NODE = "nodes/n1"
POOL = "pools/local"
NET = "networks/default"
BOOTED = Timestamp(seconds=500)


class ManualClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ids = 0

    def now(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self.seconds * 1e9))
        return stamp

    def monotonic(self) -> float:
        return self.seconds

    def new_id(self) -> str:
        self.ids += 1
        return sortable_id(int(self.seconds * 1000), self.ids)


class World:
    """What tests act on."""

    def __init__(self, directory: Path, parallel: int = 0) -> None:
        self.clock = ManualClock()
        self.cluster = MemoryCluster()
        self.store = MemoryStore(self.cluster)
        self.hypervisor = TellingHypervisor(self.clock.monotonic)
        self.settings = ComputeSettings(NODE, directory, parallel=parallel)
        self.settings.prepare()
        self.coordinator = Coordinator(MemoryStore(self.cluster), self.clock, NODE)
        self.machine = Hardware(4, 8192, "6.1", "boot-1", BOOTED)
        self.restart()
        network = network_pb2.Network(name=NET)
        network.status.state = network_pb2.NetworkStatus.STATE_READY
        network.status.bridge = "br-default"
        pool = storage_pb2.Pool(name=POOL)
        pool.spec.node = NODE
        self.store.commit([Put(network), Put(pool)])
        for name in ("root", "data", "more"):
            self.add_volume(name)
        self.settle()

    def restart(self, store: Any = None) -> None:
        """A fresh agent, as after the death of its process."""
        self.store.lose_session()
        store = store or self.store
        facts = self.hypervisor.facts()
        presence = Presence(store, self.clock, self.settings, facts, self.machine)
        self.agent = Agent(store, self.clock, self.hypervisor, self.settings, facts, presence)
        self.hypervisor.on_event(self.agent.look_again)
        self.guests = Guests(
            store, self.clock, self.hypervisor, NODE, self.agent.memory, parallel=0
        )

    def add_volume(self, name: str, **spec: Any) -> str:
        row = storage_pb2.Volume(name=f"{POOL}/volumes/{name}")
        row.spec.CopyFrom(storage_pb2.VolumeSpec(size_bytes=1 << 30, **spec))
        row.status.state = storage_pb2.VolumeStatus.STATE_READY
        row.status.path = f"/pool/{name}.qcow2"
        row.status.size_bytes = 1 << 30
        self.store.commit([Put(row)])
        return row.name

    @property
    def state(self) -> Snapshot:
        return self.store.snapshot()

    def call(self) -> Call:
        return Call(self.clock.now(), "token ann", NODE, self.clock.new_id)

    def ask(self, plan: Any, request: Any) -> Any:
        """What the service does with a request: plan, commit, answer."""
        mutation = plan(self.state, request, self.call())
        self.store.commit(mutation.changes)
        return mutation.response

    def settle(self, rounds: int = 30) -> None:
        """Coordinator and agent take turns until nothing changes any more."""
        for _ in range(rounds):
            before = (self.state.revision, len(self.hypervisor.told))
            self.coordinator.step()
            self.agent.look_again()
            self.agent.step()
            if before == (self.state.revision, len(self.hypervisor.told)):
                return
        raise AssertionError(f"no calm after {rounds} rounds: {self.hypervisor.told[-10:]}")

    def later(self, seconds: float) -> None:
        """Time passes, and everybody looks again."""
        self.clock.seconds += seconds
        self.settle()

    def vm(self, name: str = "web") -> vm_pb2.Vm:
        row = self.state.find(vm_pb2.Vm, f"vms/{name}")
        assert row is not None, f"{name} is gone"
        return row

    def operation(self, name: str) -> Operation:
        row = self.state.find(Operation, name)
        assert row is not None
        return row

    def create(self, name: str = "web", start: bool = True, **spec: Any) -> Operation:
        request = api.CreateVmRequest(vm_id=name, start=start)
        request.vm.spec.CopyFrom(vm_spec(**spec))
        return self.ask(edits.create, request)  # type: ignore[no-any-return]

    def verb(self, verb: requests.PowerVerb, name: str = "web") -> Operation:
        kind = getattr(api, f"{verb.method}Request")
        return self.ask(requests.power(verb), kind(name=f"vms/{name}"))  # type: ignore[no-any-return]

    def running(self, name: str = "web", **spec: Any) -> vm_pb2.Vm:
        """A VM that was created and runs."""
        self.create(name, **spec)
        self.settle()
        assert self.vm(name).status.state == vm_pb2.VM_STATE_RUNNING, self.vm(name)
        return self.vm(name)


def vm_spec(**given: Any) -> vm_pb2.VmSpec:
    """A small VM with a disk and an interface."""
    spec = vm_pb2.VmSpec()
    spec.disks.add(id="root", volume=f"{POOL}/volumes/root")
    spec.nics.add(id="net0", network=NET)
    spec.MergeFrom(vm_pb2.VmSpec(**given))
    return spec


def meta(**given: Any) -> meta_pb2.Meta:
    return meta_pb2.Meta(**given)

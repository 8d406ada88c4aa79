"""A simulated cluster: machines with the real agents and coordinators on them, one store, a clock.

What is done to it is in `deeds`; what must always be so in `invariants`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.drivers.fake_migration import Wire
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.simulator.clock import SimClock
from tests.simulator.engine import Engine, Process
from tests.simulator.node import SimNode
from tests.simulator.power import REDFISH, address_of
from tests.simulator.store import Ensemble, SimStore
from tests.simulator.world import World

POOL = "pools/shared"
_OPERATION = re.compile(r"operations/[0-9a-z]{26}")


class SimCluster:
    """All of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = Engine()
        self.locks = world.option("locks", "on") == "on"
        timeout_s = float(world.option("timeout", "6"))
        self.ensemble = Ensemble(self.engine, world.seed, timeout_s)
        self.wire = Wire()
        self.owners: dict[str, tuple[str, int]] = {}
        """Session → the machine, and which of its starts, that its process ran in."""
        self.ensemble.session_began = self._session_began
        self.ensemble.session_ended = self._session_ended
        self._leader = ""
        self.log: list[str] = []
        self._numbers: dict[str, int] = {}
        self.listeners: list[tuple[str, str, Callable[[], None]]] = []
        """Process, words, and what is to happen once it says them."""
        self.excused: dict[str, int] = {}
        """VM → the request to run after which it may be off all the same."""
        self.began = 0
        self.began_at = 0.0
        """The line of the log, and the time, at which the script begins."""
        self.accepted: dict[str, str] = {}
        """Operations that users were promised, and what they are."""
        self.on_touched: Callable[[], None] = lambda: None
        self.nodes = {
            thing.name: SimNode(self, number, thing) for number, thing in enumerate(world.nodes)
        }
        self.user = Process(self.engine, "user", "gateway")
        self.user_store = SimStore(self.ensemble, self.user)
        self.user_clock = SimClock(self.engine, 99)
        self._storage = MemoryStore(self.ensemble.cluster)
        self.ensemble.cluster.mirror.on_change(self.look_at_leader)
        self.user_store.commit(list(self._first_rows()))

    def _first_rows(self) -> list[Put]:
        pool = storage_pb2.Pool(name=POOL)
        pool.spec.shared = True
        cluster = cluster_pb2.ClusterIdentity(name="clusters/this", display_name="sim")
        for field in cluster.spec.DESCRIPTOR.fields:
            if (value := self.world.options.get(field.name)) is not None:
                setattr(
                    cluster.spec, field.name, type(getattr(cluster.spec, field.name))(int(value))
                )
        return [Put(pool), Put(cluster), *map(Put, self._node_rows())]

    def _node_rows(self) -> Iterator[cluster_pb2.Node]:
        """The nodes as they are when they were added and have not come yet."""
        for node in self.nodes.values():
            row = cluster_pb2.Node(name=node.name, meta=meta_pb2.Meta(uid=node.name, generation=1))
            row.decision.state = cluster_pb2.NODE_STATE_JOINING
            row.spec.coordinator = node.thing.facts.get("coordinator", "yes") == "yes"
            if node.thing.facts.get("bmc", "yes") != "no":
                row.spec.power_control.protocol = REDFISH
                row.spec.power_control.address = address_of(node.id)
            row.spec.tags.extend(filter(None, node.thing.facts.get("tags", "").split(",")))
            yield row

    def add_volume(self, vm: str) -> str:
        """A volume that any node can open."""
        name = f"{POOL}/volumes/{vm}-root"
        if self.ensemble.snapshot.named(name) is None:
            row = storage_pb2.Volume(name=name, meta=meta_pb2.Meta(uid=name))
            row.spec.size_bytes = 1 << 30
            row.status.state = storage_pb2.VolumeStatus.STATE_READY
            row.status.path = f"/shared/{vm}-root.qcow2"
            row.status.size_bytes = 1 << 30
            self._storage.commit([Put(row)])
            self.user_store.catch_up()
        return name

    def start(self) -> None:
        """All machines have power, all services begin."""
        for node in self.nodes.values():
            node.start_all()

    def _session_began(self, process: str, session: str) -> None:
        node = self.nodes.get(process.partition("/")[0])
        if node is not None:
            self.owners[session] = (node.id, node.machine.boots)

    def _session_ended(self, process: str, session: str) -> None:
        self.tell("store", f"the session of {process} has ended")

    def look_at_leader(self) -> None:
        """Tells of another leader."""
        leader = self.ensemble.snapshot.leases.get("leader", "")
        if leader != self._leader:
            self._leader = leader
            self.tell("store", f"{leader or 'nobody'} leads")

    def with_bmc(self) -> list[SimNode]:
        """Nodes whose power can be switched from outside."""
        return [n for n in self.nodes.values() if n.thing.facts.get("bmc", "yes") != "no"]

    def holder(self, vm: str) -> str:
        """The machine that has a VM's images open."""
        for node in self.nodes.values():
            if vm in node.machine.running():
                return node.id
        return ""

    def runners(self, vm: str) -> list[str]:
        """Machines on which the VM's emulator is there."""
        return [n.id for n in self.nodes.values() if vm in n.machine.running()]

    def touched(self) -> None:
        """A machine or a domain changed."""
        self.on_touched()

    def tell(self, who: str, what: str) -> None:
        """A line of the log."""
        what = _OPERATION.sub(lambda found: self._called(found[0]), what)
        self.log.append(f"{self.engine.now - self.began_at:8.3f} {who}: {what}")

    def entry(self) -> str:
        """The node whose services answer the user."""
        for node in self.nodes.values():
            if node.machine.on:
                return node.name
        return next(iter(self.nodes.values())).name

    def heard(self, process: Process, words: str) -> None:
        """A process said something. What follows may end it there."""
        for listener in [one for one in self.listeners if one[0] == process.name]:
            if listener[1] in words:
                self.listeners.remove(listener)
                listener[2]()

    def _called(self, operation: str) -> str:
        """Operations by number: their ids are long, and say nothing."""
        number = self._numbers.setdefault(operation, len(self._numbers) + 1)
        return f"operation {number}"

    def node_row(self, node: str) -> Any:
        return self.ensemble.snapshot.find(cluster_pb2.Node, f"nodes/{node}")

    def close(self) -> None:
        """Ends everything, strands too."""
        for node in self.nodes.values():
            for process in node.processes.values():
                process.on_death.clear()
                process.die()
        self.engine.close()

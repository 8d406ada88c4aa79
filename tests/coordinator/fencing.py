"""A cluster with a node that is being fenced, a leader's fencer, and fakes for all that it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import secret_pb2
from services.coordinator.controllers import ControllerChecks, Controllers, settings_in
from services.coordinator.core.node_edits import secret_name
from services.coordinator.drivers.fake import FakeController, FakePower, FakeStorageFence
from services.coordinator.fencer import Fencer, pursuits
from services.coordinator.runner import Outcome, Running, made
from services.coordinator.switcher import Switcher
from services.mesh.clock import sortable_id
from services.mesh.enrolment import CLUSTER_KEY_BYTES
from services.mesh.sealing import seal
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Put

KEY = bytes(range(CLUSTER_KEY_BYTES))
REDFISH = cluster_pb2.PowerControl.PROTOCOL_REDFISH


class ManualClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ids = 0

    def now(self) -> Timestamp:
        return Timestamp(seconds=int(self.seconds))

    def monotonic(self) -> float:
        return self.seconds

    def new_id(self) -> str:
        self.ids += 1
        return sortable_id(int(self.seconds * 1000), self.ids)


class Now:
    """A call that was made at once."""

    def __init__(self, outcome: Outcome | None) -> None:
        self._outcome = outcome

    def outcome(self) -> Outcome | None:
        return self._outcome


class AtOnce:
    """See Runner: calls are made at once, and those to whom `hangs` never return."""

    def __init__(self) -> None:
        self.hangs: set[str] = set()
        self.started: list[str] = []

    def start(self, name: str, call: Callable[[], Any]) -> Running:
        self.started.append(name)
        return Now(None if name in self.hangs else made(call))


class Cluster:
    """Node n2 is being fenced by the leader n1; n3 works."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.shared = MemoryCluster()
        self.store = MemoryStore(self.shared)
        self.runner, self.power, self.storage = AtOnce(), FakePower(), FakeStorageFence()
        self.gone_s = 0.0
        self.lease = self.store.acquire("leader", "nodes/n1")
        controllers = Controllers({REDFISH: self.power}, lambda: KEY)
        pursue = pursuits(
            controllers, self.storage, self.runner, self.clock, lambda _s, _n: self.gone_s
        )
        self.fencer = Fencer(self.store, self.clock, "nodes/n1", lambda: self.lease, pursue)
        self.checks = ControllerChecks(
            self.store, self.clock, controllers, self.runner, lambda: self.lease
        )
        self.switcher = Switcher(
            self.store, self.clock, "nodes/n1", lambda: self.lease, controllers, self.runner,
            lambda _node: self.gone_s,
        )  # fmt: skip
        self.storage.uncovered = {}

    def lose(self, name: str = "n2", armed: bool = False) -> None:
        """The node's session ended, and it is being fenced."""
        node = self.node(name)
        node.status.session = f"session of {name}"
        node.decision.state = cluster_pb2.NODE_STATE_FENCING
        node.decision.lost_session = node.status.session
        watchdog = cluster_pb2.WatchdogStatus(
            armed=armed, session=node.status.session, timeout=Duration(seconds=3), device="/dev/w"
        )
        node.status.watchdog.CopyFrom(watchdog)
        self.store.commit([Put(node)])

    def work(self, name: str = "n2") -> MemoryStore:
        """The node is online, and holds its lease."""
        agent = MemoryStore(self.shared)
        assert agent.acquire(f"nodes/{name}", f"nodes/{name}") is not None
        node = self.node(name)
        node.status.session = agent.session()
        node.decision.state = cluster_pb2.NODE_STATE_ONLINE
        self.store.commit([Put(node)])
        return agent

    def control(self, name: str = "n2", trusted: bool = True, **how: Any) -> FakeController:
        """Gives the node a controller."""
        controller = FakeController(password="secret", **how)
        self.power.controllers[f"bmc-{name}"] = controller
        node = self.node(name)
        node.spec.power_control.protocol = REDFISH
        node.spec.power_control.address = f"bmc-{name}"
        secret = secret_pb2.Secret(name=secret_name(node.name))
        secret.sealed = seal(KEY, secret.name, b"secret")
        self.store.commit([Put(secret), Put(node)])
        if trusted:
            node = self.node(name)
            node.decision.controller.trusted = True
            node.decision.controller.settings = settings_in(self.store.snapshot(), node)
            self.store.commit([Put(node)])
        return controller

    def node(self, name: str = "n2") -> cluster_pb2.Node:
        """A copy of the node's row."""
        row = cluster_pb2.Node(name=f"nodes/{name}")
        there = self.store.snapshot().find(cluster_pb2.Node, row.name)
        if there is not None:
            row.CopyFrom(there)
        return row

    def go_on(self, seconds: float = 0.0, every: float = 0.25) -> None:
        """The fencer goes round, once or for a while."""
        self.fencer.step()
        for _ in range(round(seconds / every)):
            self.clock.seconds += every
            self.fencer.step()

    def want_on(self, name: str = "n2", tries: int = 1) -> None:
        """The node is fenced, and it was decided to switch it on."""
        node = self.node(name)
        node.status.session = node.decision.lost_session = f"session of {name}"
        node.decision.state = cluster_pb2.NODE_STATE_FENCED
        node.decision.power_on.tries = tries
        self.store.commit([Put(node)])

    def switch(self, seconds: float = 0.0, every: float = 0.5) -> cluster_pb2.PowerOn:
        """The switcher goes round, once or for a while; gives what it wrote last of n2."""
        self.switcher.step()
        for _ in range(round(seconds / every)):
            self.clock.seconds += every
            self.switcher.step()
        return self.node().decision.power_on

    def proof(self, name: str = "n2") -> tuple[str, str]:
        """Means and session of the proof, empty while there is none."""
        proof = self.node(name).decision.proof
        means = cluster_pb2.ProofMeans.Name(proof.means).removeprefix("PROOF_MEANS_")
        return ("", "") if means == "UNSPECIFIED" else (means, proof.session)

    def attempts(self, name: str = "n2") -> dict[str, cluster_pb2.ProofAttempt]:
        """What is told of the means."""
        return {
            cluster_pb2.ProofMeans.Name(one.means).removeprefix("PROOF_MEANS_"): one
            for one in self.node(name).decision.attempts
        }

"""What happens to VMs and nodes, and when: follows the cluster's own watches, by this machine's
clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster
from pvc_client.errors import PvcError
from pvc_client.resources import Changes


@dataclass(frozen=True, slots=True)
class Moment:
    """Something was seen. time_s: `time.monotonic()`."""

    time_s: float
    subject: str
    state: str
    node: str
    """Of a VM: where."""


class Timeline:
    """Follows a cluster through one node's door until it is closed."""

    def __init__(self, cluster: Cluster) -> None:
        self._moments: list[Moment] = []
        self._news = threading.Condition()
        self._watches: list[Changes[Any]] = [cluster.vms.watch(), cluster.nodes.watch()]
        self._threads = [
            threading.Thread(target=self._follow, args=(watch,), daemon=True)
            for watch in self._watches
        ]
        for thread in self._threads:
            thread.start()

    def wait(
        self, seen: Callable[[Moment], bool], timeout_s: float, since_s: float = 0.0
    ) -> Moment:
        """The first moment of that kind since then. Raises TimeoutError with the last ones."""
        end = time.monotonic() + timeout_s
        with self._news:
            while True:
                for moment in self._moments:
                    if moment.time_s >= since_s and seen(moment):
                        return moment
                if not self._news.wait(end - time.monotonic()):
                    last = "; ".join(f"{m.subject} {m.state}" for m in self._moments[-5:])
                    raise TimeoutError(f"not seen in {timeout_s:.0f} s; the last was: {last}")

    def close(self) -> None:
        """No more."""
        for watch in self._watches:
            watch.close()
        for thread in self._threads:
            thread.join(5.0)

    def _follow(self, watch: Changes[Any]) -> None:
        try:
            for change in watch:
                if change.resource is not None:
                    self._note(moment_of(change.resource))
        except PvcError as error:
            self._note(Moment(time.monotonic(), "watch", f"ended: {error.message}", ""))

    def _note(self, moment: Moment) -> None:
        with self._news:
            self._moments.append(moment)
            self._news.notify_all()


def moment_of(row: object) -> Moment:
    """Of a VM or a node, as it is now."""
    match row:
        case vm_pb2.Vm():
            state = vm_pb2.VmState.Name(row.status.state).removeprefix("VM_STATE_")
            node = row.status.node.removeprefix("nodes/")
            return Moment(time.monotonic(), row.name, state, node)
        case cluster_pb2.Node():
            state = cluster_pb2.NodeState.Name(row.decision.state).removeprefix("NODE_STATE_")
            return Moment(time.monotonic(), row.name, state, "")
    raise TypeError(f"{type(row)} has no moments")

"""A node that was fenced comes back: it ends whatever it runs that it is not to run any more, and
only then says that it knows. Until the cluster has taken that in, it starts nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.compute.drivers.hypervisor import Domain, Hypervisor, Power
from services.compute.standing import Standing
from services.state.store import Lease, Snapshot

log = logging.getLogger("pvc.compute")


class Fenced:
    """What the agent asks before it looks after VMs."""

    def __init__(self, hypervisor: Hypervisor, standing: Standing, node: str) -> None:
        """node: "nodes/n1"."""
        self._hypervisor = hypervisor
        self._standing = standing
        self._node = node

    def holds_up(self, lease: Lease, snapshot: Snapshot, domains: Mapping[str, Domain]) -> bool:
        """True while nothing is to be done for any VM. Raises PvcError when the hypervisor or the
        store does not do its part: it is all done again then."""
        node = snapshot.find(cluster_pb2.Node, self._node)
        if node is None:
            return False
        if node.decision.fences > node.status.fences_seen:
            self._clear(snapshot, domains)
            self._standing.take_in(lease, node.decision.fences)
            return True
        return node.decision.state == cluster_pb2.NODE_STATE_FENCED

    def _clear(self, snapshot: Snapshot, domains: Mapping[str, Domain]) -> None:
        """A domain that runs and that no VM stands behind is left alone: its guest may be all that
        is left of somebody's work. One that is off is what a VM left here that was started
        elsewhere, and deleted there."""
        uuids = {vm.spec.uuid: vm for vm in snapshot.rows(vm_pb2.Vm)}
        for domain in domains.values():
            vm = snapshot.find(vm_pb2.Vm, f"vms/{domain.vm}") or uuids.get(domain.uuid)
            off = domain.power is Power.OFF
            if vm.decision.node == self._node if vm is not None else not off:
                continue
            whose = f"whose VM is {vm.decision.node or 'nobody'}'s now" if vm else "which has no VM"
            log.warning("this node was fenced: ending the domain %s, %s", domain.vm, whose)
            if not off:
                self._hypervisor.destroy(domain.vm)
            self._hypervisor.undefine(domain.vm)

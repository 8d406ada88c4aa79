"""Answers for the cluster as a whole: what it looks like, and how it is to behave."""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2
from pvc.gateway.v1 import gateway_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core import cluster_edits, health
from services.coordinator.core.capacity import load_of
from services.coordinator.core.limits import filled
from services.coordinator.loop import LEADER
from services.coordinator.picture import world_of
from services.mesh import rows
from services.mesh.desk import Context, Desk
from services.mesh.rows import THIS_CLUSTER
from services.state.store import Snapshot

Operation = operation_pb2.Operation
Identity = cluster_pb2.ClusterIdentity


class ClusterService(api_grpc.ClusterServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._name = name

    async def GetCluster(
        self, request: api.GetClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        """See the contract."""
        return cluster_of(await self._desk.fresh(context), self._name)

    async def UpdateCluster(
        self, request: api.UpdateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        """See the contract."""
        answer = await self._desk.mutate(request, Identity, cluster_edits.update, context)
        snapshot = self._desk.store.snapshot()
        cluster = cluster_of(snapshot, self._name)
        if request.validate_only:
            cluster.spec.CopyFrom(filled(answer.spec))
        return cluster


def cluster_of(snapshot: Snapshot, name: str) -> cluster_pb2.Cluster:
    """The cluster at a glance."""
    nodes, vms = list(snapshot.rows(cluster_pb2.Node)), list(snapshot.rows(vm_pb2.Vm))
    cluster = cluster_pb2.Cluster(
        name=name,
        leader=snapshot.leases.get(LEADER, ""),
        revision=snapshot.revision,
        volumes=sum(1 for _ in snapshot.rows(storage_pb2.Volume)),
        images=sum(1 for _ in snapshot.rows(image_pb2.Image)),
        networks=sum(1 for _ in snapshot.rows(network_pb2.Network)),
        running_operations=len(rows.unfinished(snapshot)),
    )
    identity = snapshot.find(Identity, THIS_CLUSTER) or Identity()
    cluster.spec.CopyFrom(filled(identity.spec))
    health.count_nodes(cluster, nodes)
    health.count_vms(cluster, vms)
    health.count_room(cluster, load_of(world_of(snapshot)))
    pools, networks = snapshot.rows(storage_pb2.Pool), snapshot.rows(network_pb2.Network)
    gateways = snapshot.rows(gateway_pb2.Gateway)
    faults = health.faults(cluster.leader, nodes, vms, pools, networks, gateways)
    found = sorted([*faults, *health.no_room(cluster), *health.stance(cluster)], reverse=True)
    cluster.health = found[0][0] if found else cluster_pb2.Cluster.HEALTH_OK
    cluster.faults.extend(text for _, text in found)
    return cluster

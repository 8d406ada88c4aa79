"""One request for every method of the API that is fulfilled when it is asked, and the verb of the
client that asks it. A method without one fails the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as vm
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as coord
from pvc.core.v1 import options_pb2
from pvc.gateway.v1 import access_service_pb2 as access
from pvc.gateway.v1 import audit_service_pb2 as audit
from pvc.network.v1 import network_pb2
from pvc.network.v1 import network_service_pb2 as net
from pvc.provisioner.v1 import provisioner_service_pb2 as prov
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as sto
from tests.contract.stage import VOLUME_BYTES, Stage

Make = Callable[[Stage], Any]
"""Sets the stage, and gives the request; a list of them for a method that takes a stream."""

XML = (
    "<domain type='kvm'><name>old</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64'>hvm</type></os></domain>"
)


def _named(kind: Any, **fields: Any) -> Make:
    """A request that names a VM that is off."""
    return lambda on: kind(name=f"vms/{on.vm()}", **fields)


def _running(kind: Any) -> Make:
    """A request that names a VM that runs."""
    return lambda on: kind(name=f"vms/{on.vm(on=True)}")


def _plain(kind: Any, **fields: Any) -> Make:
    return lambda on: kind(**fields)


def _update_vm(on: Stage) -> vm.UpdateVmRequest:
    there = on.cluster.vms.get(on.vm())
    there.spec.description = "changed"
    there.meta.etag = ""  # its agent may write meanwhile
    return vm.UpdateVmRequest(vm=there, update_mask={"paths": ["spec.description"]})


def _update_network(on: Stage) -> net.UpdateNetworkRequest:
    there = on.cluster.networks.get(on.network())
    there.spec.description = "changed"
    there.meta.etag = ""  # its agent may write meanwhile
    return net.UpdateNetworkRequest(network=there, update_mask={"paths": ["spec.description"]})


def _update_pool(on: Stage) -> sto.UpdatePoolRequest:
    there = on.cluster.pools.get(on.pool())
    there.spec.description = "changed"
    there.meta.etag = ""  # its agent may write meanwhile
    return sto.UpdatePoolRequest(pool=there, update_mask={"paths": ["spec.description"]})


def _update_node(on: Stage) -> coord.UpdateNodeRequest:
    there = on.cluster.nodes.get(on.node())
    there.spec.description = "changed"
    there.meta.etag = ""  # the coordinator may write meanwhile
    return coord.UpdateNodeRequest(node=there, update_mask={"paths": ["spec.description"]})


def _create_network(on: Stage) -> net.CreateNetworkRequest:
    spec = network_pb2.NetworkSpec(ipv4={"cidr": on.subnet()})
    return net.CreateNetworkRequest(network_id=on.fresh("net"), network={"spec": spec})


def _create_pool(on: Stage) -> sto.CreatePoolRequest:
    pool_id = on.fresh("pool")
    spec = storage_pb2.PoolSpec(node="nodes/n1", directory={"path": f"/{pool_id}"})
    return sto.CreatePoolRequest(pool_id=pool_id, pool={"spec": spec})


def _create_volume(on: Stage) -> sto.CreateVolumeRequest:
    spec = storage_pb2.VolumeSpec(size_bytes=VOLUME_BYTES)
    return sto.CreateVolumeRequest(
        parent="pools/local", volume_id=on.fresh("volume"), volume={"spec": spec}
    )


def _attach_disk(on: Stage) -> vm.AttachDiskRequest:
    disk = vm_pb2.DiskSpec(id="more", volume=on.volume())
    return vm.AttachDiskRequest(name=f"vms/{on.vm(on=True)}", disk=disk)


def _attach_nic(on: Stage) -> vm.AttachNicRequest:
    nic = vm_pb2.NicSpec(id="more", network="networks/default")
    return vm.AttachNicRequest(name=f"vms/{on.vm(on=True)}", nic=nic)


def _create_snapshot(on: Stage) -> sto.CreateSnapshotRequest:
    return sto.CreateSnapshotRequest(parent=on.volume(), snapshot_id=on.fresh("snapshot"))


def _build_image(on: Stage) -> prov.BuildImageRequest:
    return prov.BuildImageRequest(
        image_id=on.fresh("image"), recipe_id="debian-12", pool="pools/local"
    )


def _import_volume(on: Stage) -> sto.ImportVolumeRequest:
    return sto.ImportVolumeRequest(
        parent="pools/local", volume_id=on.fresh("volume"), file=on.file()
    )


def _create_vm_snapshot(on: Stage) -> vm.CreateVmSnapshotRequest:
    return vm.CreateVmSnapshotRequest(
        parent=f"vms/{on.vm_with_disk()}", snapshot_id=on.fresh("snapshot")
    )


def _vm_snapshot_of(on: Stage) -> str:
    return on.vm_snapshot().rpartition("/snapshots/")[0]


def _clone_vm(on: Stage) -> vm.CloneVmRequest:
    return vm.CloneVmRequest(name=f"vms/{on.vm_with_disk()}", vm_id=on.fresh("vm"))


def _volume_list(on: Stage, kind: Any, parent: str) -> Any:
    on.volume()
    return kind(parent=parent)


CASES: Mapping[str, Make] = {
    "VmService/GetVm": _named(vm.GetVmRequest),
    "VmService/ListVms": _plain(vm.ListVmsRequest),
    "VmService/WatchVms": _plain(vm.WatchVmsRequest),
    "VmService/CreateVm": lambda on: vm.CreateVmRequest(vm_id=on.fresh("vm"), vm={"spec": {}}),
    "VmService/UpdateVm": _update_vm,
    "VmService/DeleteVm": _named(vm.DeleteVmRequest),
    "VmService/StartVm": _named(vm.StartVmRequest),
    "VmService/ShutdownVm": _running(vm.ShutdownVmRequest),
    "VmService/StopVm": _running(vm.StopVmRequest),
    "VmService/RebootVm": _running(vm.RebootVmRequest),
    "VmService/ResetVm": _running(vm.ResetVmRequest),
    "VmService/PauseVm": _running(vm.PauseVmRequest),
    "VmService/ResumeVm": lambda on: vm.ResumeVmRequest(name=f"vms/{on.paused_vm()}"),
    "VmService/RenameVm": lambda on: vm.RenameVmRequest(
        name=f"vms/{on.vm()}", new_vm_id=on.fresh("vm")
    ),
    "VmService/CloneVm": _clone_vm,
    "VmService/AttachDisk": _attach_disk,
    "VmService/DetachDisk": lambda on: vm.DetachDiskRequest(
        name=f"vms/{on.vm_with_disk()}", disk_id="data"
    ),
    "VmService/AttachNic": _attach_nic,
    "VmService/DetachNic": lambda on: vm.DetachNicRequest(
        name=f"vms/{on.vm_with_nic()}", nic_id="net0"
    ),
    "VmService/ImportVm": lambda on: vm.ImportVmRequest(xml=XML, vm_id=on.fresh("vm")),
    "VmService/GetDomainXml": _named(vm.GetDomainXmlRequest),
    "VmService/CreateVmSnapshot": _create_vm_snapshot,
    "VmService/ListVmSnapshots": lambda on: vm.ListVmSnapshotsRequest(parent=_vm_snapshot_of(on)),
    "VmService/DeleteVmSnapshot": lambda on: vm.DeleteVmSnapshotRequest(name=on.vm_snapshot()),
    "VmService/RollbackVmSnapshot": lambda on: vm.RollbackVmSnapshotRequest(name=on.vm_snapshot()),
    "VmService/AttachConsole": lambda on: [
        vm.AttachConsoleRequest(name=f"vms/{on.vm(on=True)}"),
        vm.AttachConsoleRequest(data=b"hello"),
    ],
    "VmService/ReadConsoleLog": _running(vm.ReadConsoleLogRequest),
    "NodeService/GetNode": _plain(coord.GetNodeRequest, name="nodes/n1"),
    "NodeService/ListNodes": _plain(coord.ListNodesRequest),
    "NodeService/WatchNodes": _plain(coord.WatchNodesRequest),
    "NodeService/AddNode": lambda on: coord.AddNodeRequest(
        node_id=on.fresh("node"), address=f"10.7.0.{on.fresh('x')[2:]}"
    ),
    "NodeService/JoinNode": lambda on: on.joining(),
    "NodeService/UpdateNode": _update_node,
    "NodeService/RemoveNode": lambda on: coord.RemoveNodeRequest(name=on.added_node().node.name),
    "NodeService/DrainNode": lambda on: coord.DrainNodeRequest(name=on.node()),
    "NodeService/ReadyNode": lambda on: coord.ReadyNodeRequest(name=on.node()),
    "NodeService/PromoteNode": lambda on: coord.PromoteNodeRequest(name=on.added_node().node.name),
    "NodeService/DemoteNode": lambda on: coord.DemoteNodeRequest(name=on.node()),
    "NodeService/LeadNode": _plain(coord.LeadNodeRequest, name="nodes/n1"),
    "NodeService/ConfirmNodeDead": lambda on: coord.ConfirmNodeDeadRequest(
        name=on.node(cluster_pb2.NODE_STATE_UNKNOWN), why="pulled both plugs"
    ),
    "NodeService/CheckNodePower": lambda on: coord.CheckNodePowerRequest(name=on.controlled_node()),
    "ClusterService/GetCluster": _plain(coord.GetClusterRequest),
    "ClusterService/UpdateCluster": lambda on: coord.UpdateClusterRequest(
        spec={"fence_delay_ms": 400 + int(on.fresh("x")[2:])},
        update_mask={"paths": ["fence_delay_ms"]},
    ),
    "PlacementService/MigrateVm": lambda on: coord.MigrateVmRequest(name=on.small_vm()),
    "PlacementService/MoveVm": lambda on: coord.MoveVmRequest(name=on.small_vm()),
    "PlacementService/UnmigrateVm": lambda on: coord.UnmigrateVmRequest(name=on.moved_vm()),
    "PlacementService/ExplainVm": _named(coord.ExplainVmRequest),
    "PlacementService/PlanBalance": _plain(coord.PlanBalanceRequest),
    "PlacementService/BalanceCluster": _plain(coord.BalanceClusterRequest),
    "OperationService/GetOperation": lambda on: coord.GetOperationRequest(name=on.operation()),
    "OperationService/ListOperations": _plain(coord.ListOperationsRequest),
    "OperationService/WatchOperations": _plain(coord.WatchOperationsRequest),
    "OperationService/WaitOperation": lambda on: coord.WaitOperationRequest(
        name=on.operation(), timeout={"seconds": 1}
    ),
    "OperationService/CancelOperation": lambda on: coord.CancelOperationRequest(
        name=on.operation()
    ),
    "EventService/ListEvents": _plain(coord.ListEventsRequest),
    "EventService/WatchEvents": _plain(coord.WatchEventsRequest),
    "AccessService/WhoAmI": _plain(access.WhoAmIRequest),
    "AccessService/CreateToken": lambda on: access.CreateTokenRequest(
        token_id=on.fresh("token"), role=options_pb2.ROLE_VIEWER
    ),
    "AccessService/GetToken": lambda on: access.GetTokenRequest(name=on.token()),
    "AccessService/ListTokens": _plain(access.ListTokensRequest),
    "AccessService/DeleteToken": lambda on: access.DeleteTokenRequest(name=on.token()),
    "AccessService/WatchTokens": _plain(access.WatchTokensRequest),
    "AccessService/UpdateToken": lambda on: access.UpdateTokenRequest(
        token={"name": on.token(), "description": "changed"}
    ),
    "AuditService/GetAuditEntry": lambda on: audit.GetAuditEntryRequest(name=on.audit_entry()),
    "AuditService/ListAuditEntries": lambda on: audit.ListAuditEntriesRequest(
        filter=f'target = "{on.audited()}"'
    ),
    "AuditService/WatchAuditEntries": lambda on: audit.WatchAuditEntriesRequest(
        filter=f'target = "{on.audited()}"'
    ),
    "NetworkService/GetNetwork": lambda on: net.GetNetworkRequest(name=on.network()),
    "NetworkService/ListNetworks": _plain(net.ListNetworksRequest),
    "NetworkService/WatchNetworks": _plain(net.WatchNetworksRequest),
    "NetworkService/CreateNetwork": _create_network,
    "NetworkService/UpdateNetwork": _update_network,
    "NetworkService/DeleteNetwork": lambda on: net.DeleteNetworkRequest(name=on.network()),
    "ProvisionerService/GetImage": lambda on: prov.GetImageRequest(name=on.image()),
    "ProvisionerService/ListImages": _plain(prov.ListImagesRequest),
    "ProvisionerService/WatchImages": _plain(prov.WatchImagesRequest),
    "ProvisionerService/ListRecipes": _plain(prov.ListRecipesRequest),
    "ProvisionerService/BuildImage": _build_image,
    "ProvisionerService/ImportImage": lambda on: prov.ImportImageRequest(
        image_id=on.fresh("image"), file=on.file(), pool="pools/local"
    ),
    "ProvisionerService/DeleteImage": lambda on: prov.DeleteImageRequest(name=on.image()),
    "ProvisionerService/ProvisionVm": lambda on: prov.ProvisionVmRequest(
        vm_id=on.fresh("vm"), image=on.image(), start=True
    ),
    "StorageService/GetPool": _plain(sto.GetPoolRequest, name="pools/local"),
    "StorageService/ListPools": _plain(sto.ListPoolsRequest),
    "StorageService/WatchPools": _plain(sto.WatchPoolsRequest),
    "StorageService/CreatePool": _create_pool,
    "StorageService/UpdatePool": _update_pool,
    "StorageService/DeletePool": lambda on: sto.DeletePoolRequest(name=on.pool()),
    "StorageService/GetVolume": lambda on: sto.GetVolumeRequest(name=on.volume()),
    "StorageService/ListVolumes": lambda on: _volume_list(on, sto.ListVolumesRequest, "pools/-"),
    "StorageService/WatchVolumes": lambda on: _volume_list(
        on, sto.WatchVolumesRequest, "pools/local"
    ),
    "StorageService/CreateVolume": _create_volume,
    "StorageService/ResizeVolume": lambda on: sto.ResizeVolumeRequest(
        name=on.volume(), size_bytes=2 * VOLUME_BYTES
    ),
    "StorageService/RenameVolume": lambda on: sto.RenameVolumeRequest(
        name=on.volume(), new_volume_id=on.fresh("volume")
    ),
    "StorageService/DeleteVolume": lambda on: sto.DeleteVolumeRequest(name=on.volume()),
    "StorageService/ImportVolume": _import_volume,
    "StorageService/ExportVolume": lambda on: sto.ExportVolumeRequest(name=on.volume()),
    "StorageService/GetSnapshot": lambda on: sto.GetSnapshotRequest(name=on.snapshot()),
    "StorageService/ListSnapshots": lambda on: sto.ListSnapshotsRequest(
        parent=on.snapshot().rpartition("/snapshots/")[0]
    ),
    "StorageService/CreateSnapshot": _create_snapshot,
    "StorageService/DeleteSnapshot": lambda on: sto.DeleteSnapshotRequest(name=on.snapshot()),
    "StorageService/RollbackSnapshot": lambda on: sto.RollbackSnapshotRequest(name=on.snapshot()),
    "StorageService/UploadFile": lambda on: on.uploading(),
    "StorageService/DownloadFile": lambda on: sto.DownloadFileRequest(name=on.file()),
    "StorageService/DeleteFile": lambda on: sto.DeleteFileRequest(name=on.file()),
}

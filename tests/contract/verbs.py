"""How the client asks for what a request says: method of the API → verb of `pvc_client`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pvc.storage.v1 import storage_service_pb2 as sto
from pvc_client import Cluster
from tests.provisioner.worlds import qcow2

Verb = Callable[[Cluster, Any, Path], Any]
"""Gives what the verb gives. The path is a folder for files."""


def _opening(changes: Any) -> list[Any]:
    """What a watch begins with, up to its first bookmark."""
    found = []
    for change in changes:
        if change.resource is None:
            changes.close()
            return found
        found.append(change.resource)
    raise AssertionError("a watch ended by itself")


def _typed(cluster: Cluster, requests: Any) -> bytes:
    first, typed = requests
    with cluster.vms.console(first.name) as console:
        console.write(typed.data)
        return console.read()


def _uploaded(cluster: Cluster, folder: Path) -> Any:
    path = folder / "up.qcow2"
    path.write_bytes(qcow2())
    return cluster.files.upload(path)


def _downloaded(cluster: Cluster, name: str, folder: Path) -> bytes:
    path = folder / "down.qcow2"
    size = len(qcow2())
    cluster.files.download(sto.FileInfo(name=name, size_bytes=size), path)
    return path.read_bytes()


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _import(c: Cluster, r: Any, _: Path) -> Any:
    return c.volumes.import_file(f"{r.parent}/volumes/{r.volume_id}", r.file)


VERBS: Mapping[str, Verb] = {
    "VmService/GetVm": lambda c, r, _: c.vms.get(r.name),
    "VmService/ListVms": lambda c, r, _: list(c.vms.list()),
    "VmService/WatchVms": lambda c, r, _: _opening(c.vms.watch()),
    "VmService/CreateVm": lambda c, r, _: c.vms.create(r.vm_id, r.vm.spec),
    "VmService/UpdateVm": lambda c, r, _: c.vms.update(r.vm, tuple(r.update_mask.paths)),
    "VmService/DeleteVm": lambda c, r, _: c.vms.delete(r.name),
    "VmService/StartVm": lambda c, r, _: c.vms.start(r.name),
    "VmService/ShutdownVm": lambda c, r, _: c.vms.shutdown(r.name),
    "VmService/StopVm": lambda c, r, _: c.vms.stop(r.name),
    "VmService/RebootVm": lambda c, r, _: c.vms.reboot(r.name),
    "VmService/ResetVm": lambda c, r, _: c.vms.reset(r.name),
    "VmService/PauseVm": lambda c, r, _: c.vms.pause(r.name),
    "VmService/ResumeVm": lambda c, r, _: c.vms.resume(r.name),
    "VmService/RenameVm": lambda c, r, _: c.vms.rename(r.name, r.new_vm_id),
    "VmService/CloneVm": lambda c, r, _: c.vms.clone(r.name, r.vm_id),
    "VmService/AttachDisk": lambda c, r, _: c.vms.attach_disk(r.name, r.disk),
    "VmService/DetachDisk": lambda c, r, _: c.vms.detach_disk(r.name, r.disk_id),
    "VmService/AttachNic": lambda c, r, _: c.vms.attach_nic(r.name, r.nic),
    "VmService/DetachNic": lambda c, r, _: c.vms.detach_nic(r.name, r.nic_id),
    "VmService/ImportVm": lambda c, r, _: c.vms.import_xml(r.xml, r.vm_id),
    "VmService/GetDomainXml": lambda c, r, _: c.vms.domain_xml(r.name),
    "VmService/CreateVmSnapshot": lambda c, r, _: c.vms.snapshots.create(
        f"{_id(r.parent)}/{r.snapshot_id}"
    ),
    "VmService/ListVmSnapshots": lambda c, r, _: list(c.vms.snapshots.of(r.parent)),
    "VmService/DeleteVmSnapshot": lambda c, r, _: c.vms.snapshots.delete(r.name),
    "VmService/RollbackVmSnapshot": lambda c, r, _: c.vms.snapshots.rollback(r.name),
    "VmService/AttachConsole": lambda c, r, _: _typed(c, r),
    "VmService/ReadConsoleLog": lambda c, r, _: list(c.vms.console_log(r.name)),
    "NodeService/GetNode": lambda c, r, _: c.nodes.get(r.name),
    "NodeService/ListNodes": lambda c, r, _: list(c.nodes.list()),
    "NodeService/WatchNodes": lambda c, r, _: _opening(c.nodes.watch()),
    "NodeService/AddNode": lambda c, r, _: c.nodes.add(r.node_id, r.address),
    "NodeService/JoinNode": lambda c, r, _: c.nodes.join(
        r.name, r.secret, r.certificate_request, r.version
    ),
    "NodeService/UpdateNode": lambda c, r, _: c.nodes.update(r.node, r.update_mask.paths),
    "NodeService/RemoveNode": lambda c, r, _: c.nodes.remove(r.name),
    "NodeService/DrainNode": lambda c, r, _: c.nodes.drain(r.name),
    "NodeService/ReadyNode": lambda c, r, _: c.nodes.ready(r.name),
    "NodeService/PromoteNode": lambda c, r, _: c.nodes.promote(r.name),
    "NodeService/DemoteNode": lambda c, r, _: c.nodes.demote(r.name),
    "NodeService/LeadNode": lambda c, r, _: c.nodes.lead(r.name),
    "NodeService/ConfirmNodeDead": lambda c, r, _: c.nodes.confirm_dead(r.name, r.why),
    "NodeService/CheckNodePower": lambda c, r, _: c.nodes.check_power(r.name),
    "ClusterService/GetCluster": lambda c, r, _: c.status(),
    "ClusterService/UpdateCluster": lambda c, r, _: c.update(r.spec, r.update_mask.paths),
    "PlacementService/MigrateVm": lambda c, r, _: c.vms.migrate(r.name, to=r.node),
    "PlacementService/MoveVm": lambda c, r, _: c.vms.move(r.name, to=r.node),
    "PlacementService/UnmigrateVm": lambda c, r, _: c.vms.unmigrate(r.name),
    "PlacementService/ExplainVm": lambda c, r, _: c.vms.explain(r.name),
    "PlacementService/PlanBalance": lambda c, r, _: c.plan_balance(),
    "PlacementService/BalanceCluster": lambda c, r, _: c.balance(),
    "OperationService/GetOperation": lambda c, r, _: c.operations.get(r.name),
    "OperationService/ListOperations": lambda c, r, _: list(c.operations.list()),
    "OperationService/WatchOperations": lambda c, r, _: _opening(c.operations.watch()),
    "OperationService/WaitOperation": lambda c, r, _: c.operations.wait(r.name, 1),
    "OperationService/CancelOperation": lambda c, r, _: c.operations.cancel(r.name),
    "EventService/ListEvents": lambda c, r, _: list(c.events.list()),
    "EventService/WatchEvents": lambda c, r, _: _opening(c.events.watch()),
    "AccessService/WhoAmI": lambda c, r, _: c.whoami(),
    "AccessService/CreateToken": lambda c, r, _: c.tokens.create(r.token_id, r.role),
    "AccessService/GetToken": lambda c, r, _: c.tokens.get(r.name),
    "AccessService/ListTokens": lambda c, r, _: list(c.tokens.list()),
    "AccessService/DeleteToken": lambda c, r, _: c.tokens.delete(r.name),
    "AccessService/WatchTokens": lambda c, r, _: _opening(c.tokens.watch()),
    "AccessService/UpdateToken": lambda c, r, _: c.tokens.update(r.token),
    "AuditService/GetAuditEntry": lambda c, r, _: c.audit.get(r.name),
    "AuditService/ListAuditEntries": lambda c, r, _: list(c.audit.list(filter=r.filter)),
    "AuditService/WatchAuditEntries": lambda c, r, _: _opening(c.audit.watch(filter=r.filter)),
    "NetworkService/GetNetwork": lambda c, r, _: c.networks.get(r.name),
    "NetworkService/ListNetworks": lambda c, r, _: list(c.networks.list()),
    "NetworkService/WatchNetworks": lambda c, r, _: _opening(c.networks.watch()),
    "NetworkService/CreateNetwork": lambda c, r, _: c.networks.create(r.network_id, r.network.spec),
    "NetworkService/UpdateNetwork": lambda c, r, _: c.networks.update(
        r.network, tuple(r.update_mask.paths)
    ),
    "NetworkService/DeleteNetwork": lambda c, r, _: c.networks.delete(r.name),
    "ProvisionerService/GetImage": lambda c, r, _: c.images.get(r.name),
    "ProvisionerService/ListImages": lambda c, r, _: list(c.images.list()),
    "ProvisionerService/WatchImages": lambda c, r, _: _opening(c.images.watch()),
    "ProvisionerService/ListRecipes": lambda c, r, _: c.images.recipes(),
    "ProvisionerService/BuildImage": lambda c, r, _: c.images.build(
        r.image_id, pool=r.pool, recipe_id=r.recipe_id
    ),
    "ProvisionerService/ImportImage": lambda c, r, _: c.images.import_file(
        r.image_id, r.file, pool=r.pool
    ),
    "ProvisionerService/DeleteImage": lambda c, r, _: c.images.delete(r.name),
    "ProvisionerService/ProvisionVm": lambda c, r, _: c.vms.provision(
        r.vm_id, r.image, start=r.start
    ),
    "StorageService/GetPool": lambda c, r, _: c.pools.get(r.name),
    "StorageService/ListPools": lambda c, r, _: list(c.pools.list()),
    "StorageService/WatchPools": lambda c, r, _: _opening(c.pools.watch()),
    "StorageService/CreatePool": lambda c, r, _: c.pools.create(r.pool_id, r.pool.spec),
    "StorageService/UpdatePool": lambda c, r, _: c.pools.update(r.pool, r.update_mask.paths),
    "StorageService/DeletePool": lambda c, r, _: c.pools.delete(r.name),
    "StorageService/GetVolume": lambda c, r, _: c.volumes.get(r.name),
    "StorageService/ListVolumes": lambda c, r, _: list(c.volumes.list()),
    "StorageService/WatchVolumes": lambda c, r, _: _opening(c.volumes.watch(parent="local")),
    "StorageService/CreateVolume": lambda c, r, _: c.volumes.create(
        f"{r.parent}/volumes/{r.volume_id}", r.volume.spec
    ),
    "StorageService/ResizeVolume": lambda c, r, _: c.volumes.resize(r.name, r.size_bytes),
    "StorageService/RenameVolume": lambda c, r, _: c.volumes.rename(r.name, r.new_volume_id),
    "StorageService/DeleteVolume": lambda c, r, _: c.volumes.delete(r.name),
    "StorageService/ImportVolume": _import,
    "StorageService/ExportVolume": lambda c, r, _: c.volumes.export(r.name),
    "StorageService/GetSnapshot": lambda c, r, _: c.volumes.snapshots.get(r.name),
    "StorageService/ListSnapshots": lambda c, r, _: list(c.volumes.snapshots.list(parent=r.parent)),
    "StorageService/CreateSnapshot": lambda c, r, _: c.volumes.snapshots.create(
        f"{r.parent}/snapshots/{r.snapshot_id}"
    ),
    "StorageService/DeleteSnapshot": lambda c, r, _: c.volumes.snapshots.delete(r.name),
    "StorageService/RollbackSnapshot": lambda c, r, _: c.volumes.snapshots.rollback(r.name),
    "StorageService/UploadFile": lambda c, r, folder: _uploaded(c, folder),
    "StorageService/DownloadFile": lambda c, r, folder: _downloaded(c, r.name, folder),
    "StorageService/DeleteFile": lambda c, r, _: c.files.delete(r.name),
}

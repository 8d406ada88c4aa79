"""NetworkService: what a user may ask of networks. It writes what is wanted and never acts; the
agent does, and ends the operations that are begun here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1 import network_service_pb2 as api
from pvc.network.v1.network_pb2 import Network, NetworkSpec
from pvc.network.v1.network_service_pb2_grpc import NetworkServiceServicer
from services.mesh import rows
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import PvcError, not_found, refuse
from services.network.core import naming
from services.network.core.desired import GUESTS, users
from services.network.core.outcome import METHOD
from services.network.core.overlay import free_vni, vni_of
from services.network.core.spec import filled, mistakes, overlaps, revised, subnet_of
from services.state.store import Put, Snapshot

SERVICE = "network"
DEFAULT = "default"


class NetworkService(NetworkServiceServicer):
    """Answers for the networks of the cluster."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetNetwork(self, request: api.GetNetworkRequest, context: Context) -> Network:
        """See the contract."""
        return await self._desk.get(Network, request, context)

    async def ListNetworks(
        self, request: api.ListNetworksRequest, context: Context
    ) -> api.ListNetworksResponse:
        """See the contract."""
        return await self._desk.list(Network, request, api.ListNetworksResponse, context)

    async def WatchNetworks(
        self, request: api.WatchNetworksRequest, context: Context
    ) -> AsyncIterator[api.WatchNetworksResponse]:
        """See the contract."""
        async for change in self._desk.watch(Network, request, api.WatchNetworksResponse, context):
            yield change

    async def CreateNetwork(self, request: api.CreateNetworkRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, create_network, context)

    async def UpdateNetwork(self, request: api.UpdateNetworkRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, update_network, context)

    async def DeleteNetwork(self, request: api.DeleteNetworkRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, delete_network, context)


def default_network(call: Call, cidr: str) -> Network:
    """The network that a cluster begins with: NAT to the outside, addresses from `cidr`."""
    spec = NetworkSpec(description="made with the cluster", nat=True)
    spec.ipv4.cidr = cidr
    row = _new_network(DEFAULT, Network(spec=spec), call, field="network.default_cidr")
    row.spec.vni = free_vni(row, ())
    return row


def create_network(snapshot: Snapshot, request: api.CreateNetworkRequest, call: Call) -> Mutation:
    """Raises ALREADY_EXISTS, INVALID_FIELD, IN_USE."""
    row = _new_network(request.network_id, request.network, call)
    if snapshot.find(Network, row.name) is not None:
        text = f"{row.name} exists: take another network_id, or change the network"
        refuse(reason_pb2.REASON_ALREADY_EXISTS, text, "network_id")
    _number(row, snapshot)
    _check_overlap(row, snapshot)
    operation = _operation(request, row, "CreateNetwork", call)
    return Mutation([Put(row), Put(operation)], _answer(request, operation))


def _number(row: Network, snapshot: Snapshot) -> None:
    """Gives a new network its overlay's number. Raises IN_USE for one that another network has."""
    others = list(snapshot.rows(Network))
    for other in others:
        if row.spec.vni and vni_of(other) == row.spec.vni:
            text = f"{other.name} has the number {row.spec.vni}: take another, or leave it out"
            refuse(reason_pb2.REASON_IN_USE, text, "network.spec.vni")
    row.spec.vni = row.spec.vni or free_vni(row, others)


def update_network(snapshot: Snapshot, request: api.UpdateNetworkRequest, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, INVALID_FIELD, IN_USE."""
    before = _present(snapshot, request.network.name, "network.name")
    rows.check_etag(before, request.network.meta.etag, "network.meta.etag")
    if before.meta.HasField("delete_time"):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{before.name} is being removed", "network.name")
    row = _merged(before, request)
    if row.spec.vni != before.spec.vni:
        text = "the number of a network's overlay never changes: make a new network"
        refuse(reason_pb2.REASON_IMMUTABLE_FIELD, text, "network.spec.vni")
    _check_spec(row.spec)
    _check_overlap(row, snapshot)
    _check_unused_parts(before, row, snapshot)
    if row.spec != before.spec:
        row.meta.generation += 1
        row.meta.update_time.CopyFrom(call.now)
    operation = _operation(request, row, "UpdateNetwork", call)
    return Mutation([Put(row), Put(operation)], _answer(request, operation))


def delete_network(snapshot: Snapshot, request: api.DeleteNetworkRequest, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, IN_USE."""
    row = rows.copied(_present(snapshot, request.name, "name"))
    rows.check_etag(row, request.etag)
    so = "it cannot be removed: remove their interfaces on it first"
    _check_unused(row, snapshot, "name", so)
    if not row.meta.HasField("delete_time"):
        row.meta.delete_time.CopyFrom(call.now)
    operation = _operation(request, row, "DeleteNetwork", call)
    return Mutation([Put(row), Put(operation)], _answer(request, operation))


def _new_network(
    network_id: str, asked: Network, call: Call, field: str = "network.spec"
) -> Network:
    try:
        naming.check_network_id(network_id)
    except ValueError as error:
        raise PvcError(
            reason_pb2.REASON_INVALID_FIELD,
            f"{error}: take lower-case letters, digits and hyphens, 63 at most",
            field="network_id",
        ) from error
    row = Network(name=f"networks/{network_id}", meta=rows.new_meta(call, asked.meta.labels))
    row.spec.CopyFrom(filled(network_id, asked.spec))
    _check_spec(row.spec, field)
    return row


def _present(snapshot: Snapshot, name: str, field: str) -> Network:
    row = snapshot.find(Network, name)
    if row is None:
        raise not_found(name, field)
    return row


def _merged(before: Network, request: api.UpdateNetworkRequest) -> Network:
    """The network with what the mask takes over, or all that is set without a mask."""
    row = rows.copied(before)
    mask = request.update_mask
    if not mask.paths:
        row.spec.MergeFrom(request.network.spec)
        row.meta.labels.update(request.network.meta.labels)
    for path in mask.paths:
        known = mask.IsValidForDescriptor(Network.DESCRIPTOR)
        if not known or not (path == "meta.labels" or path.split(".")[0] == "spec"):
            text = f"'{path}' cannot be changed: take meta.labels, spec, or a field of spec"
            refuse(reason_pb2.REASON_INVALID_FIELD, text, "update_mask")
    if mask.paths:
        mask.MergeMessage(_with_parents(request.network, mask.paths), row, True, True)
    row.spec.CopyFrom(revised(before.name.removeprefix("networks/"), before.spec, row.spec))
    return row


def _with_parents(asked: Network, paths: Iterable[str]) -> Network:
    """What was asked for, so that a mask can clear a field of a message that was left out."""
    full = rows.copied(asked)
    for path in paths:
        message: Message = full
        for part in path.split(".")[:-1]:
            message = getattr(message, part)
            message.SetInParent()
    return full


def _check_spec(spec: NetworkSpec, field: str = "network.spec") -> None:
    for wrong in mistakes(spec):
        at = f"{field}.{wrong.field}" if field == "network.spec" else field
        refuse(reason_pb2.REASON_INVALID_FIELD, f"{at}: {wrong.text}", at)


def _check_overlap(row: Network, snapshot: Snapshot) -> None:
    subnet = subnet_of(row.spec)
    others = [other for other in snapshot.rows(Network) if other.name != row.name]
    for other in overlaps(subnet, others) if subnet else ():
        text = f"{subnet} overlaps {other.spec.ipv4.cidr} of {other.name}: take other addresses"
        refuse(reason_pb2.REASON_IN_USE, text, "network.spec.ipv4.cidr")


def _check_unused_parts(before: Network, row: Network, snapshot: Snapshot) -> None:
    """What the addresses and names of VMs hang on."""
    if before.spec.ipv4.cidr != row.spec.ipv4.cidr:
        _check_unused(row, snapshot, "network.spec.ipv4.cidr", "its addresses cannot change")
    if before.spec.domain != row.spec.domain:
        _check_unused(row, snapshot, "network.spec.domain", "its domain cannot change")
    for held in before.status.addresses:
        if held.address == row.spec.ipv4.gateway:
            text = f"{held.address} belongs to {held.vm}: take another address for the gateway"
            refuse(reason_pb2.REASON_IN_USE, text, "network.spec.ipv4.gateway")


def _check_unused(row: Network, snapshot: Snapshot, field: str, so: str) -> None:
    found = users(row.name, snapshot.extract(GUESTS))
    if found:
        some = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        refuse(reason_pb2.REASON_IN_USE, f"{row.name} is used by {some}, so {so}", field)


def _operation(
    request: api.CreateNetworkRequest | api.UpdateNetworkRequest | api.DeleteNetworkRequest,
    row: Network,
    method: str,
    call: Call,
) -> Operation:
    """Any node may end it: the one that takes the request, for its agent serves the network too."""
    operation = rows.new_operation(
        call,
        request,
        method=f"{METHOD}/{method}",
        target=row.name,
        service=SERVICE,
        node=call.node,
        generation=row.meta.generation,
    )
    rows.log_line(operation, _words(method, row), call.now)
    return operation


def _words(method: str, row: Network) -> str:
    """What is to be done, for the operation's log and for a dry run."""
    if method == "DeleteNetwork":
        return f"remove {row.name}"
    ipv4 = row.spec.ipv4
    served = f"{ipv4.cidr}, gateway {ipv4.gateway}" if ipv4.cidr else "a bridge without addresses"
    way_out = ", NAT to the outside" if row.spec.nat else ""
    return f"{'make' if method == 'CreateNetwork' else 'set up'} {row.name}: {served}{way_out}"


def _answer(
    request: api.CreateNetworkRequest | api.UpdateNetworkRequest | api.DeleteNetworkRequest,
    operation: Operation,
) -> Operation:
    """Without a name when it only would be done."""
    answer = rows.copied(operation)
    if request.validate_only:
        answer.name = ""
        answer.stage = f"would be accepted: {operation.method.split('/')[1]} {operation.target}"
    return answer

"""The contract as the client uses it: methods read off the descriptors when first asked for, and
requests made of plain values.

Pure. Loads the module of a service only when one of its methods is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc_client.errors import NotSupported

if TYPE_CHECKING:
    from pvc.core.v1 import meta_pb2

R = TypeVar("R", bound=Message)
T = TypeVar("T")

READING = re.compile("(Get|List|Watch|Wait|Check|Explain|Plan|WhoAmI|Read|Download)([A-Z]|$)")
"""How the names of methods begin that change nothing."""


class Options(TypedDict, total=False):
    """What every change may be given."""

    etag: str
    """Only if the resource is still as it was read with this etag."""
    request_id: str
    """Made by the client unless given; the same one twice is done once."""
    validate_only: bool
    """Check everything, change nothing."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What a watch tells."""

    kind: meta_pb2.ChangeKind.ValueType
    """PRESENT, ADDED, MODIFIED, DELETED, or BOOKMARK."""
    resource: T | None
    """As it is after the change, as it last was when it was deleted; None in a bookmark."""
    revision: int
    """Resume after this one."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended, for those who want to see each; of a stream its beginning."""

    method: str
    """ "/pvc.compute.v1.VmService/StartVm"."""
    address: str
    request_id: str
    """Of calls that change something."""
    seconds: float
    outcome: str
    """ "OK", or the Reason: "NOT_FOUND"."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the contract."""

    path: str
    """As gRPC calls it: "/pvc.compute.v1.VmService/StartVm"."""
    request: type[Any]
    response: type[Any]
    client_streaming: bool
    server_streaming: bool

    @property
    def short(self) -> str:
        """ "VmService/StartVm"."""
        return self.path.rpartition(".")[2]

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return READING.match(self.path.rpartition("/")[2]) is not None

    @property
    def repeatable(self) -> bool:
        """Whether asking twice does no more than asking once."""
        return self.reads or "request_id" in self.request.DESCRIPTOR.fields_by_name


class Service(Iterable[str]):
    """The methods of one service by name: VMS["StartVm"]. Iterates their names."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name
        self._methods: dict[str, Method] = {}

    def __getitem__(self, name: str) -> Method:
        """Raises NotSupported for a method that the service does not have."""
        if name not in self._methods:
            found = self._descriptor.methods_by_name.get(name)
            if found is None:
                raise NotSupported(f"PVC cannot do that: its {self._name} has no {name}")
            self._methods[name] = read_method(found)
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._descriptor.methods_by_name)

    def load(self) -> Any:
        """Its contract's module."""
        return import_module(self._module)

    @property
    def _descriptor(self) -> Any:
        return self.load().DESCRIPTOR.services_by_name[self._name]


_COORDINATOR = "pvc.coordinator.v1.coordinator_service_pb2"
VMS = Service("pvc.compute.v1.vm_service_pb2", "VmService")
NODES = Service(_COORDINATOR, "NodeService")
CLUSTER = Service(_COORDINATOR, "ClusterService")
PLACEMENT = Service(_COORDINATOR, "PlacementService")
OPERATIONS = Service(_COORDINATOR, "OperationService")
EVENTS = Service(_COORDINATOR, "EventService")
STORAGE = Service("pvc.storage.v1.storage_service_pb2", "StorageService")
NETWORKS = Service("pvc.network.v1.network_service_pb2", "NetworkService")
PROVISIONER = Service("pvc.provisioner.v1.provisioner_service_pb2", "ProvisionerService")
ACCESS = Service("pvc.gateway.v1.access_service_pb2", "AccessService")
AUDIT = Service("pvc.gateway.v1.audit_service_pb2", "AuditService")


SERVICES = (
    VMS, NODES, CLUSTER, PLACEMENT, OPERATIONS, EVENTS, STORAGE, NETWORKS, PROVISIONER, ACCESS,
    AUDIT,
)  # fmt: skip


def load_all() -> None:
    """Loads the contracts of all services, for what may hold messages of any of them."""
    for service in SERVICES:
        service.load()


def read_method(descriptor: Any) -> Method:
    """What a method's descriptor says."""
    from google.protobuf.message_factory import GetMessageClass

    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
    )


def filled(request: R, options: Options) -> R:
    """The request with the options that were given. Raises TypeError for one that it does not
    have."""
    for key, value in options.items():
        if key not in request.DESCRIPTOR.fields_by_name:
            raise TypeError(f"{request.DESCRIPTOR.name} has no {key}")
        setattr(request, key, value)
    return request


def give_request_id(request: Any) -> None:
    """Makes a request that changes something safe to repeat."""
    if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
        request.request_id = os.urandom(16).hex()


def repeated_field(response: type[Message]) -> str:
    """The name of the list in a List answer."""
    return next(f.name for f in response.DESCRIPTOR.fields if f.is_repeated)


def message_field(response: type[Message]) -> str:
    """The name of the resource in a Watch answer."""
    return next(f.name for f in response.DESCRIPTOR.fields if f.message_type)


def mask(paths: Any) -> FieldMask | None:
    """The mask of these paths; None when there are none."""
    return FieldMask(paths=paths) if paths else None


def differences(before: Message, after: Message, inside: str = "") -> Iterator[str]:
    """The paths of the fields in which two messages of a kind differ, as a mask has them."""
    for field in before.DESCRIPTOR.fields:
        path = f"{inside}{field.name}"
        one, other = getattr(before, field.name), getattr(after, field.name)
        present = not field.has_presence or before.HasField(field.name) == after.HasField(
            field.name
        )
        if present and one == other:
            continue
        if present and field.message_type is not None and not field.is_repeated:
            yield from differences(one, other, f"{path}.")
        else:
            yield path

"""Every method of every service, read off the contracts: who may call it, where it is served, what
it looks like in HTTP. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from pvc.compute.v1 import vm_service_pb2
from pvc.coordinator.v1 import coordinator_service_pb2
from pvc.core.v1 import options_pb2
from pvc.gateway.v1 import access_service_pb2, audit_service_pb2
from pvc.network.v1 import network_service_pb2
from pvc.provisioner.v1 import provisioner_service_pb2
from pvc.storage.v1 import storage_service_pb2
from services.mesh import contract

FILES = (
    vm_service_pb2,
    coordinator_service_pb2,
    access_service_pb2,
    audit_service_pb2,
    network_service_pb2,
    provisioner_service_pb2,
    storage_service_pb2,
)
Role = options_pb2.Role


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the API."""

    path: str
    """As gRPC calls it: "/pvc.compute.v1.VmService/StartVm"."""
    service: str
    """Which of PVC's services answers: "compute"."""
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    role: Role.ValueType
    """The least role that may call; ROLE_UNSPECIFIED for nobody."""
    internal: bool
    """Never called from outside."""
    by_secret: bool
    """Needs no credentials: the request itself carries a secret."""
    audited: bool
    """Written down although it changes nothing."""
    routed_by: str
    """Field of the request with the resource whose node must answer; "" when any node may."""
    http: http_pb2.HttpRule | None
    """How HTTP calls it; None when it cannot."""

    @property
    def short(self) -> str:
        """ "VmService/StartVm"."""
        return self.path.rpartition(".")[2]

    @property
    def mutates(self) -> bool:
        """Whether it may change something."""
        return not contract.reads(self.path)


def read_method(method: MethodDescriptor) -> Method:
    """What a descriptor says."""
    options: Any = method.GetOptions()
    access = options.Extensions[options_pb2.access]
    http = options.Extensions[annotations_pb2.http]
    service = method.containing_service
    return Method(
        path=f"/{service.full_name}/{method.name}",
        service=service.full_name.split(".")[1],
        request=message_factory.GetMessageClass(method.input_type),
        response=message_factory.GetMessageClass(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        role=access.role,
        internal=access.internal,
        by_secret=access.by_secret,
        audited=access.audited,
        routed_by=access.routed_by,
        http=http if options.HasExtension(annotations_pb2.http) else None,
    )


def _all() -> Iterator[Method]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield read_method(method)


METHODS: Mapping[str, Method] = {method.path: method for method in _all()}
"""gRPC path → method."""

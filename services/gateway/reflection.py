"""Tells gRPC tools what the API is: the public services, and nothing of what services ask each
other. Answers without a token, as the OpenAPI file does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from services.gateway.methods import FILES, METHODS, Method

NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The protocol was renamed, and nothing else in it; tools ask for the one and then the other."""
BESIDE = (health_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)
"""Files that callers need beside those of the API: what errors carry."""
HEALTH = "grpc.health.v1.Health"


def handlers() -> tuple[grpc.GenericRpcHandler, ...]:
    """What answers; to be added to a server."""
    public = [method for method in METHODS.values() if not method.internal]
    services = sorted({_service_of(method) for method in public})
    pool = pool_of((*(file.DESCRIPTOR for file in FILES), *BESIDE), public)
    servicer = reflection.aio.ReflectionServicer([*services, HEALTH, *NAMES], pool=Symbols(pool))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        for name in NAMES
    )


class Symbols:
    """A pool that knows methods by their names too."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file that has it. Raises KeyError."""
        try:
            found: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            if method not in self._pool.FindServiceByName(service).methods_by_name:
                raise
            found = self._pool.FindFileContainingSymbol(service)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def pool_of(files: Iterable[Any], methods: Iterable[Method]) -> Any:
    """The files with what they build upon, and of our services these methods only."""
    public = {method.path.lstrip("/").replace("/", ".") for method in methods}
    pool = descriptor_pool.DescriptorPool()
    for file in _with_imports(files):
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        if proto.package.startswith("pvc."):
            _prune(proto, public)
        pool.Add(proto)
    return pool


def _with_imports(files: Iterable[FileDescriptor]) -> Iterator[FileDescriptor]:
    """Each file once, after those that it imports."""
    seen: set[str] = set()

    def visited(file: FileDescriptor) -> Iterator[FileDescriptor]:
        if file.name not in seen:
            seen.add(file.name)
            for inner in file.dependencies:
                yield from visited(inner)
            yield file

    for one in files:
        yield from visited(one)


def _prune(file: descriptor_pb2.FileDescriptorProto, public: set[str]) -> None:
    for service in list(file.service):
        name = f"{file.package}.{service.name}"
        kept = [method for method in service.method if f"{name}.{method.name}" in public]
        if not kept:
            file.service.remove(service)
            continue
        del service.method[:]
        service.method.extend(kept)


def _service_of(method: Method) -> str:
    return method.path.strip("/").partition("/")[0]

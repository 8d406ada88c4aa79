"""The contract in everything.proto, read as the gateway reads its own."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import google.api
import grpc_tools
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from grpc_tools import protoc

from services.gateway.methods import read_method
from services.gateway.transcode import Routes, routes_of

IMPORTED = (any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
"""What the contract builds upon, known to this process by being imported."""
HERE = Path(__file__).parent
FOLDERS = (
    HERE,
    Path(next(iter(google.api.__path__))).parent.parent,
    Path(str(grpc_tools.__file__)).parent / "_proto",
)


@cache
def routes() -> Routes:
    """The routes of EverythingService."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        flags = [*(f"-I{path}" for path in FOLDERS), f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *flags, "everything.proto"]) == 0
        (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    service = pool.FindServiceByName("pvctest.v1.EverythingService")
    return routes_of(read_method(method) for method in service.methods)


def thing() -> type:
    """The class of Thing."""
    routes()
    kind = descriptor_pool.Default().FindMessageTypeByName("pvctest.v1.Thing")
    made: type = message_factory.GetMessageClass(kind)
    return made

"""The buf plugin that writes our Python: messages, gRPC stubs and their types, in one pass.

buf runs plugins as programs, but the gRPC generator of grpcio-tools exists only inside its own
protoc. So the request's descriptors go to that protoc, and what it writes goes back to buf.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def compile_all(request: plugin_pb2.CodeGeneratorRequest, out: Path) -> None:
    """Writes every file that was asked for into `out`. Raises SystemExit when protoc refuses."""
    descriptors = out / "descriptors.binpb"
    descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
    wanted = set(request.file_to_generate)
    with_services = {f.name for f in request.proto_file if f.service} & wanted
    for plugin, files in {
        "python_out": wanted,
        "mypy_out": wanted,
        "grpc_python_out": with_services,
        "mypy_grpc_out": with_services,
    }.items():
        flags = [f"--descriptor_set_in={descriptors}", f"--{plugin}={out}"]
        if files and protoc.main(["protoc", *flags, *sorted(files)]):
            sys.exit(f"protoc_python: protoc failed on --{plugin}")


def answer(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """What buf is to write."""
    optional = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    response = plugin_pb2.CodeGeneratorResponse(supported_features=optional)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        compile_all(request, out)
        for path in sorted(out.rglob("*.py*")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    return response


if __name__ == "__main__":
    asked = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(answer(asked).SerializeToString())

"""The buf plugin that writes our Python: messages, gRPC stubs, their types and the contracts' own
words about them, in one pass.

buf runs plugins as programs, but the gRPC generator of grpcio-tools exists only inside its own
protoc. So the request's descriptors go to that protoc, and what it writes goes back to buf.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

TEXTS = "pvc/texts.json"
"""What the contracts say about each message, field, method and value: full name → comment."""


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


def texts(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Full name → comment, of all that has one."""
    for place in file.source_code_info.location:
        if place.leading_comments and (name := name_at(file, list(place.path))):
            yield f"{file.package}.{name}", " ".join(place.leading_comments.split())


def name_at(file: FileDescriptorProto, path: list[int]) -> str:
    """The name of what stands at a path of numbers: field of the descriptor, place in its list."""
    found: Any = file
    names = []
    for number, place in zip(path[::2], path[1::2], strict=False):
        found = getattr(found, found.DESCRIPTOR.fields_by_number[number].name)[place]
        names.append(getattr(found, "name", ""))
    return ".".join(names) if len(path) % 2 == 0 and all(names) else ""


def answer(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """What buf is to write."""
    optional = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    response = plugin_pb2.CodeGeneratorResponse(supported_features=optional)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        compile_all(request, out)
        for path in sorted(out.rglob("*.py*")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    ours = [file for file in request.proto_file if file.name in request.file_to_generate]
    told = {name: text for file in ours for name, text in texts(file)}
    content = json.dumps(told, indent=0, sort_keys=True, ensure_ascii=False)
    response.file.add(name=TEXTS, content=content + "\n")
    return response


if __name__ == "__main__":
    asked = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(answer(asked).SerializeToString())

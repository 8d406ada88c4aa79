"""The buf plugin that writes the OpenAPI file: what protoc-gen-openapiv2 makes of the contracts,
with what it does not know added from their own options (rules, roles, headers, errors).

The generator knows no way to describe a stream of requests on a path with parameters, so it is told
of single requests, and the streams are described here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pool
from google.protobuf.compiler import plugin_pb2

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "clients/python/gen")]

from tools.openapi import completed  # noqa: E402 - only found from here on

GENERATOR_S = 60


def generated(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """What the generator makes of it. Raises SystemExit when it refuses."""
    single = plugin_pb2.CodeGeneratorRequest()
    single.CopyFrom(request)
    for file in single.proto_file:
        for service in file.service:
            for method in service.method:
                method.client_streaming = False
    done = subprocess.run(
        ["protoc-gen-openapiv2"],
        input=single.SerializeToString(),
        capture_output=True,
        timeout=GENERATOR_S,
        check=False,
    )
    if done.returncode:
        sys.exit(f"protoc_openapi: {done.stderr.decode()}")
    return plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)


def answer(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """What buf is to write."""
    response = generated(request)
    pool = descriptor_pool.DescriptorPool()
    for file in request.proto_file:
        pool.Add(file)
    services = [
        pool.FindServiceByName(f"{file.package}.{service.name}")
        for file in request.proto_file
        for service in file.service
    ]
    for written in response.file:
        complete = completed(json.loads(written.content), services)
        written.content = json.dumps(complete, indent=2, ensure_ascii=False) + "\n"
    return response


if __name__ == "__main__":
    asked = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(answer(asked).SerializeToString())

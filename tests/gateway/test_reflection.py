"""What gRPC tools are told of the API through the gRPC door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from services.gateway.methods import METHODS
from services.gateway.reflection import NAMES
from tests.doors.world import World, world_in

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("reflection")) as world:
        yield world


@pytest.fixture(params=NAMES)
def ask(world: World, request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Asks one question."""
    with grpc.insecure_channel(world.grpc_address) as channel:
        call = channel.stream_stream(
            f"/{request.param}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        yield lambda **what: next(call(iter([reflection_pb2.ServerReflectionRequest(**what)])))


def test_the_public_services_are_listed(ask: Ask) -> None:
    told = {one.name for one in ask(list_services="").list_services_response.service}
    public = {m.path.split("/")[1] for m in METHODS.values() if not m.internal}
    assert told == public | {"grpc.health.v1.Health", *NAMES}
    assert "pvc.compute.v1.DiskService" not in told


def test_their_methods_are_told_and_no_others(ask: Ask) -> None:
    for symbol in ("pvc.compute.v1.VmService", "pvc.coordinator.v1.NodeService"):
        answer = ask(file_containing_symbol=symbol).file_descriptor_response
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(f) for f in answer.file_descriptor_proto
        ]
        told = {
            f"/{file.package}.{service.name}/{method.name}"
            for file in files
            for service in file.service
            for method in service.method
        }
        assert told and all(not METHODS[path].internal for path in told)
        assert any(file.name == "google/api/annotations.proto" for file in files)


def test_what_is_internal_is_not_there(ask: Ask) -> None:
    for symbol in (
        "pvc.compute.v1.DiskService",
        "pvc.compute.v1.DiskService.ResizeOpenVolume",
        "pvc.coordinator.v1.NodeService.RenewNode",
        "nothing",
    ):
        answer = ask(file_containing_symbol=symbol)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_method_and_what_an_error_carries_can_be_described(ask: Ask) -> None:
    for symbol in ("pvc.compute.v1.VmService.StartVm", "google.rpc.ErrorInfo"):
        assert ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto


def test_the_door_says_that_it_serves(world: World) -> None:
    with grpc.insecure_channel(world.grpc_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING

"""A node that was removed, whose disk somebody kept: no service of another node answers it."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.mesh.clock import SystemClock
from services.mesh.identity import Files
from services.state.store import ANY_VERSION, Delete
from tests.contract.three import SERVICES, three_running

DENIED = grpc.StatusCode.PERMISSION_DENIED
WAIT_S = 60
ASK = health_pb2.HealthCheckRequest()


def test_its_certificate_is_of_no_use_at_any_port(tmp_path: Path) -> None:
    with three_running(tmp_path) as three:
        folder = Files(three["n3"].config.tls_dir)
        credentials = folder.channel_credentials(SystemClock().now())
        ports = three["n1"].config.public_addresses()
        assert len(ports) == SERVICES
        override = (("grpc.ssl_target_name_override", "n1"),)
        channels = {x: grpc.secure_channel(y, credentials, override) for x, y in ports.items()}
        stubs = {service: health_pb2_grpc.HealthStub(one) for service, one in channels.items()}
        watches = {}
        for service, stub in stubs.items():
            assert stub.Check(ASK, timeout=WAIT_S).status == health_pb2.HealthCheckResponse.SERVING
            watches[service] = stub.Watch(ASK, timeout=WAIT_S)
            assert next(watches[service]).status == health_pb2.HealthCheckResponse.SERVING
        three.kill("n3")
        three["n1"].store.commit([Delete("nodes/n3", ANY_VERSION)])
        for service, stub in stubs.items():
            with pytest.raises(grpc.RpcError) as ended:
                next(watches[service])
            with pytest.raises(grpc.RpcError) as refused:
                stub.Check(ASK, timeout=WAIT_S)
            for error in (ended.value, refused.value):
                assert error.code() == DENIED, (service, error)
                assert "nodes/n3 is no member of this cluster" in str(error.details())
        for channel in channels.values():
            channel.close()

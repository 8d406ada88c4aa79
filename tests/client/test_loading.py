"""What importing the client loads: no more than what is used then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pvc_client

ROOT = Path(__file__).parent.parent.parent
PROBE = """
import sys
{0}
print(*sorted(name for name in sys.modules if name.startswith(("pvc", "grpc", "asyncio"))))
"""


def loaded(statements: str) -> set[str]:
    """The modules that a fresh interpreter has after that."""
    environment = {"PYTHONPATH": f"{ROOT}/clients/python/src:{ROOT}/clients/python/gen"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statements)],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def contracts(modules: set[str]) -> set[str]:
    """The contracts among modules, without what all have in common."""
    return {m for m in modules if m.endswith("_pb2") and not m.startswith("pvc.core")}


def test_errors_load_neither_grpc_nor_contracts() -> None:
    modules = loaded("from pvc_client import errors, PvcError, names; errors.NotFound")
    assert not contracts(modules) and not {m for m in modules if m.startswith("grpc")}
    assert not {m for m in modules if m.startswith("asyncio")}


def test_a_connection_loads_no_contract() -> None:
    modules = loaded("from pvc_client import Cluster; Cluster('n1:7371').close()")
    assert not contracts(modules)
    assert not {m for m in modules if m.startswith("pvc_client.aio")}


def test_a_collection_loads_its_own_contract() -> None:
    modules = loaded("from pvc_client import Cluster; Cluster().vms.list()")
    assert contracts(modules) == {"pvc.compute.v1.vm_pb2", "pvc.compute.v1.vm_service_pb2"}
    assert not {m for m in modules if m.endswith("_pb2_grpc")}


def test_the_blocking_half_brings_no_asyncio_that_grpc_does_not() -> None:
    grpc = {m for m in loaded("import grpc") if m.startswith(("grpc", "asyncio"))}
    client = loaded("from pvc_client import Cluster; Cluster().vms.list()")
    assert {m for m in client if m.startswith(("grpc", "asyncio"))} == grpc


@pytest.mark.parametrize("name", sorted(pvc_client.__all__))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pvc_client, name) is not None
    assert name in dir(pvc_client)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Klaster'"):
        pvc_client.Klaster  # noqa: B018

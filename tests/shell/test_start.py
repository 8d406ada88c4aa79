"""What a command loads before it does anything: names of modules, which no busy machine alters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.doors.world import World, world_in
from tests.shell.processes import environment

HEAVY = {
    "asyncio", "cryptography", "email", "google.protobuf", "grpc", "importlib.metadata", "pvc",
    "prompt_toolkit", "pvc_client", "rich", "services", "ssl", "tomlkit", "yaml",
}  # fmt: skip
LISTING = {"asyncio", "email", "google.protobuf", "grpc", "pvc", "pvc_client", "ssl",
           "importlib.metadata"}  # fmt: skip
"""What a command that talks to the cluster cannot do without: grpc, and what that brings along."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("start")) as world:
        yield world


def loaded(world: World | None, *arguments: str, **more: str) -> set[str]:
    """The modules that are there when a command has ended, but those of a bare interpreter."""
    entry = (
        "import sys; before = set(sys.modules)\n"
        "from shell.main import run\n"
        f"code = run({list(arguments)!r})\n"
        "print(code, *(set(sys.modules) - before), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", entry], env=environment(world, **more), capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    code, *modules = process.stderr.split("\n")[-2].split()
    assert code == "0", process.stderr
    return set(modules)


def heavy(modules: set[str], allowed: set[str] = frozenset()) -> set[str]:  # type: ignore[assignment]
    return {one for one in HEAVY - allowed for module in modules
            if module == one or module.startswith(f"{one}.")}  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["vm", "--help"], ["vm", "list", "--help"], ["vm", "create", "--help"],
     ["node", "--help"], ["volume", "--help"], ["completion", "bash"]],
    ids=" ".join,
)  # fmt: skip
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    modules = loaded(None, *arguments)
    assert not heavy(modules)
    if arguments == ["--help"]:
        assert not [one for one in modules if one.startswith("shell.commands")]


@pytest.mark.parametrize("arguments", [["vm", "list"], ["vm", "list", "-f", "json"]])
def test_a_list_loads_grpc_and_little_else(world: World, arguments: list[str]) -> None:
    modules = loaded(world, *arguments)
    assert not heavy(modules, LISTING)
    services = {one for one in modules if one.endswith("_service_pb2")}
    assert services <= {"pvc.compute.v1.vm_service_pb2"}

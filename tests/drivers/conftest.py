"""A private libvirtd for the drivers' tests, in a network namespace with one bridge."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.compute.drivers.daemon import Daemon
from tests import logs
from tests.drivers.subjects import FakeSubject, RealSubject, Subject


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30, capture_output=True)


@pytest.fixture(scope="session")
def namespace() -> Iterator[Path]:
    """A network namespace with the bridge br0."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    name = f"pvc-drv-{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "add", "br0", "type", "bridge")
        ip("-n", name, "link", "set", "br0", "up")
        yield Path("/run/netns") / name
    finally:
        ip("netns", "delete", name)


SMALL_BYTES = 24 << 20


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is soon full, mounted before the daemon starts."""
    folder = tmp_path_factory.mktemp("small")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


@pytest.fixture(scope="session")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, namespace: Path, small_disk: Path
) -> Iterator[Daemon]:
    """One libvirtd for all tests that do it no harm."""
    daemon = Daemon(tmp_path_factory.mktemp("lv"), net_namespace=namespace)
    try:
        with logs.followed(daemon.directory, "log/**/*.log"):
            daemon.start()
            yield daemon
    finally:
        daemon.stop(kill_guests=True)


@pytest.fixture
def real(daemon: Daemon, tmp_path: Path) -> Iterator[RealSubject]:
    subject = RealSubject(tmp_path, daemon)
    yield subject
    subject.clean()
    subject.hypervisor.close()


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.real)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Each hypervisor in turn."""
    if request.param == "fake":
        return FakeSubject(tmp_path)
    found: Subject = request.getfixturevalue("real")
    return found

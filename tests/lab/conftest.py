"""A lab for the tests of one file: another than the one that a person may have running."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.cluster import founding, life
from lab.cluster.site import Lab
from lab.guests import Guests
from tests import logs


def own_lab() -> Lab:
    """One for each worker of the tests."""
    return Lab(f"t{os.environ.get('PYTEST_XDIST_WORKER', '0').removeprefix('gw')}")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A cluster of three nodes that works."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    this, said = own_lab(), []
    life.take_down(this)
    try:
        nodes = logs.followed(this.disk, "*/log/*", "*/console.log", "*/pvc/libvirt/log/**/*.log")
        with nodes, logs.followed(this.run, "chassis.log"):
            life.switch_on(this)
            founding.found(this, said.append)
            yield this
    finally:
        life.take_down(this)
    assert life.left_over(this) == ()


@pytest.fixture
def guests(lab: Lab) -> Iterator[Guests]:
    """Makes VMs in it, through the second node's door."""
    with founding.client(lab.nodes[1]) as cluster:
        yield Guests.on(lab, cluster)

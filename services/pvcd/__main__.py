"""`pvcd`: all services of a node in one process."""

from __future__ import annotations

from services.compute.main import build_on as compute
from services.coordinator.main import build_on as coordinator
from services.gateway.main import build_on as gateway
from services.mesh.process import Build, program
from services.network.main import build_on as network
from services.provisioner.main import build_on as provisioner
from services.storage.main import build_on as storage

SERVICES: dict[str, Build] = {
    # The network comes first: a private libvirtd lives in its namespace.
    "network": network,
    "storage": storage,
    "compute": compute,
    "provisioner": provisioner,
    "coordinator": coordinator,
    "gateway": gateway,
}


def run() -> None:
    """The program `pvcd`."""
    program(SERVICES)


if __name__ == "__main__":
    run()

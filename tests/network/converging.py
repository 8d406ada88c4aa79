"""Sets a network up and takes it away again for ever, until somebody kills it: a program for the
test that kills it."""

from __future__ import annotations

import sys
from pathlib import Path

from services.network.converge import clean_up, converge
from services.network.core.desired import Place, desired
from services.network.drivers.linux import LinuxFabric
from tests.network.worlds import mac, network, vm


def main(namespace: str, folder: str) -> None:
    fabric = LinuxFabric(namespace, Path(folder))
    place = Place(namespace, f"{folder}/servers")
    networks = [network(), network("lab", "10.65.0.0/24")]
    wanted = [
        desired(networks, [vm(f"vm{number}", mac(number))], {}, place).wanted for number in range(3)
    ]
    print("begin", flush=True)
    while True:
        for want in wanted:
            converge(fabric, True, want, "n1")
        clean_up(fabric, True, "n1")


if __name__ == "__main__":
    main(*sys.argv[1:])

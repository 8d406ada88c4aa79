"""Where a lab is: names, addresses and folders. It changes nothing."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The source tree that the nodes run."""
CACHE = ROOT / ".cache" / "lab"

OUTSIDE = "10.200.0.253"
"""The world beyond the nodes: their default route."""
CONTROLLERS = "10.200.0.254"
"""Where the nodes' controllers (BMC) are."""
PREFIX_LENGTH = 24
MTU = 9000
"""Of the mesh: room for what overlays put around a guest's packets."""

SHARED = "/srv/pvc-shared"
"""The folder that all nodes share, as they see it."""
SOURCES = "/opt/pvc"
"""Where a node has its PVC, as on a real one."""
CONFIG = "/etc/pvc/pvc.toml"
CREDENTIALS = "/etc/pvc/zookeeper.secret"
WATCHDOG = "/run/pvc-watchdog.sock"

ENVIRONMENT = "PVC_LAB"
"""The variable that names another lab than the usual one: several can run side by side."""
_NAME = re.compile(r"[a-z][a-z0-9]{0,6}")
_USUAL = "lab"


class LabError(Exception):
    """What went wrong, and what to do next, for people."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab of this machine."""

    name: str = _USUAL
    size: int = 3

    @classmethod
    def chosen(cls) -> Lab:
        """The one that the environment names, else the usual one."""
        name = os.environ.get(ENVIRONMENT, "") or _USUAL
        if not _NAME.fullmatch(name):
            raise LabError(f"{ENVIRONMENT} must be up to 7 lower-case letters and digits")
        return cls(name)

    @property
    def prefix(self) -> str:
        """What the names of its namespaces and control groups begin with."""
        return "pvclab" if self.name == _USUAL else f"pvclab-{self.name}"

    @property
    def run(self) -> Path:
        """Sockets and what means nothing once it is down."""
        return Path("/run") / self.prefix.replace("pvclab", "pvc-lab")

    @property
    def disk(self) -> Path:
        """The nodes' disks; kept when the power fails, removed when the lab is taken down."""
        return Path("/var/cache") / self.prefix.replace("pvclab", "pvc-lab")

    @property
    def shared(self) -> Path:
        """The folder that the nodes share."""
        return self.disk / "shared"

    @property
    def switch(self) -> str:
        """The network namespace of the switch, and of the world beyond."""
        return f"{self.prefix}-sw"

    @property
    def controllers(self) -> str:
        """The network namespace of the nodes' controllers."""
        return f"{self.prefix}-bmc"

    @property
    def chassis_socket(self) -> Path:
        """Where the chassis takes orders."""
        return self.run / "chassis.sock"

    @property
    def complete(self) -> Path:
        """There once the cluster was made: the disks are those of a cluster."""
        return self.disk / "complete"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them."""
        return tuple(Node(self, number) for number in range(1, self.size + 1))

    def node(self, name: str) -> Node:
        """The node of that name. Raises LabError."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise LabError(f"there is no node {name!r}: this lab has {names}")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a lab."""

    lab: Lab
    number: int

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return f"n{self.number}"

    @property
    def address(self) -> str:
        """In the mesh."""
        return f"10.200.0.{10 + self.number}"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"{self.lab.prefix}-{self.name}"

    @property
    def port(self) -> str:
        """The port of the switch that it is plugged into."""
        return f"p{self.number}"

    @property
    def redfish_port(self) -> int:
        """Where its controller speaks Redfish."""
        return 8000 + self.number

    @property
    def ipmi_port(self) -> int:
        """Where its controller speaks IPMI."""
        return 9000 + self.number

    @property
    def run(self) -> Path:
        """Its /run; emptied at every power-on."""
        return self.lab.run / self.name

    @property
    def disk(self) -> Path:
        """What it keeps."""
        return self.lab.disk / self.name

    @property
    def logs(self) -> Path:
        """Its /var/log/pvc."""
        return self.disk / "log"

    @property
    def state(self) -> Path:
        """Its /var/lib/pvc."""
        return self.disk / "pvc"

    @property
    def socket(self) -> Path:
        """Its gateway's door for root."""
        return self.run / "pvc" / "pvc.sock"

    @property
    def init_socket(self) -> Path:
        """Where its first process takes orders."""
        return self.run / "init.sock"

    @property
    def pid_file(self) -> Path:
        """The number that its first process has on the machine."""
        return self.run / "init.pid"

    @property
    def boot_id(self) -> str:
        """What its kernel says of its last boot; "" before the first."""
        file = self.boot_id_file
        return file.read_text().strip() if file.exists() else ""

    @property
    def boot_id_file(self) -> Path:
        """Holds it."""
        return self.run / "boot_id"

    @property
    def watchdog_socket(self) -> Path:
        """Where its watchdog is fed, on the machine."""
        return self.lab.run / f"watchdog-{self.name}.sock"

    @property
    def cut_mark(self) -> Path:
        """There while its link to the switch is cut."""
        return self.lab.run / f"cut-{self.name}"

"""The files that a node begins with: its configuration of PVC and of ZooKeeper, its names, and the
plan of its boot. Texts only; `install` writes them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from lab.cluster import credentials, units
from lab.cluster.site import (
    CONFIG,
    CREDENTIALS,
    ROOT,
    SHARED,
    SOURCES,
    WATCHDOG,
    Lab,
    LabError,
    Node,
)
from lab.node.mounts import BOOT_ID
from lab.node.plan import Plan, Program
from services.mesh.identity import write_private

MEMORY_FOR_VMS_MIB = 2048
"""What each node has to give."""
TICK_MS = 250
"""Of ZooKeeper: a session can be as short as two of them."""

_OVERLAYS = ("etc", "opt", "srv", "var/lib", "var/log")
"""Folders of the machine in which a node's changes are its own."""

_JARS = Path("/usr/share/java")
_CLASS_PATH = (
    *("zookeeper", "netty-codec", "netty-resolver", "netty-transport-native-unix-common"),
    "slf4j-simple",
)
"""Debian's manifest leaves out netty-codec and any slf4j backend."""
_JVM = (
    *("-Xms24m", "-Xmx96m", "-Xss256k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true"),
    *("-Dzookeeper.admin.enableServer=false", "-Dzookeeper.fsync.warningthresholdms=5000"),
    # Java 17 trips over a machine that has both versions of control groups.
    "-XX:-UseContainerSupport",
    # How long a server waits for a dead one before it asks the next whom to elect.
    "-Dzookeeper.cnxTimeout=500",
)

_PVC = """\
# A node of the lab. All else is the default; see docs/pvc.toml.
[node]
name = "{name}"

[cluster]
name = "lab"

[state]
driver = "zookeeper"
hosts = [{hosts}]
tick_ms = {tick_ms}
credentials_file = "{credentials}"

[mesh]
listen = "{address}"

[gateway]
grpc_listen = "{address}:7371"
rest_listen = "{address}:7370"

[compute]
reserved_memory_mib = {reserved_mib}
watchdog = "unix:{watchdog}"
"""

_ZOOKEEPER = f"""\
tickTime={TICK_MS}
initLimit=20
syncLimit=4
minSessionTimeout=1000
maxSessionTimeout=60000
dataDir=/var/lib/zookeeper
4lw.commands.whitelist=*
preAllocSize=1024
snapCount=100000
maxClientCnxns=0
standaloneEnabled=false
"""


def pvc_toml(node: Node, memory_mib: int) -> str:
    """memory_mib: the machine's."""
    return _PVC.format(
        name=node.name,
        hosts=", ".join(f'"{one.address}:2181"' for one in node.lab.nodes),
        tick_ms=TICK_MS,
        credentials=CREDENTIALS,
        address=node.address,
        watchdog=WATCHDOG,
        reserved_mib=max(memory_mib - MEMORY_FOR_VMS_MIB, 0),
    )


def zoo_cfg(lab: Lab) -> str:
    """The same on all nodes."""
    servers = (f"server.{n.number}={n.address}:2888:3888;{n.address}:2181\n" for n in lab.nodes)
    return _ZOOKEEPER + "".join(servers)


def etc(node: Node, memory_mib: int) -> Mapping[str, str]:
    """Path below /etc → what it holds."""
    hosts = "".join(f"{one.address} {one.name}\n" for one in node.lab.nodes)
    machine_id = uuid.uuid5(uuid.NAMESPACE_DNS, node.namespace).hex
    return {
        CONFIG.removeprefix("/etc/"): pvc_toml(node, memory_mib),
        "zookeeper/zoo.cfg": zoo_cfg(node.lab),
        "hostname": f"{node.name}\n",
        "hosts": f"127.0.0.1 localhost\n{hosts}",
        "machine-id": f"{machine_id}\n",
    }


def install(node: Node, memory_mib: int) -> None:
    """Writes what a node begins with onto its disk."""
    upper = node.disk / "etc" / "upper"
    for path, text in etc(node, memory_mib).items():
        file = upper / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    write_private(upper / CREDENTIALS.removeprefix("/etc/"), credentials.zookeeper(node.lab))
    for folder in (node.logs, node.state, node.disk / "zookeeper", node.disk / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    (node.disk / "zookeeper" / "myid").write_text(f"{node.number}\n")
    node.lab.shared.mkdir(parents=True, exist_ok=True)


def plan(node: Node, emulator: Path, emulator_places: tuple[str, ...]) -> Plan:
    """A boot of the node; writes the identity that this boot has."""
    node.boot_id_file.write_text(f"{uuid.uuid4()}\n")
    binds = [(str(emulator / place), f"/{place}") for place in emulator_places]
    binds += [
        (str(node.state), "/var/lib/pvc"),
        (str(node.disk / "zookeeper"), "/var/lib/zookeeper"),
        (str(node.logs), units.LOGS),
        (str(node.lab.shared), SHARED),
        (str(ROOT), SOURCES),
        (str(node.boot_id_file), BOOT_ID),
    ]
    if node.watchdog_socket.exists():
        binds.append((str(node.watchdog_socket), f"{node.run}/{Path(WATCHDOG).name}"))
    if not ROOT.is_relative_to("/tmp"):
        binds.append((str(node.disk / "tmp"), "/tmp"))
    return Plan(
        host_name=node.name,
        pid_file=str(node.pid_file),
        overlays=tuple((f"/{name}", str(node.disk / name)) for name in _OVERLAYS),
        binds=(*binds, (str(node.run), "/run")),
        environment=tuple(environment().items()),
        programs=(_zookeeper(), *units.programs()),
    )


def environment() -> dict[str, str]:
    """What every process of a node begins with."""
    python = (SOURCES, f"{SOURCES}/clients/python/src", f"{SOURCES}/clients/python/gen")
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": f"{SOURCES}/.venv/bin:{usual}",
        "PYTHONPATH": ":".join(python),
        "LANG": "C.UTF-8",
        "HOME": "/root",
        "TERM": os.environ.get("TERM", "dumb"),
    }


def missing() -> None:
    """Raises LabError for what the nodes need and the machine lacks."""
    jars = [_JARS / f"{name}.jar" for name in _CLASS_PATH]
    absent = [str(path) for path in (*jars, ROOT / ".venv/bin/python") if not path.exists()]
    if absent:
        raise LabError(f"{', '.join(absent)} not found: run `make setup`")


def _zookeeper() -> Program:
    path = ":".join(f"{_JARS}/{name}.jar" for name in _CLASS_PATH)
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    return Program(
        name="zookeeper",
        command=("/usr/bin/java", *_JVM, "-cp", path, main, "/etc/zookeeper/zoo.cfg"),
        directory="/",
        log=f"{units.LOGS}/zookeeper.log",
        restart_s=0.5,
        stop_s=10.0,
    )

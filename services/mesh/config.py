"""The one configuration file of a node: what can be set, what it is when it is not, what it may be.

Reads the file and nothing else; each service is given its own section. The sample file and the
documentation are made from the texts below the settings here.
"""

from __future__ import annotations

import ast
import inspect
import ipaddress
import json
import os
import platform
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError, nearest, shown

DEFAULT_PATH = Path("/etc/pvc/pvc.toml")
ENVIRONMENT = "PVC_CONFIG"
"""The variable that names another file."""
SERVICES = ("compute", "storage", "network", "provisioner", "coordinator", "gateway")

_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ORIGIN = re.compile(
    r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?"
)
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")

Port = Annotated[int, msgspec.Meta(ge=1, le=65_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=256)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of the file."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """Settings that are not what they must be: key, and what it must be."""
        return iter(())


class NodeSection(Section, frozen=True, kw_only=True):
    """This machine."""

    name: str = ""
    """The node's name in the cluster. The machine's host name when empty."""
    state_dir: str = "/var/lib/pvc"
    """Where PVC keeps what must survive a restart of the machine."""
    run_dir: str = "/run/pvc"
    """Where PVC keeps sockets and what means nothing after a restart of the machine."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged: debug, info, warning or error."""
    log_format: Literal["logfmt", "json"] = "logfmt"
    """How a line of the log is written: logfmt or json."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if self.name and not _NODE_ID.fullmatch(self.name):
            yield "name", "be lower-case letters, digits and hyphens, 1 to 63"
        yield from _not_absolute(state_dir=self.state_dir, run_dir=self.run_dir)


class ClusterSection(Section, frozen=True, kw_only=True):
    """The cluster that the node belongs to."""

    name: str = "pvc"
    """Its name, which its certificates carry too."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if not _NODE_ID.fullmatch(self.name):
            yield "name", "be lower-case letters, digits and hyphens, 1 to 63"


class StateSection(Section, frozen=True, kw_only=True):
    """Where the cluster's state is kept."""

    driver: Literal["sqlite", "zookeeper"] = "sqlite"
    """sqlite: in a file of this machine, for one process. zookeeper: in a ZooKeeper ensemble."""
    hosts: tuple[str, ...] = ("127.0.0.1:2181",)
    """The servers of the ZooKeeper ensemble, host:port each."""
    session_timeout_s: Annotated[int, msgspec.Meta(ge=2, le=120)] = 6
    """After how many seconds without a sign of life a node's session with ZooKeeper ends."""
    tick_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    """The tickTime of the ZooKeeper servers, if they all have the same: with it a node with a
    watchdog can bear longer gaps in its contact with them. 0: not known."""
    credentials_file: str = ""
    """The file that holds USER:PASSWORD for ZooKeeper, for root alone. With it nobody else can read
    or write the state. Empty: whoever reaches the servers can."""
    tls: bool = False
    """Speak TLS with the ZooKeeper servers, with this node's certificate of the cluster."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if self.driver == "zookeeper" and not self.hosts:
            yield "hosts", "name at least one server"
        for host in self.hosts:
            yield from _not_listen(hosts=host)
        if self.credentials_file:
            yield from _not_absolute(credentials_file=self.credentials_file)


class MeshSection(Section, frozen=True, kw_only=True):
    """How the cluster's services reach each other."""

    listen: str = ""
    """This node's address for the services of other nodes. Empty: there are no others, and the
    services of this machine use sockets in node.run_dir."""
    first_port: Port = 7380
    """The first of the ports that the services listen on there, one each."""
    tls_dir: str = ""
    """The folder of the node's certificate and key. node.state_dir/tls when empty."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if self.listen and not _is_address(self.listen):
            yield "listen", "be an IP address of this machine"
        if self.tls_dir:
            yield from _not_absolute(tls_dir=self.tls_dir)


class GatewaySection(Section, frozen=True, kw_only=True):
    """The doors to the outside."""

    grpc_listen: str = "127.0.0.1:7371"
    """Where the gRPC door is, host:port. Empty: there is none."""
    rest_listen: str = "127.0.0.1:7370"
    """Where the REST door and the web page are, host:port. Empty: there are none."""
    socket: str = ""
    """The socket of the door for this machine's root, who may do everything. node.run_dir/pvc.sock
    when empty."""
    certificate: str = ""
    """The PEM file of the doors' certificate. Without it they speak plainly, on loopback only."""
    key: str = ""
    """The PEM file of the certificate's key."""
    allowed_origins: tuple[str, ...] = ()
    """Of which web pages' scripts may call the REST door: scheme://host or scheme://host:port
    each, or "*" for all. Empty: only the door's own page."""
    tries_per_s: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 3.0
    """How often one address may come with no credentials or wrong ones, in a second; some more at
    once."""
    requests_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 500.0
    """How many requests a second one token may make at this gateway, twice as many at once. 0: any
    number."""
    streams_per_caller: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 200
    """How many watches, consoles and transfers one token may have open at this gateway. 0: any
    number."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4000
    """How many connections each of the two doors has at most; those beyond are closed."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        doors = {"grpc_listen": self.grpc_listen, "rest_listen": self.rest_listen}
        yield from _not_listen(**{key: value for key, value in doors.items() if value})
        paths = {"socket": self.socket, "certificate": self.certificate, "key": self.key}
        yield from _not_absolute(**{key: value for key, value in paths.items() if value})
        if bool(self.certificate) != bool(self.key):
            yield "key", "be given together with certificate"
        if not all(_ORIGIN.fullmatch(origin) for origin in self.allowed_origins):
            yield "allowed_origins", 'be a list of origins like "https://pvc.example.org:8443"'


class AuditSection(Section, frozen=True, kw_only=True):
    """How the gateway writes down who does what."""

    strict: bool = False
    """What happens to calls that would change something while the journal cannot be written, as on
    a disk that is full or hangs. false: they go on, and their number is told; true: they are
    refused. Calls that only read go on in any case."""


class ComputeSection(Section, frozen=True, kw_only=True):
    """Virtual machines on this node."""

    libvirt_uri: str = ""
    """The libvirt to use, such as qemu:///system. Empty: PVC starts one of its own."""
    migration_host: str = ""
    """Where the libvirt of libvirt_uri takes VMs from other nodes, by TLS: a host name or IP
    address. Empty: it takes none. PVC's own takes them at mesh.listen."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    """kvm, tcg (emulation: slow, runs anywhere), or auto: kvm where it truly works."""
    reserved_memory_mib: Amount = 1024
    """Memory that is kept for the machine itself, in MiB."""
    cpu_model: str = ""
    """The processor model of VMs that name none. Empty: what fits the accelerator."""
    parallel: Count = 8
    """How many VMs are worked on at a time."""
    watchdog: str = ""
    """What resets this machine when its agent has no contact with the state any more, so that its
    VMs may be started elsewhere: a device such as /dev/watchdog that counts on while the machine
    stands still, or unix: and the path of a socket. Empty: nothing does."""
    watchdog_timeout_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 0
    """After how many seconds it does, at most half of state.session_timeout_s. 0: half of that."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if self.watchdog:
            yield from _not_absolute(watchdog=self.watchdog.removeprefix("unix:"))
        if not re.fullmatch(r"[A-Za-z0-9.:-]{0,255}", self.migration_host):
            yield "migration_host", "be a host name or IP address"
        if self.migration_host and not self.libvirt_uri:
            yield "migration_host", "be left out: PVC's own libvirt is at mesh.listen"


class StorageSection(Section, frozen=True, kw_only=True):
    """Volumes on this node."""

    pool_path: str = ""
    """The folder of the default pool. node.state_dir/pools/default when empty."""
    pool_reserve_mib: Amount = 0
    """What new volumes leave free in it, in MiB. 0: the usual."""
    parallel: Count = 4
    """How many operations are worked on at a time."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if self.pool_path:
            yield from _not_absolute(pool_path=self.pool_path)


class NetworkSection(Section, frozen=True, kw_only=True):
    """Networks of VMs on this node."""

    namespace: str = ""
    """A network namespace of PVC's own, made if missing. Empty: the machine's own network."""
    uplink: str = ""
    """The interface by which guests leave. Empty: whichever the machine's routes say."""
    default_cidr: str = "10.64.0.0/24"
    """The addresses of the network `default`, which is made with the cluster."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        for key in ("namespace", "uplink"):
            if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,14})?", getattr(self, key)):
                yield key, "be letters, digits, dots, underscores and hyphens, up to 15"
        if not _is_network(self.default_cidr):
            yield "default_cidr", "be an IPv4 network such as 10.64.0.0/24"


class ProvisionerSection(Section, frozen=True, kw_only=True):
    """Images of operating systems."""

    mirrors: tuple[str, ...] = ()
    """Sources of Debian packages, as lines of sources.list. Empty: the machine's own."""
    work_dir: str = ""
    """Where images are built: several GiB. node.state_dir/images when empty."""

    def wrong(self) -> Iterator[tuple[str, str]]:
        """See Section."""
        if self.work_dir:
            yield from _not_absolute(work_dir=self.work_dir)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, with everything filled in that it leaves out."""

    node: NodeSection
    cluster: ClusterSection
    state: StateSection
    mesh: MeshSection
    gateway: GatewaySection
    audit: AuditSection
    compute: ComputeSection
    storage: StorageSection
    network: NetworkSection
    provisioner: ProvisionerSection

    @property
    def node_name(self) -> str:
        """The node as a resource: "nodes/n1"."""
        return f"nodes/{self.node.name}"

    @property
    def tls_dir(self) -> Path:
        """The folder of the node's certificate and key."""
        return Path(self.mesh.tls_dir or f"{self.node.state_dir}/tls")

    @property
    def door(self) -> str:
        """Where callers from other machines come in by gRPC, host:port; "" when they cannot."""
        host, _, port = self.gateway.grpc_listen.rpartition(":")
        if host in ("0.0.0.0", "[::]"):
            host = f"[{self.mesh.listen}]" if ":" in self.mesh.listen else self.mesh.listen
        return f"{host}:{port}" if host and not _is_loopback(host.strip("[]")) else ""

    def socket(self, service: str) -> Path:
        """The socket that a service of this node listens on."""
        assert service in SERVICES
        return Path(self.node.run_dir) / "mesh" / f"{service}.sock"

    def addresses(self) -> dict[str, str]:
        """Service → its address for the other services of this node."""
        return {service: f"unix:{self.socket(service)}" for service in SERVICES}

    def public_addresses(self) -> dict[str, str]:
        """Service → its address for other nodes; empty when there are none."""
        if not self.mesh.listen:
            return {}
        host = f"[{self.mesh.listen}]" if ":" in self.mesh.listen else self.mesh.listen
        ports = range(self.mesh.first_port, self.mesh.first_port + len(SERVICES))
        return {service: f"{host}:{port}" for service, port in zip(SERVICES, ports, strict=True)}


SECTIONS: Mapping[str, type[Section]] = {
    "node": NodeSection,
    "cluster": ClusterSection,
    "state": StateSection,
    "mesh": MeshSection,
    "gateway": GatewaySection,
    "audit": AuditSection,
    "compute": ComputeSection,
    "storage": StorageSection,
    "network": NetworkSection,
    "provisioner": ProvisionerSection,
}


def load(path: Path | None = None) -> Config:
    """The file at `path`, else the one that PVC_CONFIG names, else the usual one if it is there.

    Raises INVALID_CONFIG naming file, key and what it must be.
    """
    named = path or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    file = named or DEFAULT_PATH
    if named is None and not file.exists():
        return parse("", str(file))
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(f"cannot read {file}: {error}") from error
    return parse(text, str(file))


def parse(text: str, file: str) -> Config:
    """The configuration that a text says. Raises INVALID_CONFIG naming `file`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(f"{file} is not TOML: {error}") from error
    for name in content:
        if name not in SECTIONS:
            raise _invalid(f"{file}: there is no section {shown(name)}{nearest(name, SECTIONS)}")
    sections: dict[str, Any] = {
        name: _section(name, kind, content.get(name, {}), file) for name, kind in SECTIONS.items()
    }
    if not sections["node"].name:
        host = platform.node().partition(".")[0].lower()
        sections["node"] = msgspec.structs.replace(sections["node"], name=host)
        _check("node", sections["node"], file)
    return Config(**sections)


def _section(name: str, kind: type[Section], content: object, file: str) -> Section:
    if not isinstance(content, dict):
        raise _invalid(f"{file}: {name} must be a section: [{name}]")
    for key in content:
        if key not in kind.__struct_fields__:
            known = nearest(key, kind.__struct_fields__)
            raise _invalid(f"{file}: [{name}] has no key {shown(key)}{known}")
    try:
        section = msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        raise _invalid(f"{file}: [{name}] {place.rstrip('`')}: {said}") from error
    _check(name, section, file)
    return section


def _check(name: str, section: Section, file: str) -> None:
    for key, words in section.wrong():
        value = getattr(section, key)
        raise _invalid(f"{file}: [{name}] {key} must {words} (got {shown(value)})")


def sample() -> str:
    """A file with all settings, each explained and commented out at its default."""
    parts = ["# The configuration of a node of PVC. What is commented out is the default.\n"]
    for name, kind in SECTIONS.items():
        parts.append(f"\n# {inspect.getdoc(kind)}\n[{name}]\n")
        defaults, explained = kind(), documentation(kind)
        for key in kind.__struct_fields__:
            comment = textwrap.fill(explained[key], 96, initial_indent="# ", subsequent_indent="# ")
            parts.append(f"{comment}\n#{key} = {json.dumps(getattr(defaults, key))}\n")
    return "".join(parts)


def documentation(kind: type[Section]) -> dict[str, str]:
    """Setting → the text below it in the source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for setting, text in zip(body.body, body.body[1:], strict=False):
        match setting, text:
            case (
                ast.AnnAssign(target=ast.Name(id=key)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                texts[key] = " ".join(words.split())
    return texts


def _not_absolute(**paths: str) -> Iterator[tuple[str, str]]:
    for key, path in paths.items():
        if not path.startswith("/") or "\0" in path or ".." in Path(path).parts:
            yield key, "be an absolute path"


def _not_listen(**addresses: str) -> Iterator[tuple[str, str]]:
    for key, address in addresses.items():
        match = _LISTEN.fullmatch(address)
        if match is None or not 0 <= int(match[2]) <= 65_535:
            yield key, "be host:port"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_network(text: str) -> bool:
    try:
        return str(ipaddress.IPv4Network(text)) == text
    except ValueError:
        return False


def _invalid(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, message)

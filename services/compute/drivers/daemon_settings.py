"""The settings files of the private libvirtd: what is in them and why. It reads the certificates,
and makes links to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

MIGRATION_PORT = 16514
"""Where a libvirtd listens for those of other nodes."""
PKI_PLACE = "/etc/libvirt/pki"
"""Where the daemon and its emulators find the node's certificate, as they see it."""

_LIBVIRTD_CONF = """\
# Written by PVC at every start; changes are lost.
listen_tcp = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
host_uuid = "{host_uuid}"
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
max_clients = 200
"""

# The certificate is read at the start only: with the mark another one is another setting.
# Nobody gets in without a certificate of the cluster, whose authority signs nothing but nodes.
_DOOR = """\
listen_tls = 1
listen_addr = "{address}"
tls_port = "{port}"
ca_file = "{pki}/cacert.pem"
cert_file = "{pki}/servercert.pem"
key_file = "{pki}/serverkey.pem"
# certificate {mark}
tls_no_verify_certificate = 0
"""
_NO_DOOR = "listen_tls = 0\n"

# stdio_handler "file": the emulators write console and error logs themselves, opened to append, and
# the agent rotates them (console_log). With virtlogd there would be one more process, whose end
# cuts every guest's log off for good. No cgroups: two libvirtds on one machine would use the same
# ones for domains of the same number and name.
_QEMU_CONF = """\
# Written by PVC at every start; changes are lost.
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
vnc_listen = "127.0.0.1"
remote_display_port_min = {vnc_first}
remote_display_port_max = {vnc_last}
"""

# The keepalives are those of one libvirtd to the other while a domain moves: after ten seconds of
# silence the migration has failed, which is less than it takes to prove a node dead.
_QEMU_DOOR = """\
migration_address = "{address}"
migration_host = "{address}"
default_tls_x509_cert_dir = "{pki}"
default_tls_x509_verify = 1
keepalive_interval = 2
keepalive_count = 4
"""

_LINKS = {
    "ca.crt": ("cacert.pem", "ca-cert.pem"),
    "node.crt": ("servercert.pem", "clientcert.pem", "server-cert.pem", "client-cert.pem"),
    "node.key": ("serverkey.pem", "clientkey.pem", "server-key.pem", "client-key.pem"),
}
"""A node's files → the names by which libvirt and QEMU look for them."""


@dataclass(frozen=True, slots=True)
class Door:
    """How the libvirtds of other nodes get in to bring a VM. Always by TLS."""

    address: str
    """An IP address of this node; nothing listens on any other."""
    tls: Path
    """The folder with the node's ca.crt, node.crt and node.key."""


@dataclass(frozen=True, slots=True)
class Peers:
    """How the libvirts of other nodes are reached."""

    here: Path | None = None
    """The folder with this node's certificate, under libvirt's names for it, as this process sees
    it; None: where libvirt looks for it itself."""
    daemon: str = ""
    """The same as this node's libvirtd sees it."""

    def uri(self, host: str, folder: str) -> str:
        """The libvirt of another node."""
        where = f"?pkipath={quote(folder)}" if folder else ""
        return f"qemu+tls://{bracketed(host)}:{MIGRATION_PORT}/system{where}"


def libvirtd_conf(host_uuid: str, door: Door | None) -> str:
    """The daemon's own."""
    entrance = _NO_DOOR
    if door is not None:
        entrance = _DOOR.format(
            address=door.address, port=MIGRATION_PORT, pki=PKI_PLACE, mark=_mark(door)
        )
    return _LIBVIRTD_CONF.format(host_uuid=host_uuid) + entrance


def qemu_conf(vnc_ports: tuple[int, int], door: Door | None) -> str:
    """That of its emulators."""
    first, last = vnc_ports
    text = _QEMU_CONF.format(vnc_first=first, vnc_last=last)
    return text if door is None else text + _QEMU_DOOR.format(address=door.address, pki=PKI_PLACE)


def _mark(door: Door) -> str:
    """Another for every certificate. It is written after its key."""
    parts = [door.tls / name for name in ("ca.crt", "node.crt")]
    content = b"".join(part.read_bytes() for part in parts if part.exists())
    return hashlib.sha256(content).hexdigest()


def link_certificates(folder: Path, door: Door) -> None:
    """Links rather than copies: emulators, and the daemon when it calls another, read the files for
    each migration, and so take a renewed certificate at once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, places in _LINKS.items():
        for place in places:
            link, target = folder / place, door.tls / name
            if not link.is_symlink() or link.readlink() != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)


def bracketed(host: str) -> str:
    """As it is written in an address with a port."""
    return f"[{host}]" if ":" in host else host

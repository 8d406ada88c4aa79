"""The lab's secrets, made once and kept with the nodes' disks: the name and password at ZooKeeper,
and the controllers' password and certificate."""

from __future__ import annotations

import secrets
import ssl
from datetime import UTC, datetime
from pathlib import Path

from lab.cluster.site import CONTROLLERS, Lab
from services.mesh.identity import Files, new_authority, new_node, write_private

CONTROLLER_USER = "admin"


def zookeeper(lab: Lab) -> bytes:
    """The file that every node has: "user:password"."""
    return _kept(lab.disk / "zookeeper.secret", f"pvc:{secrets.token_urlsafe(24)}\n")


def controller_password(lab: Lab) -> str:
    """Of the account `admin` on all controllers."""
    # IPMI takes no longer ones.
    return _kept(lab.disk / "controllers" / "password", secrets.token_urlsafe(12)).decode()


def controller_authority(lab: Lab) -> str:
    """The PEM that the controllers' certificate is checked by."""
    return _controller_files(lab).pair("ca").certificate_pem.decode()


def controller_tls(lab: Lab) -> ssl.SSLContext:
    """What the controllers show."""
    folder = _controller_files(lab).folder
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "node.crt", folder / "node.key")
    return context


def _controller_files(lab: Lab) -> Files:
    files, now = Files(lab.disk / "controllers"), datetime.now(UTC)
    if not (files.folder / "node.crt").exists():
        authority = new_authority("controllers", now)
        files.write("ca", authority)
        files.write("node", new_node(authority, "controllers", [CONTROLLERS], now))
    return files


def _kept(file: Path, fresh: str) -> bytes:
    if not file.exists():
        write_private(file, fresh.encode())
    return file.read_bytes()

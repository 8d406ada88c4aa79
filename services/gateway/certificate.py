"""The certificate that the doors show, read again when its files change: the node's own is renewed
while the process runs, and so may be the one that an administrator gives."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.mesh.identity import moment_of

log = logging.getLogger("pvc.gateway")

Stamp = tuple[tuple[int, int], ...]
"""When the files were last written, and how long they are."""
OTHERS = 0o007


class DoorCertificate:
    """Two PEM files: the certificate with its chain, and its key."""

    def __init__(self, certificate: Path, key: Path, now: Callable[[], Timestamp]) -> None:
        self._files = certificate, key
        self._now = now
        self._shown: dict[str, Stamp] = {}
        """Door → what was last taken for it."""
        self._renewed: ssl.SSLContext | None = None
        """What REST shows since the files changed."""

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a server that anybody may speak to. A new certificate is shown from the next
        connection on. Raises INVALID_CONFIG."""
        first = self._pair("grpc")
        return grpc.dynamic_ssl_server_credentials(first, cast(Any, self._newer), False)

    def check(self) -> None:
        """Raises INVALID_CONFIG when the files are not what they must be."""
        checked(*self._files, self._now())

    def keep_fresh(self, context: ssl.SSLContext) -> None:
        """Has a context speak no TLS older than 1.2, and take up a new certificate from the next
        connection on."""
        _narrowed(context)
        self._shown["rest"] = self._stamp()

        def look(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
            if self._shown["rest"] != self._stamp():
                self._reload()
            if self._renewed is not None:
                connection.context = self._renewed

        context.sni_callback = look

    def _reload(self) -> None:
        """What a connection has is its context's at the time when it began: a new certificate needs
        a new context."""
        stamp = self._stamp()
        fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _narrowed(fresh)
        try:
            self.check()
            fresh.load_cert_chain(*map(str, self._files))
            self._renewed = fresh
        except (OSError, PvcError) as error:
            log.error("going on with the certificate of before: %s", error)
        self._shown["rest"] = stamp

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections are served with; None: what the last ones were."""
        stamp = self._stamp()
        if self._shown["grpc"] == stamp:
            return None
        try:
            return self._pair("grpc")
        except PvcError as error:
            log.error("going on with the certificate of before: %s", error)
            self._shown["grpc"] = stamp
            return None

    def _pair(self, door: str) -> grpc.ServerCertificateConfiguration:
        stamp = self._stamp()
        pair = checked(*self._files, self._now())
        self._shown[door] = stamp
        return grpc.ssl_server_certificate_configuration([pair])

    def _stamp(self) -> Stamp:
        """Empty parts for files that are not there."""
        found = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                found.append((0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_ino))
        return tuple(found)


def checked(certificate: Path, key: Path, now: Timestamp) -> tuple[bytes, bytes]:
    """Key and certificates as PEM. Raises INVALID_CONFIG when they do not belong together, or would
    be refused by every caller."""
    chain_pem, key_pem = _read(certificate), _read(key)
    try:
        first, *_ = x509.load_pem_x509_certificates(chain_pem)
    except ValueError:
        _refuse(f"{certificate} is no certificate in PEM form")
    try:
        private = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError):
        _refuse(f"{key} is no unencrypted key in PEM form")
    if _spelled(private.public_key()) != _spelled(first.public_key()):
        _refuse(f"{certificate} was not made for the key {key}: give the two that belong together")
    if key.stat().st_mode & OTHERS:
        _refuse(f"{key} can be read by everybody: chmod 600 {key}")
    moment = moment_of(now)
    if moment > first.not_valid_after_utc:
        ended = f"{first.not_valid_after_utc:%Y-%m-%d}"
        _refuse(f"{certificate} expired on {ended}: have it renewed, or leave it out of pvc.toml "
                "for the node's own")  # fmt: skip
    if moment < first.not_valid_before_utc:
        begins = f"{first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        _refuse(f"{certificate} is valid only from {begins} on: is the machine's clock right?")
    return key_pem, chain_pem


def _narrowed(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])


def _spelled(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    spelled: bytes = key.public_bytes(serialization.Encoding.DER, form)
    return spelled


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror}")


def _refuse(problem: str) -> NoReturn:
    raise PvcError(reason_pb2.REASON_INVALID_CONFIG, f"the gateway's certificate: {problem}")

"""The certificate that the doors show, read again when its files change: the node's own is renewed
while the process runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any, cast

import grpc

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError

log = logging.getLogger("pvc.gateway")

Stamp = tuple[tuple[int, int], ...]
"""When the files were last written, and how long they are."""


class DoorCertificate:
    """Two PEM files: the certificate with its chain, and its key."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._shown: dict[str, Stamp] = {}
        """Door → what was last taken for it."""

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a server that anybody may speak to. A new certificate is shown from the next
        connection on. Raises INVALID_CONFIG."""
        first = self._pair("grpc")
        return grpc.dynamic_ssl_server_credentials(first, cast(Any, self._newer), False)

    def keep_fresh(self, context: ssl.SSLContext) -> None:
        """Has a context take up a new certificate: it is shown from the connection after the next
        one on."""
        self._shown["rest"] = self._stamp()

        def look(_connection: Any, _name: str | None, context: ssl.SSLContext) -> None:
            if self._shown["rest"] != self._stamp():
                self._reload(context)

        context.sni_callback = look

    def _reload(self, context: ssl.SSLContext) -> None:
        stamp = self._stamp()
        certificate, key = map(str, self._files)
        try:
            # A context that failed half-way would be of no use any more.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            context.load_cert_chain(certificate, key)
        except OSError as error:
            log.error("going on with the certificate of before: %s", error)
            return
        self._shown["rest"] = stamp

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections are served with; None: what the last ones were."""
        if self._shown["grpc"] == self._stamp():
            return None
        certificate, key = map(str, self._files)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            return self._pair("grpc")
        except (OSError, PvcError) as error:
            log.error("going on with the certificate of before: %s", error)
            return None

    def _pair(self, door: str) -> grpc.ServerCertificateConfiguration:
        stamp = self._stamp()
        certificate, key = self._files
        try:
            pair = key.read_bytes(), certificate.read_bytes()
        except OSError as error:
            raise PvcError(
                reason_pb2.REASON_INVALID_CONFIG, f"the gateway's certificate: {error}"
            ) from error
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

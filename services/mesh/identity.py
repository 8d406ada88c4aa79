"""Who is who in the mesh: the cluster's authority and the certificates of its nodes.

Files are written whole or not at all, for their owner alone. A node's certificate names the node
and its addresses; whoever holds one that the cluster's authority signed is that node.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError, shown

LOCAL_NAMES = ("localhost", "127.0.0.1")
"""In every node's certificate: its own programs come in by these."""
CA_LIFE = timedelta(days=3650)
NODE_LIFE = timedelta(days=365)
SKEW = timedelta(hours=1)
"""Clocks of nodes may differ by this much."""
log = logging.getLogger("pvc.identity")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """As it is kept."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """As it is kept."""
        return key_pem(self.key)


@dataclass(frozen=True, slots=True)
class Files:
    """A node's folder of certificates: ca.crt, node.crt and node.key, and ca.key on those nodes
    that may let others in."""

    folder: Path

    def server_credentials(self, now: Timestamp) -> grpc.ServerCredentials:
        """For a server: callers must hold a certificate of the cluster. A renewed certificate is
        used from the next connection on. Raises INVALID_CONFIG."""
        return grpc.dynamic_ssl_server_credentials(
            _served(*self.checked(now)), cast(Any, self._newer), True
        )

    def channel_credentials(self, now: Timestamp) -> grpc.ChannelCredentials:
        """For calls to others. Raises INVALID_CONFIG."""
        authority, certificate, key = self.checked(now)
        return grpc.ssl_channel_credentials(authority, key, certificate)

    def checked(self, now: Timestamp | None = None) -> tuple[bytes, bytes, bytes]:
        """Authority, certificate and key as PEM. Raises INVALID_CONFIG for what does not fit
        together, or is not valid `now` if that is given."""
        authority, pair = _certificate(self.folder / "ca.crt"), self.pair("node")
        if not _signed_by(pair.certificate, authority):
            raise _invalid(
                f"{self.folder}/node.crt was not issued by {self.folder}/ca.crt: they belong to "
                "different clusters; copy both from the same one"
            )
        if now is not None:
            check_valid(authority, self.folder / "ca.crt", moment_of(now))
            check_valid(pair.certificate, self.folder / "node.crt", moment_of(now))
        pem = authority.public_bytes(serialization.Encoding.PEM)
        return pem, pair.certificate_pem, pair.key_pem

    def pair(self, name: str) -> Pair:
        """A certificate with its key: "node" or "ca". Raises INVALID_CONFIG."""
        certificate = _certificate(self.folder / f"{name}.crt")
        key = read_key(self.folder / f"{name}.key")
        if certificate.public_key() != key.public_key():
            raise _invalid(
                f"{self.folder}/{name}.key is not the key of {self.folder}/{name}.crt; "
                "put back the pair that belongs together"
            )
        return Pair(certificate, key)

    def write(self, name: str, pair: Pair) -> None:
        """Keeps a pair. The key comes first: a certificate that is there has its key."""
        write_private(self.folder / f"{name}.key", pair.key_pem)
        write_private(self.folder / f"{name}.crt", pair.certificate_pem)

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections are served with; None: what the last ones were."""
        try:
            return _served(*self.checked())
        except PvcError as error:
            log.error("going on with the certificate of before: %s", error.message)
            return None


def _served(
    authority: bytes, certificate: bytes, key: bytes
) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def create_cluster(
    folder: Path, cluster_name: str, node_name: str, addresses: Sequence[str], now: Timestamp
) -> Files:
    """The authority of a new cluster and the certificate of its first node, in `folder`.

    May be called again: what is there and fits is kept; a node's certificate that has less than a
    third of its life left, or other addresses, is made anew. Raises INVALID_CONFIG.
    """
    files = Files(folder)
    moment = moment_of(now)
    if not (folder / "ca.crt").exists():
        files.write("ca", new_authority(cluster_name, moment))
    authority = files.pair("ca")
    if common_name(authority.certificate) != _authority_name(cluster_name):
        raise _invalid(
            f"{folder} belongs to the cluster {shown(common_name(authority.certificate))}, not to "
            f"{shown(cluster_name)}; use another folder, or the cluster's own name"
        )
    if not _fits(files, authority, node_name, addresses, moment):
        files.write("node", new_node(authority, node_name, addresses, moment))
    return files


def renew(folder: Path, now: Timestamp) -> bool:
    """Makes the node's certificate anew if it must be; says whether.

    Raises INVALID_CONFIG when it has expired and the authority's key is not here.
    """
    files, moment = Files(folder), moment_of(now)
    certificate = _certificate(folder / "node.crt")
    if not (folder / "ca.key").exists():
        files.checked(now)
        return False
    name, hosts = names_of(certificate)
    authority = files.pair("ca")
    if _fits(files, authority, name, hosts, moment):
        return False
    files.write("node", new_node(authority, name, hosts, moment))
    return True


def new_authority(cluster_name: str, now: datetime) -> Pair:
    """The authority of a cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _authority_name(cluster_name))])
    usage = _authority_usage()
    builder = (
        _certificate_of(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def new_node(authority: Pair, node_name: str, addresses: Sequence[str], now: datetime) -> Pair:
    """A node's certificate and key. node_name: "n1"; addresses: IP addresses and host names.

    Raises INVALID_CONFIG for a name that is none.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(issued(authority, key.public_key(), node_name, addresses, now), key)


def issued(
    authority: Pair,
    public_key: ec.EllipticCurvePublicKey,
    node_name: str,
    addresses: Sequence[str],
    now: datetime,
) -> x509.Certificate:
    """A node's certificate for a key that it has. Raises INVALID_CONFIG for a name that is none."""
    if not _HOST.fullmatch(node_name):
        raise _invalid(f"{shown(node_name)} cannot be a node's name in a certificate")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_name)])
    names = [_general_name(one) for one in dict.fromkeys((node_name, *addresses))]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = authority.certificate.subject
    builder = (
        _certificate_of(name, issuer, public_key, now, NODE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # No key usage: libvirt and QEMU of Debian 12 want one that is there to allow what only RSA
        # keys can do. They refuse a certificate for it, or log it at every connection.
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def wants_renewal(certificate: x509.Certificate, now: datetime) -> bool:
    """Less than a third of its life remains."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life / 3


def check_valid(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    """Raises INVALID_CONFIG for a certificate that is not valid now."""
    if now > certificate.not_valid_after_utc:
        raise _invalid(
            f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; "
            "have it renewed on a node that holds ca.key"
        )
    if now < certificate.not_valid_before_utc:
        raise _invalid(
            f"{path} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; "
            "is the machine's clock right?"
        )


def node_of(certificate_pem: bytes) -> str:
    """The node that a certificate stands for: "nodes/n1"."""
    return f"nodes/{common_name(x509.load_pem_x509_certificate(certificate_pem))}"


def common_name(certificate: x509.Certificate) -> str:
    """The name in a certificate's subject."""
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def write_private(path: Path, content: bytes) -> None:
    """Writes a file for its owner alone, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _fits(
    files: Files, authority: Pair, node_name: str, addresses: Sequence[str], now: datetime
) -> bool:
    try:
        certificate = files.pair("node").certificate
    except PvcError:
        # Not there, or a writer died between key and certificate: both are made anew.
        return False
    name, hosts = names_of(certificate)
    same = name == node_name and set(hosts) >= set(addresses)
    signed = _signed_by(certificate, authority.certificate)
    return same and signed and not wants_renewal(certificate, now)


def names_of(certificate: x509.Certificate) -> tuple[str, list[str]]:
    """The node's name, and its other names and addresses."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [str(name.value) for name in names]
    return common_name(certificate), hosts


def _authority_name(cluster_name: str) -> str:
    return f"PVC cluster {cluster_name}"


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificate_of(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _authority_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise _invalid(f"{path} is not a certificate in PEM form: {error}") from error


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as it is kept."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A key in PEM form. Raises INVALID_CONFIG."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise _invalid(f"{path} is not an unencrypted key in PEM form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _invalid(f"{path} is not an elliptic-curve key")
    return key


def moment_of(now: Timestamp) -> datetime:
    """A moment as certificates have it."""
    return now.ToDatetime(UTC)


def _invalid(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, message)

"""How a machine gets its certificate without its key ever leaving it: its request, and what the
cluster makes of that.

Knows files and certificates; who may have one is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import reason_pb2
from services.mesh import identity
from services.mesh.errors import PvcError, shown
from services.mesh.identity import Files, Pair, write_private

PENDING_KEY = "joining.key"
"""The key of a machine that has no certificate yet: one that asks again is known by it."""
CLUSTER_KEY = "cluster.key"
"""What secrets in the state are sealed with; on coordinators."""
CLUSTER_KEY_BYTES = 32
FIELD = "certificate_request"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate request whose sender has the key."""

    name: str
    """The node that it is to be: "n4"."""
    public_key: ec.EllipticCurvePublicKey
    key_hash: bytes
    """Tells one machine's requests from another's, however often it asks."""


def make_cluster_key(folder: Path) -> None:
    """Makes the cluster's key if it is not there."""
    if not (folder / CLUSTER_KEY).exists():
        write_private(folder / CLUSTER_KEY, os.urandom(CLUSTER_KEY_BYTES))


def pending_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key that this machine asks with: made once, kept until it has its certificate. Raises
    INVALID_CONFIG."""
    path = folder / PENDING_KEY
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(path, identity.key_pem(key))
    return identity.read_key(path)


def request_for(key: ec.EllipticCurvePrivateKey, node_name: str) -> str:
    """A certificate request in PEM. node_name: "n4"."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def read_request(pem: str) -> Wanted:
    """What a request asks for. Raises INVALID_CONTENT unless it is signed by its own key, an
    elliptic-curve one, and names a node and nothing else."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        sound = isinstance(key, ec.EllipticCurvePublicKey) and request.is_signature_valid
        names = [str(name.value) for name in request.subject]
        bare = not list(request.extensions)
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        raise _refused(f"it is not a certificate request in PEM form: {error}") from None
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey):
        raise _refused("it must be signed by its own elliptic-curve key")
    if len(names) != 1 or not bare:
        raise _refused("it must name the node as its common name, and nothing else")
    return Wanted(names[0], key, hashlib.sha256(_der(key)).digest())


def check_name(wanted_name: str, node_name: str) -> None:
    """Raises INVALID_CONTENT for a request in the name of another node."""
    if wanted_name != node_name:
        raise _refused(
            f"it must have {shown(node_name)} as its common name, not {shown(wanted_name)}"
        )


def certificate_for(
    folder: Path, wanted: Wanted, node_name: str, addresses: Sequence[str], now: Timestamp
) -> str:
    """The certificate in PEM, signed by the authority in `folder`. Raises INVALID_CONFIG."""
    authority, moment = Files(folder).pair("ca"), identity.moment_of(now)
    names = (*addresses, *identity.LOCAL_NAMES)
    certificate = identity.issued(authority, wanted.public_key, node_name, names, moment)
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def keep(
    folder: Path,
    key: ec.EllipticCurvePrivateKey,
    certificate: str,
    authority: str,
    *,
    authority_key: str = "",
    cluster_key: bytes = b"",
) -> None:
    """Writes what a machine was given, the certificate last: one that is there has all that belongs
    to it. Raises INVALID_CONFIG for a certificate that is not for the key."""
    issued = x509.load_pem_x509_certificate(certificate.encode())
    if issued.public_key() != key.public_key():
        raise PvcError(
            reason_pb2.REASON_INVALID_CONFIG,
            "the certificate that came is for another key than this machine asked with; ask again",
        )
    write_private(folder / "ca.crt", authority.encode())
    if authority_key:
        write_private(folder / "ca.key", authority_key.encode())
    if cluster_key:
        write_private(folder / CLUSTER_KEY, cluster_key)
    # Whoever reads between these two writes finds a pair that does not fit, as `pair` says; a
    # machine that joins has nobody who reads yet, and one that renews reads again.
    Files(folder).write("node", Pair(issued, key))
    (folder / PENDING_KEY).unlink(missing_ok=True)


def _der(key: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)


def _refused(problem: str) -> PvcError:
    return PvcError(
        reason_pb2.REASON_INVALID_CONTENT,
        f"the certificate request cannot be answered: {problem}; 'pvc cluster join' makes one",
        field=FIELD,
    )

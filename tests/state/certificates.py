"""A certificate authority and one certificate for 127.0.0.1, as PEM files, for a test."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class PemFiles:
    """Where they are. both: certificate and key in one file, as ZooKeeper wants them."""

    ca: Path
    certificate: Path
    key: Path
    both: Path


def write_certificates(folder: Path) -> PemFiles:
    """Makes them in a folder."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = named("test authority"), named("test node")
    ca = begun(ca_name, ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    mine = begun(name, ca_name, key.public_key()).add_extension(address, critical=False)
    pem = serialization.Encoding.PEM
    texts = {
        "ca": ca.sign(ca_key, hashes.SHA256()).public_bytes(pem),
        "certificate": mine.sign(ca_key, hashes.SHA256()).public_bytes(pem),
        "key": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    texts["both"] = texts["key"] + texts["certificate"]
    for file, text in texts.items():
        (folder / f"{file}.pem").write_bytes(text)
    return PemFiles(**{file: folder / f"{file}.pem" for file in texts})


def named(name: str) -> x509.Name:
    """A subject with nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """A certificate for a day."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )

"""Seals small secrets with the cluster's key, so that whoever reads the state learns nothing.

Each is sealed for the name of its row: put into another row it does not open. Never logs a secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pvc.core.v1 import meta_pb2, reason_pb2, secret_pb2
from services.mesh.errors import PvcError
from services.mesh.identity import write_private

KEY_FILE = "cluster.key"
KEY_BYTES = 32
_NONCE_BYTES = 12


def create_key(folder: Path) -> bytes:
    """The cluster's key, made if there is none. folder: that of the node's certificates."""
    if not (folder / KEY_FILE).exists():
        write_key(folder, os.urandom(KEY_BYTES))
    return read_key(folder)


def write_key(folder: Path, key: bytes) -> None:
    """Keeps a key that was handed over."""
    assert len(key) == KEY_BYTES
    write_private(folder / KEY_FILE, key)


def read_key(folder: Path) -> bytes:
    """The key. Raises INVALID_CONFIG when it is not here, is none, or others can read it."""
    path = folder / KEY_FILE
    try:
        key, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise _invalid(
            f"the cluster's key cannot be read ({error}): copy {path} from a node that is a "
            "coordinator"
        ) from error
    if mode & 0o077:
        raise _invalid(f"{path} can be read by others: chmod 600 {path}")
    if len(key) != KEY_BYTES:
        raise _invalid(f"{path} is not a key of {KEY_BYTES} bytes: copy it from another node")
    return key


def seal(key: bytes, name: str, secret: str) -> bytes:
    """What is kept of a secret in the row `name` ("secrets/power.n1")."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret.encode(), name.encode())


def unseal(key: bytes, name: str, sealed: bytes) -> str:
    """The secret of the row `name`. Raises INVALID_CONFIG when it was sealed by another key or for
    another row, or is damaged."""
    nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, text, name.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise _invalid(
            f"{name} cannot be opened with this node's cluster.key: it is damaged, or the key is "
            "not the cluster's. Set the secret again, or copy the key from another coordinator"
        ) from error


def sealed_row(
    key: bytes, there: secret_pb2.Secret | None, name: str, secret: str, uid: str
) -> secret_pb2.Secret:
    """The row `name` with that secret, to be put. there: the row as it is now; uid: for a new
    one."""
    row = secret_pb2.Secret(name=name, meta=meta_pb2.Meta(uid=uid, generation=1))
    if there is not None:
        row.meta.CopyFrom(there.meta)
        row.meta.generation += 1
    row.sealed = seal(key, name, secret)
    return row


def _invalid(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, message)

"""Seals small secrets with the cluster's key, so that whoever reads the state learns nothing.

Each is sealed for the name of its row: put into another row it does not open. Never logs a secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pvc.core.v1 import reason_pb2
from services.mesh.enrolment import CLUSTER_KEY, CLUSTER_KEY_BYTES
from services.mesh.errors import PvcError

_NONCE_BYTES = 12


def read_key(folder: Path) -> bytes:
    """The key. Raises INVALID_CONFIG when it is not here, is none, or others can read it."""
    path = folder / CLUSTER_KEY
    try:
        key, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise _invalid(
            f"the cluster's key cannot be read ({error}): copy {path} from a node that is a "
            "coordinator"
        ) from error
    if mode & 0o077:
        raise _invalid(f"{path} can be read by others: chmod 600 {path}")
    if len(key) != CLUSTER_KEY_BYTES:
        raise _invalid(
            f"{path} is not a key of {CLUSTER_KEY_BYTES} bytes: copy it from another node"
        )
    return key


def seal(key: bytes, name: str, secret: bytes) -> bytes:
    """What is kept of a secret in the row `name` ("secrets/power.n1")."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, name.encode())


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


def _invalid(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, message)

"""Secrets in the state: who has the key reads them, where they belong, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.mesh.enrolment import make_cluster_key
from services.mesh.sealing import read_key, seal, unseal
from tests.state.places import refused

NAME = "secrets/power.n1"


@pytest.fixture
def key(tmp_path: Path) -> bytes:
    make_cluster_key(tmp_path)
    return read_key(tmp_path)


@pytest.mark.parametrize("secret", ["", "calvin", "pässwörd " * 20])
def test_what_was_sealed_is_opened(key: bytes, secret: str) -> None:
    sealed = seal(key, NAME, secret.encode())
    assert unseal(key, NAME, sealed) == secret
    assert not secret or secret.encode() not in sealed


def test_the_same_secret_is_sealed_differently_each_time(key: bytes) -> None:
    assert seal(key, NAME, b"x") != seal(key, NAME, b"x")


def test_it_opens_only_where_it_belongs(key: bytes) -> None:
    """Whoever can write to the state must not have another controller given this password."""
    sealed = seal(key, NAME, b"secret")
    with refused("INVALID_CONFIG") as error:
        unseal(key, "secrets/power.n2", sealed)
    assert "secret again" in error.value.message


@pytest.mark.parametrize("cut", [0, 5, 12, 20])
def test_what_is_damaged_is_told(key: bytes, cut: int) -> None:
    with refused("INVALID_CONFIG"):
        unseal(key, NAME, seal(key, NAME, b"secret")[:cut])
    with refused("INVALID_CONFIG"):
        unseal(bytes(32), NAME, seal(key, NAME, b"secret"))


def test_a_key_that_is_not_there_or_not_safe_is_told(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "cluster.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with refused("INVALID_CONFIG") as error:
        read_key(tmp_path)
    assert "chmod 600" in error.value.message
    path.chmod(0o600)
    path.write_bytes(key[:31])
    with refused("INVALID_CONFIG"):
        read_key(tmp_path)
    path.unlink()
    with refused("INVALID_CONFIG") as error:
        read_key(tmp_path)
    assert "a coordinator" in error.value.message

"""How the configuration says where the state is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.mesh.config import Config, parse
from services.mesh.errors import PvcError
from services.mesh.opening import ensemble


def configured(folder: Path, more: str) -> Config:
    return parse(
        f'[node]\nname = "n1"\nstate_dir = "{folder}"\n[state]\ndriver = "zookeeper"\n'
        f'hosts = ["zk1:2181", "zk2:2181"]\nsession_timeout_s = 6\n{more}',
        "test",
    )


def test_the_ensemble_is_as_configured(tmp_path: Path) -> None:
    secret = tmp_path / "zk"
    secret.write_text("pvc:hush\n")
    secret.chmod(0o600)
    found = ensemble(configured(tmp_path, f'credentials_file = "{secret}"\ntls = true'))
    assert (found.hosts, found.session_timeout_s) == ("zk1:2181,zk2:2181", 6)
    assert found.credentials == "pvc:hush"
    assert found.tls is not None
    assert found.tls.key == tmp_path / "tls/node.key"
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [("pvc:hush", 0o644, "chmod 600"), ("hush", 0o600, "USER:PASSWORD"), (None, 0, "cannot be")],
)
def test_credentials_that_cannot_be_used_are_said(
    tmp_path: Path, text: str | None, mode: int, said: str
) -> None:
    secret = tmp_path / "zk"
    if text is not None:
        secret.write_text(text)
        secret.chmod(mode)
    with pytest.raises(PvcError, match=said):
        ensemble(configured(tmp_path, f'credentials_file = "{secret}"'))

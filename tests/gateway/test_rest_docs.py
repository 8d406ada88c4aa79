"""The session in docs/rest.md, typed as it stands there, with what is shown below each command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.whole import running

DOCUMENT = Path(__file__).parents[2] / "docs" / "rest.md"
TYPED_S = 60
MARK = "-- end of a command --"


def session() -> Iterator[tuple[str, str]]:
    """Each command and what it shows, in which "…" stands for anything."""
    text = DOCUMENT.read_text().partition("## gRPC")[0]
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown.strip()


def fits(shown: str, told: str) -> bool:
    """Whether what was told is what is shown."""
    pattern = ".*".join(re.escape(piece) for piece in shown.split("…"))
    return re.fullmatch(pattern, told.replace("\r", "").strip(), re.S) is not None


@pytest.mark.skipif(shutil.which("curl") is None, reason="the session is typed with curl")
def test_the_session_is_as_it_is_shown(tmp_path: Path) -> None:
    steps = list(session())
    typed = "\n".join(f"{command}\necho '{MARK}'" for command, _ in steps)
    with running(tmp_path / "pvc") as whole:
        (tmp_path / "token").write_text(whole.secrets["eve"])
        typed = typed.replace("/tmp/", f"{tmp_path}/")
        typed = typed.replace("http://127.0.0.1:7370", whole.rest_url)
        typed = typed.replace("/var/lib/pvc/admin.token", str(tmp_path / "token"))
        done = subprocess.run(
            ["bash", "-s"], input=typed, capture_output=True, text=True, timeout=TYPED_S,
            env={"PATH": os.environ["PATH"]}, check=False,
        )  # fmt: skip
    told = done.stdout.split(MARK)[:-1]
    assert len(told) == len(steps) > 15, done.stderr
    for (command, shown), said in zip(steps, told, strict=True):
        assert fits(shown, said), f"$ {command}\n{said}\nis not\n{shown}\n{done.stderr}"
    assert not done.stderr

"""Makes the blocking half of the Python client from its asyncio half: pvc_client/aio/NAME.py →
pvc_client/NAME.py. `check` writes nothing, and fails when a committed file is not what would be
made.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from unasync import Rule, unasync_files

PACKAGE = Path(__file__).parent.parent / "clients/python/src/pvc_client"
BY_HAND = ("__init__.py", "wire.py")
"""What each half has of its own."""
NEXT = {"anext": "next", "aiter": "iter"}
RUFF = [str(Path(sys.executable).parent / "ruff")]
REMARK = "# Made from aio/{name} by tools/sync_client.py: change that one.\n"


def sources() -> list[Path]:
    """The modules of the asyncio half that have a twin."""
    return sorted(path for path in (PACKAGE / "aio").glob("*.py") if path.name not in BY_HAND)


def made(scratch: Path) -> dict[str, str]:
    """What the blocking half is to be: file name → text."""
    found = sources()
    texts = [path.read_text() for path in found]
    ours = {word for text in texts for word in re.findall(r"\bAsync[A-Z]\w*", text)}
    names = NEXT | {word: word.removeprefix("Async") for word in ours}
    rule = Rule(str(PACKAGE / "aio"), str(scratch), names)
    unasync_files([str(path) for path in found], [rule])
    for path in found:
        target = scratch / path.name
        text = target.read_text().replace("pvc_client.aio", "pvc_client")
        text = re.sub(r"\bAsync(?=[A-Z])", "", text)  # in what is written for people
        target.write_text(REMARK.format(name=path.name) + text)
    _tidy(scratch)
    return {path.name: (scratch / path.name).read_text() for path in found}


def _tidy(folder: Path) -> None:
    settings = ["--config", str(PACKAGE.parents[3] / "pyproject.toml")]
    for verb in (["check", "--fix", "--select", "I,SIM117,RUF022", "-q"], ["format", "-q"]):
        subprocess.run([*RUFF, *verb, *settings, str(folder)], check=True, timeout=60)


def main(verb: str) -> int:
    """Writes the files, or compares them."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = made(Path(scratch))
    different = [
        name
        for name, text in texts.items()
        if not (PACKAGE / name).exists() or (PACKAGE / name).read_text() != text
    ]
    if verb == "check":
        for name in different:
            print(f"{PACKAGE / name} is not what its source makes: tools/sync_client.py generate")
        return 1 if different else 0
    for name in different:
        (PACKAGE / name).write_text(texts[name])
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["generate"], ["check"]):
        sys.exit("usage: tools/sync_client.py generate|check")
    sys.exit(main(sys.argv[1]))

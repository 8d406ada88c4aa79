"""docs/client.md against the client: what it names is there, and what is there is named."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from pvc_client import AsyncCluster, Cluster, errors

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs/client.md").read_text()
ROWS = {
    row.group(1): set(re.findall(r"`(\w+)`", row.group(2)))
    for row in re.finditer(r"^\| `([\w.]*\w)` \| [^|]+ \|([^|]*)\|$", GUIDE, re.M)
}
EVERYWHERE = {"get", "list", "watch", "name"}
OWN = {"close", "from_environment"}


def verbs(thing: Any) -> set[str]:
    """The public methods of an object."""
    named = inspect.getmembers(thing, inspect.ismethod)
    return {name for name, _ in named if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Cluster, AsyncCluster])
def test_every_collection_and_verb_is_in_the_guide(kind: Any) -> None:
    cluster = kind()
    collections = {
        name
        for name, member in vars(kind).items()
        if not name.startswith("_") and not callable(member) and not isinstance(member, classmethod)
    }
    assert collections == {name for name in ROWS if name.islower() and "." not in name}
    for name, told in ROWS.items():
        if name.islower():
            thing: Any = cluster
            for step in name.split("."):
                thing = getattr(thing, step)
            assert verbs(thing) - EVERYWHERE == told, name
    itself = re.search(r"of the cluster itself: (.*?)\.\n", GUIDE, re.S)
    assert itself is not None
    assert set(re.findall(r"`(\w+)`", itself.group(1))) == verbs(cluster) - OWN


def test_every_error_is_in_the_guide() -> None:
    for kind in errors.PvcError.__subclasses__():
        assert ROWS[kind.__name__] == {case.__name__ for case in kind.__subclasses__()}


def test_programs_in_the_guide_are_the_examples() -> None:
    examples = [path.read_text() for path in (ROOT / "clients/python/examples").glob("*.py")]
    programs = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    for program in programs[:2]:
        assert any(program in text for text in examples), program
    ten = [line for line in programs[0].splitlines() if line]
    assert len(ten) <= 10

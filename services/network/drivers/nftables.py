"""Our own tables of the packet filter, one for routed packets and one for bridged ones, read and
replaced as libnftables JSON, for a caller that already is in the right namespace. Touches no other
table.

The work is done by the `nft` program rather than the library: it can be given a deadline, and a
fault in it ends that program alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence

from services.network.drivers.fabric import FabricError, Json

FAMILIES = ("inet", "bridge")
TABLE = "pvc"
TIMEOUT_S = 10.0


def read_ruleset() -> tuple[Json, ...]:
    """Chains and rules of the tables in the order of the kernel; empty when there is none."""
    there = {
        table["family"]
        for table in _objects(_nft("list", "tables"), "table")
        if table.get("name") == TABLE
    }
    return tuple(
        found
        for family in FAMILIES
        if family in there
        for found in _nft("list", "table", family, TABLE)["nftables"]
        if isinstance(found, dict) and ("chain" in found or "rule" in found)
    )


def replace_ruleset(objects: Sequence[Json]) -> None:
    """The tables with these chains and rules alone, none without any; one transaction."""
    commands: list[Mapping[str, object]] = []
    for family in FAMILIES:
        table = {"table": {"family": family, "name": TABLE}}
        # Adding first makes the deletion valid when there is no table yet.
        commands += [{"add": table}, {"delete": table}]
        if any(_family_of(found) == family for found in objects):
            commands.append({"add": table})
    commands += [{"add": found} for found in objects]
    _nft("-f", "-", stdin=json.dumps({"nftables": commands}))


def _family_of(found: Json) -> str:
    """A chain's or rule's."""
    (what,) = found.values()
    assert isinstance(what, Mapping)
    return str(what["family"])


def _objects(listed: Mapping[str, list[object]], kind: str) -> list[Mapping[str, object]]:
    return [row[kind] for row in listed["nftables"] if isinstance(row, dict) and kind in row]


def _nft(*words: str, stdin: str = "") -> dict[str, list[object]]:
    try:
        result = subprocess.run(
            ["/usr/sbin/nft", "--json", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FabricError(f"nft {' '.join(words)}: {error}") from error
    if result.returncode != 0:
        raise FabricError(f"nft {' '.join(words)}: {result.stderr.strip()}")
    return dict(json.loads(result.stdout)) if result.stdout.strip() else {"nftables": []}

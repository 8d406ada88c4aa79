"""Our own table of the packet filter, read and replaced as libnftables JSON, for a caller that
already is in the right namespace. Touches no other table.

The work is done by the `nft` program rather than the library: it can be given a deadline, and a
fault in it ends that program alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence

from services.network.drivers.fabric import FabricError, Json

FAMILY = "inet"
TABLE = "pvc"
TIMEOUT_S = 10.0


def read_ruleset() -> tuple[Json, ...]:
    """Chains and rules of the table in the order of the kernel; empty when there is no table."""
    if not any(_is_ours(found) for found in _objects(_nft("list", "tables"), "table")):
        return ()
    listed = _nft("list", "table", FAMILY, TABLE)
    return tuple(
        found
        for found in listed["nftables"]
        if isinstance(found, dict) and ("chain" in found or "rule" in found)
    )


def replace_ruleset(objects: Sequence[Json]) -> None:
    """The table with these chains and rules alone, or no table without any; one transaction."""
    table = {"table": {"family": FAMILY, "name": TABLE}}
    # Adding first makes the deletion valid when there is no table yet.
    commands: list[Mapping[str, object]] = [{"add": table}, {"delete": table}]
    if objects:
        commands += [{"add": table}, *({"add": found} for found in objects)]
    _nft("-f", "-", stdin=json.dumps({"nftables": commands}))


def _is_ours(table: Mapping[str, object]) -> bool:
    return table.get("family") == FAMILY and table.get("name") == TABLE


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

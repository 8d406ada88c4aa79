"""A build to come, beside today's on the same state: its VMs have schema 2, in which descriptions
are shouted. Run by test_rolling_upgrade.py.

Arguments: the ensemble, its root. A line "put NAME TEXT" writes a VM and prints the schema it was
written in; "get NAME" prints a description as this build reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import store_pb2
from services.state import changes, schema, upgrade
from services.state.ensemble import Ensemble
from services.state.store import Put
from services.state.zookeeper import ZookeeperStore
from tests.state.places import vm


def rewritten(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """What does that to the description in a stored VM."""

    def one(payload: bytes) -> bytes:
        row = vm_pb2.Vm.FromString(payload)
        row.spec.description = change(row.spec.description)
        return row.SerializeToString()

    return one


def second(path: str) -> int:
    """The schemas of this build."""
    return 2 if path == "vms" else 1


def main() -> None:
    """Follows orders until its input ends."""
    upgrade.UPGRADES["vms", 1] = rewritten(str.upper)
    upgrade.DOWNGRADES["vms", 1] = rewritten(str.lower)
    for module in (schema, changes):
        vars(module)["schema_of"] = second
    store = ZookeeperStore(Ensemble(sys.argv[1], sys.argv[2], 4.0))
    for line in sys.stdin:
        match line.split():
            case ["put", name, text]:
                there = store.snapshot().named(f"vms/{name}")
                etag = there.meta.etag if there is not None else ""  # type: ignore[attr-defined]
                store.wait(store.commit([Put(vm(name, text, etag))]), 5)
                raw = store._connection.get(store._znodes.row(f"vms/{name}"))
                assert raw is not None
                print(store_pb2.StoredRow.FromString(raw[0]).schema, flush=True)
            case ["get", name]:
                row = store.snapshot().find(vm_pb2.Vm, f"vms/{name}")
                print(row.spec.description if row is not None else "-", flush=True)
    store.close()


main()

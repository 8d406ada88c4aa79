"""How rows become bytes and come back: names, damage, compression and the upgrade of old ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import store_pb2
from services.state import schema, upgrade
from services.state.schema import (
    DEFLATE_FROM_BYTES,
    TYPES,
    collection_of,
    from_stored,
    to_stored,
)
from services.state.sqlite import SqliteStore
from services.state.store import Put
from tests.state.places import described, refused, texts, vm


@pytest.mark.parametrize(
    ("name", "collection"),
    [
        ("vms/web", "vms"),
        ("pools/a/volumes/b", "pools/volumes"),
        ("vms/web/snapshots/s.1_x-2", "vms/snapshots"),
    ],
)
def test_a_name_tells_its_collection(name: str, collection: str) -> None:
    assert collection_of(name) == collection


@pytest.mark.parametrize(
    "name",
    ["", "vms", "vms/", "/vms/a", "vms/a/", "vms/a/b", "cats/a", "vms/../x", "vms/.", "vms/a:b",
     "vms/a\x00", "vms/a\n", "vms/-a", "vms/ü", "vms/" + "a" * 129, "vms/a/volumes/b", "vms/a~b"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        collection_of(name)


def test_every_stored_type_goes_to_bytes_and_back() -> None:
    for path, kind in TYPES.items():
        name = "/".join(f"{part}/x" for part in path.split("/"))
        row = kind(name=name)
        back = from_stored(name, to_stored(row, 7))
        assert back.meta.etag == "7"  # type: ignore[attr-defined]
        back.meta.ClearField("etag")  # type: ignore[attr-defined]
        row.meta.SetInParent()  # type: ignore[attr-defined]
        assert back == row


def test_the_etag_is_not_stored() -> None:
    assert to_stored(vm("web", "x", "41"), 42).value == to_stored(vm("web", "x"), 1).value


def test_large_rows_are_compressed() -> None:
    stored = to_stored(vm("web", "line\n" * DEFLATE_FROM_BYTES), 1)
    assert stored.deflated
    assert len(stored.value) < 1000
    assert from_stored("vms/web", stored).spec.description.count("line") == DEFLATE_FROM_BYTES  # type: ignore[attr-defined]


@pytest.mark.parametrize("deflated", [False, True])
def test_a_damaged_row_names_itself(deflated: bool) -> None:
    row = store_pb2.StoredRow(schema=1, value=b"\xff\xff\xff", revision=1, deflated=deflated)
    with pytest.raises(ValueError, match="vms/web is damaged"):
        from_stored("vms/web", row)


def test_a_row_under_another_name_is_damage() -> None:
    with pytest.raises(ValueError, match=r"vms/db is damaged.*vms/web"):
        from_stored("vms/db", to_stored(vm("web"), 1))


def test_a_newer_row_is_refused_by_name() -> None:
    row = to_stored(vm("web"), 1)
    row.schema += 1
    with refused("SCHEMA_TOO_NEW") as error:
        from_stored("vms/web", row)
    assert "vms/web" in error.value.message


@pytest.fixture
def second_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build whose VMs have schema 2: in schema 1, descriptions were shouted."""

    def quieter(payload: bytes) -> bytes:
        row = vm_pb2.Vm.FromString(payload)
        row.spec.description = row.spec.description.lower()
        return row.SerializeToString()

    first = schema.schema_of("vms")
    monkeypatch.setitem(upgrade.UPGRADES, ("vms", first), quieter)
    monkeypatch.setattr(schema, "schema_of", lambda path: first + (path == "vms"))


def test_an_old_row_is_upgraded_when_read_and_kept_when_changed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "state.db"
    old = SqliteStore(path)
    old.commit([Put(vm("web", "HELLO")), Put(vm("db", "WORLD"))])
    old.close()

    request.getfixturevalue("second_schema")
    new = SqliteStore(path)
    assert texts(new) == {"vms/web": "hello", "vms/db": "world"}
    assert new.snapshot().revision == 1, "reading writes nothing"
    new.commit([described(new, "web", "MIXED case")])
    assert {name: row.schema for name, row in new._file.rows().items()} == {
        "vms/web": 2,
        "vms/db": 1,
    }
    new.close()
    again = SqliteStore(path)
    assert texts(again) == {"vms/web": "MIXED case", "vms/db": "world"}
    again.close()


def test_an_older_build_refuses_a_newer_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as newer:
        newer.setattr(schema, "schema_of", lambda path: 9)
        store = SqliteStore(path)
        store.commit([Put(vm("web"))])
        store.close()
    with refused("SCHEMA_TOO_NEW") as error:
        SqliteStore(path)
    assert "vms/web" in error.value.message

"""What the service accepts and refuses: mutations as pure functions of a snapshot."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pvc.network.v1 import network_service_pb2 as api
from pvc.network.v1.network_pb2 import Network
from services.mesh.errors import PvcError
from services.network.core.spec import mistakes
from services.network.service import (
    create_network,
    default_network,
    delete_network,
    update_network,
)
from services.state.memory import MemoryStore
from services.state.store import Put, Snapshot
from tests.network.test_core import HOSTILE
from tests.network.worlds import call, mac, network, vm


def state(*made: Any) -> Snapshot:
    store = MemoryStore()
    store.commit([Put(row) for row in made])
    return store.snapshot()


def create(name: str, row: Network) -> api.CreateNetworkRequest:
    return api.CreateNetworkRequest(network_id=name, network=row)


def update(row: Network, *paths: str) -> api.UpdateNetworkRequest:
    return api.UpdateNetworkRequest(network=row, update_mask=FieldMask(paths=paths))


def written(changes: Any) -> Network:
    (row,) = [one.value for one in changes if isinstance(one.value, Network)]
    return row


class Refused:
    """The block is refused for this reason, at this field."""

    def __init__(self, reason: str, field: str, text: str = "") -> None:
        self.reason, self.field, self.text = reason, field, text

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert isinstance(error, PvcError), error
        assert (error.reason_name, error.field) == (self.reason, self.field), error
        assert self.text in error.message
        return True


def test_a_network_is_made_with_its_defaults_written_out() -> None:
    asked = Network(spec={"nat": True, "ipv4": {"cidr": "10.9.0.0/24"}})
    asked.meta.labels["owner"] = "ann"
    mutation = create_network(state(), create("dev", asked), call())
    row = written(mutation.changes)
    assert (row.name, row.meta.generation, row.meta.labels["owner"]) == ("networks/dev", 1, "ann")
    assert (row.spec.domain, row.spec.mtu, row.spec.ipv4.gateway) == ("dev.pvc", 1500, "10.9.0.1")
    operation = mutation.response
    assert operation.method == "pvc.network.v1.NetworkService/CreateNetwork"
    assert (operation.target, operation.service, operation.generation) == (row.name, "network", 1)


def test_what_only_would_be_done_has_no_name() -> None:
    request = create("dev", network("dev"))
    request.validate_only = True
    operation = create_network(state(), request, call()).response
    assert operation.name == "" and "networks/dev" in operation.stage
    assert operation.log[0].text.startswith("make networks/dev: 10.")


def test_operations_say_what_they_will_do() -> None:
    bare = create_network(state(), create("dev", Network()), call()).response
    assert bare.log[0].text == "make networks/dev: a bridge without addresses"
    there = state(network("dev"))
    gone = delete_network(there, api.DeleteNetworkRequest(name="networks/dev"), call()).response
    assert gone.log[0].text == "remove networks/dev"


def test_a_network_that_exists_is_refused() -> None:
    with Refused("ALREADY_EXISTS", "network_id"):
        create_network(state(network("dev")), create("dev", network("dev")), call())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_id_is_refused(name: str) -> None:
    with Refused("INVALID_FIELD", "network_id"):
        create_network(state(), create(name, network("dev")), call())


def test_addresses_of_another_network_are_refused() -> None:
    before = state(network("a", "10.64.0.0/16"))
    with Refused("IN_USE", "network.spec.ipv4.cidr", "networks/a"):
        create_network(before, create("b", network("b", "10.64.9.0/24")), call())
    create_network(before, create("b", network("b", "10.65.0.0/16")), call())


@pytest.mark.parametrize("domain", ["a\nserver=8.8.8.8", "A", "a..b", "a/b"])
def test_a_hostile_domain_is_refused(domain: str) -> None:
    row = network("dev")
    row.spec.domain = domain
    with Refused("INVALID_FIELD", "network.spec.domain"):
        create_network(state(), create("dev", row), call())


@pytest.mark.parametrize("field", ["cidr", "gateway", "dhcp_first", "dhcp_last"])
@pytest.mark.parametrize("text", ["x", "10.64.0.0/24\n", "999.0.0.1", "::1", "10.64.0.1;id", "٣"])
def test_a_hostile_address_is_refused(field: str, text: str) -> None:
    row = network("dev")
    setattr(row.spec.ipv4, field, text)
    with Refused("INVALID_FIELD", f"network.spec.ipv4.{field}"):
        create_network(state(), create("dev", row), call())


def test_a_field_is_changed_and_counted() -> None:
    row = Network(name="networks/dev", spec={"mtu": 1400})
    mutation = update_network(state(network("dev")), update(row), call())
    after = written(mutation.changes)
    assert (after.spec.mtu, after.spec.nat, after.meta.generation) == (1400, True, 2)
    assert mutation.response.generation == 2


def test_a_mask_takes_over_what_it_names_even_when_unset() -> None:
    row = Network(name="networks/dev", spec={"mtu": 1400})
    after = written(update_network(state(network("dev")), update(row, "spec.nat"), call()).changes)
    assert (after.spec.nat, after.spec.mtu) == (False, 1500)


def test_labels_change_without_a_new_generation() -> None:
    row = Network(name="networks/dev")
    row.meta.labels["owner"] = "ann"
    changes = update_network(state(network("dev")), update(row, "meta.labels"), call()).changes
    after = written(changes)
    assert dict(after.meta.labels) == {"owner": "ann"} and after.meta.generation == 1


@pytest.mark.parametrize("path", ["status", "status.bridge", "meta.uid", "name", "spec.nothing"])
def test_a_mask_beyond_the_spec_is_refused(path: str) -> None:
    with Refused("INVALID_FIELD", "update_mask", path):
        update_network(state(network("dev")), update(Network(name="networks/dev"), path), call())


def test_other_addresses_bring_their_own_defaults() -> None:
    row = Network(name="networks/dev", spec={"ipv4": {"cidr": "10.9.0.0/24"}})
    after = written(update_network(state(network("dev")), update(row), call()).changes)
    assert after.spec.ipv4.gateway == "10.9.0.1" and mistakes(after.spec) == []


def test_addresses_can_be_given_up() -> None:
    row = Network(name="networks/dev")
    request = update(row, "spec.ipv4", "spec.nat")
    after = written(update_network(state(network("dev")), request, call()).changes)
    assert not after.spec.HasField("ipv4") and mistakes(after.spec) == []


def test_a_gateway_that_is_cleared_is_the_default_again() -> None:
    there = network("dev")
    there.spec.ipv4.gateway = "10.64.0.7"
    row = Network(name="networks/dev")
    after = written(update_network(state(there), update(row, "spec.ipv4.gateway"), call()).changes)
    assert after.spec.ipv4.gateway == "10.64.0.1" and after.spec.ipv4.cidr == "10.64.0.0/24"


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("network.spec.ipv4.cidr", {"ipv4": {"cidr": "10.9.0.0/24"}}),
        ("network.spec.domain", {"domain": "other.pvc"}),
    ],
)
def test_what_vms_hang_on_is_kept_while_they_use_it(field: str, spec: object) -> None:
    before = state(network("dev"), vm("web", f"{mac(1)}@dev"))
    row = Network(name="networks/dev", spec=spec)
    with Refused("IN_USE", field, "vms/web"):
        update_network(before, update(row), call())
    update_network(state(network("dev"), vm("web", mac(1))), update(row), call())


def test_the_gateway_takes_no_vm_s_address() -> None:
    there = network("dev")
    there.status.addresses.add(vm="vms/web", address="10.64.0.20")
    row = Network(name="networks/dev", spec={"ipv4": {"gateway": "10.64.0.20"}})
    with Refused("IN_USE", "network.spec.ipv4.gateway", "vms/web"):
        update_network(state(there), update(row), call())


def test_a_change_of_something_else_than_was_read_is_refused() -> None:
    row = Network(name="networks/dev")
    row.meta.etag = "99"
    with Refused("ETAG_MISMATCH", "network.meta.etag"):
        update_network(state(network("dev")), update(row), call())
    with Refused("ETAG_MISMATCH", "etag"):
        request = api.DeleteNetworkRequest(name="networks/dev", etag="99")
        delete_network(state(network("dev")), request, call())


def test_what_does_not_exist_is_neither_changed_nor_removed() -> None:
    with Refused("NOT_FOUND", "network.name"):
        update_network(state(), update(Network(name="networks/dev")), call())
    with Refused("NOT_FOUND", "name"):
        delete_network(state(), api.DeleteNetworkRequest(name="networks/dev"), call())


def test_a_network_is_removed_when_no_vm_uses_it() -> None:
    request = api.DeleteNetworkRequest(name="networks/dev")
    with Refused("IN_USE", "name", "vms/web"):
        delete_network(state(network("dev"), vm("web", f"{mac(1)}@dev")), request, call())
    row = written(delete_network(state(network("dev")), request, call()).changes)
    assert row.meta.HasField("delete_time")
    with Refused("WRONG_STATE", "network.name"):
        going = Network()
        going.CopyFrom(row)
        going.meta.etag = ""
        update_network(state(going), update(Network(name="networks/dev")), call())


def test_the_first_network_of_a_cluster() -> None:
    row = default_network(call(), "10.64.0.0/24")
    assert row.name == "networks/default" and row.spec.nat and row.meta.generation == 1
    assert mistakes(row.spec) == [] and row.meta.uid
    with Refused("INVALID_FIELD", "network.default_cidr"):
        default_network(call(), "10.64.0.0")

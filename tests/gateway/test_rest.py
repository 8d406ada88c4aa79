"""The REST door over real sockets: the same answers and errors as through gRPC."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import options_pb2
from pvc_client import Cluster, errors
from services.gateway.headers import TIMEOUT_MAX_S, timeout_of
from services.gateway.json_answers import dumped, to_json
from services.gateway.methods import METHODS, Method
from services.gateway.transcode import ROUTES, WHOLE, build, find
from services.state.store import Put
from tests.doors.world import World, world_in
from tests.gateway.asking import ask
from tests.gateway.messages import messages

VmSpec = vm_pb2.VmSpec


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("rest")) as world:
        yield world


@pytest.fixture(scope="module")
def cluster(world: World) -> Iterator[Cluster]:
    with Cluster(f"unix:{world.socket}") as cluster:
        cluster.vms.create("web", VmSpec(tags=["a"], description="Ä <b>")).result(60)
        yield cluster


def test_a_resource_is_the_same_through_both_doors(world: World, cluster: Cluster) -> None:
    answer = ask(world, "GET", "/v1/vms/web")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    shown = MessageToDict(cluster.vms.get("web"), always_print_fields_with_no_presence=True)
    assert answer.json == shown


def test_a_list_is_the_same_through_both_doors(world: World, cluster: Cluster) -> None:
    answer = ask(world, "GET", "/v1/vms?filter=spec.tags%3Aa&readMask=name")
    assert [vm["name"] for vm in answer.json["vms"]] == ["vms/web"]
    assert answer.json["totalSize"] == 1
    assert answer.headers["pvc-revision"] == answer.json["revision"]


@pytest.mark.parametrize(
    ("verb", "target", "body", "status", "kind"),
    [
        ("GET", "/v1/vms/nowhere", None, 404, errors.NotFound),
        ("GET", "/v1/vms?filter=%29", None, 400, errors.InvalidQuery),
        ("POST", "/v1/vms", {"vmId": "web", "vm": {"spec": {}}}, 409, errors.AlreadyExists),
        ("POST", "/v1/vms/nowhere:start", None, 404, errors.NotFound),
    ],
)
def test_errors_are_the_same_through_both_doors(
    world: World, cluster: Cluster, verb: str, target: str, body: Any, status: int, kind: Any
) -> None:
    def through_grpc() -> None:
        if target.startswith("/v1/vms?"):
            list(cluster.vms.list(filter=")"))
        elif target.endswith(":start"):
            cluster.vms.start("nowhere")
        elif verb == "POST":
            cluster.vms.create("web", VmSpec())
        else:
            cluster.vms.get("nowhere")

    answer = ask(world, verb, target, body)
    with pytest.raises(kind) as refused:
        through_grpc()
    assert answer.status == status
    assert answer.json["message"] == refused.value.message
    assert answer.json["details"][0]["reason"] == refused.value.reason


def test_a_life_in_curl(world: World) -> None:
    made = ask(world, "POST", "/v1/vms", {"vmId": "curl", "vm": {"spec": {"tags": ["x"]}}}).json
    assert made["@type"] if "@type" in made else made["name"].startswith("operations/")
    assert made["request"]["@type"] == "type.googleapis.com/pvc.compute.v1.CreateVmRequest"
    done = ask(world, "POST", f"/v1/{made['name']}:wait", {"timeout": "60s"}).json
    assert done["state"] == "STATE_SUCCEEDED"
    assert done["result"]["name"] == "vms/curl"
    etag = ask(world, "GET", "/v1/vms/curl").json["meta"]["etag"]
    body = {"spec": {"description": "changed"}, "meta": {"etag": etag}}
    assert ask(world, "PATCH", "/v1/vms/curl", body).status == 200
    vm = ask(world, "GET", "/v1/vms/curl").json
    assert (vm["spec"]["description"], vm["spec"]["tags"]) == ("changed", ["x"])
    assert ask(world, "PATCH", "/v1/vms/curl", body).json["details"][0]["reason"] == "ETAG_MISMATCH"
    assert ask(world, "DELETE", "/v1/vms/curl?force=true").status == 200


def test_a_caller_sees_its_own_writes_when_it_says_what_it_saw(world: World) -> None:
    answer = ask(world, "GET", "/v1/vms", headers={"pvc-min-revision": "1"})
    assert answer.status == 200


def lines(world: World, target: str, accept: str, count: int) -> tuple[str, list[str]]:
    port = world.doors.rest_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"authorization": f"Bearer {world.secrets['ann']}", "accept": accept}
    connection.request("GET", target, headers=headers)
    response = connection.getresponse()
    read = [response.readline().decode() for _ in range(count)]
    connection.close()
    return response.headers["content-type"], read


def test_a_watch_comes_line_by_line(world: World, cluster: Cluster) -> None:
    target = "/v1/vms:watch?filter=name%3D%22vms/web%22"
    kind, read = lines(world, target, "*/*", 2)
    assert kind == "application/json"
    first, second = (json.loads(line)["result"] for line in read)
    assert first["kind"] == "CHANGE_KIND_PRESENT"
    assert first["vm"]["name"] == "vms/web"
    assert second["kind"] == "CHANGE_KIND_BOOKMARK"


def test_a_watch_comes_as_events_when_asked_to(world: World, cluster: Cluster) -> None:
    kind, read = lines(world, "/v1/vms:watch?filter=name%3Dvms/web", "text/event-stream", 7)
    assert kind.startswith("text/event-stream")
    assert read[:2] == ["retry: 1000\n", "\n"]
    assert json.loads(read[2].removeprefix("data: "))["result"]["kind"] == "CHANGE_KIND_PRESENT"
    assert read[3] == "\n", "what stood there when it began is no place to go on from"
    bookmark = json.loads(read[5].removeprefix("data: "))["result"]
    assert bookmark["kind"] == "CHANGE_KIND_BOOKMARK"
    assert read[4] == f"id: {bookmark['revision']}\n"


def test_a_stream_that_is_refused_is_refused_with_a_status(world: World, cluster: Cluster) -> None:
    assert ask(world, "GET", "/v1/vms/nowhere:consoleLog").status == 404
    log = ask(world, "GET", "/v1/vms/web:consoleLog?lines=2").body.decode().splitlines()
    assert len(log) == 2
    assert set(json.loads(log[0])["result"]) == {"data"}


def test_what_is_no_method_is_said_so(world: World) -> None:
    assert ask(world, "GET", "/v1/nothing").status == 404
    wrong = ask(world, "PUT", "/v1/vms")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    allowed = ask(world, "OPTIONS", "/v1/vms/web")
    assert (allowed.status, allowed.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH")
    assert ask(world, "HEAD", "/v1/vms:watch").status == 405
    head = ask(world, "HEAD", "/v1/cluster")
    assert (head.status, head.body) == (200, b"")


def test_a_call_has_as_long_as_it_says(world: World) -> None:
    assert timeout_of("99999999H") == TIMEOUT_MAX_S and timeout_of("1500m") == 1.5
    assert timeout_of("") is None
    assert ask(world, "GET", "/v1/cluster", headers={"grpc-timeout": "soon"}).status == 400
    world.store.commit([Put(vm_pb2.Vm(name="vms/silent"))])
    late = ask(world, "GET", "/v1/vms/silent:consoleLog", headers={"grpc-timeout": "50m"})
    assert late.status == 504 and "DEADLINE" in str(late.json), "with its reason"


def test_a_body_without_end_is_refused(world: World) -> None:
    answer = ask(world, "POST", "/v1/vms", b" " * 5_000_000)
    assert (answer.status, answer.json["details"][0]["reason"]) == (413, "TOO_LARGE")


def test_a_service_that_is_away_is_unreachable_and_retryable(world: World) -> None:
    away = world.peers._channel
    world.peers._channel, world.peers.address = None, "127.0.0.1:1"
    try:
        answer = ask(world, "GET", "/v1/cluster")
        token = world.secrets["ann"]
        with (
            Cluster(world.grpc_address, token=token, timeout_s=60) as cluster,
            pytest.raises(errors.Unreachable, match="try again"),
        ):
            cluster.status()
    finally:
        world.peers._channel = away
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["details"][0]["reason"] == "UNREACHABLE"


def test_the_page_and_the_contract_are_there_for_everybody(world: World) -> None:
    page = ask(world, "GET", "/")
    assert "/v1/vms/{vm}:start" in page.body.decode()
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert "Switches a VM on." in page.body.decode()
    contract = ask(world, "GET", "/openapi.json").json
    described = {
        call["operationId"].rstrip("2")
        for verbs in contract["paths"].values()
        for call in verbs.values()
    }
    served = {m.short.replace("/", "_") for m in METHODS.values() if m.http is not None}
    assert described == served


def test_tokens_through_rest(world: World) -> None:
    made = ask(
        world, "POST", "/v1/tokens", {"tokenId": "ci", "role": "ROLE_OPERATOR", "ttl": "60s"}
    )
    assert made.status == 200
    world.secrets["ci"] = made.json["secret"]
    me = ask(world, "GET", "/v1/whoami", as_="ci").json
    assert (me["caller"], me["role"]) == ("token ci", "ROLE_OPERATOR")
    for shown in (made.json["token"], ask(world, "GET", "/v1/tokens/ci").json):
        assert not shown["secretHash"]
        assert shown["expireTime"]
    assert not any(t["secretHash"] for t in ask(world, "GET", "/v1/tokens").json["tokens"])
    for wrong, field in (({"role": 9}, "role"), ({"role": 2, "ttl": "-5s"}, "ttl")):
        refused = ask(world, "POST", "/v1/tokens", {"tokenId": "odd", **wrong})
        assert refused.status == 400
        assert refused.json["details"][1]["fieldViolations"][0]["field"] == field


def test_a_repeated_creation_cannot_have_the_secret_again(world: World) -> None:
    body = {"tokenId": "rep", "role": "ROLE_VIEWER", "requestId": "r-1"}
    assert "secret" in ask(world, "POST", "/v1/tokens", body).json
    again = ask(world, "POST", "/v1/tokens", body)
    assert again.json["details"][0]["reason"] == "ALREADY_EXISTS"
    stored = b"".join(
        row.SerializeToString()
        for table in world.store.snapshot().tables.values()
        for row in table.values()
    )
    assert world.secrets["eve"].encode() not in stored


def test_a_dry_run_makes_no_token(world: World) -> None:
    body = {"tokenId": "dry", "role": "ROLE_VIEWER", "validateOnly": True}
    made = ask(world, "POST", "/v1/tokens", body).json
    assert (made["token"]["name"], made["secret"]) == ("tokens/dry", "")
    assert ask(world, "GET", "/v1/tokens/dry").status == 404


@pytest.mark.parametrize(
    "method",
    [m for m in METHODS.values() if m.http is not None and m.http.body == WHOLE],
    ids=lambda m: m.short,
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_request_arrives_as_it_was_sent(method: Method, data: st.DataObject) -> None:
    """Any request, as JSON in a body, becomes the same message again."""
    sent = data.draw(messages(method.request))
    route = next(route for route in ROUTES if route.method is method)
    path = route.template.text
    for variable in route.template.variables:
        words = "/".join(
            "x" if word == "*" else word
            for word in route.template.segments[variable.start : variable.end or None]
        )
        setattr(sent, variable.path, words)
        path = path[: path.index("{")] + words + path[path.index("}") + 1 :]
    match = next(m for m in find(ROUTES, path) if m.route is route)
    assert build(match, "", dumped(to_json(sent))) == sent


def test_roles_are_numbers_of_the_contract() -> None:
    assert [options_pb2.ROLE_VIEWER, options_pb2.ROLE_OPERATOR, options_pb2.ROLE_ADMIN] == [1, 2, 3]

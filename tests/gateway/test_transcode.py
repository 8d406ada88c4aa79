"""HTTP calls and the requests they stand for, as grpc-gateway has them, case by case."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from services.gateway import templates
from services.gateway.json_answers import to_json
from services.gateway.json_form import read_json
from services.gateway.methods import METHODS
from services.gateway.transcode import ROUTES, build, find
from services.mesh.errors import PvcError, not_found


def request_of(verb: str, target: str, body: str = "") -> tuple[str, dict[str, Any]]:
    """The method and the request of a call, the request as JSON in the contract's names."""
    path, _, query = target.partition("?")
    match = next(m for m in find(ROUTES, path) if m.route.verb == verb)
    message = build(match, query, body.encode())
    shown = MessageToDict(message, preserving_proto_field_name=True)
    return match.route.method.short.partition("/")[2], shown


GOOD: list[tuple[str, str, str, str, dict[str, Any]]] = [
    # paths
    ("GET", "/v1/vms/web", "", "GetVm", {"name": "vms/web"}),
    ("GET", "/v1/vms", "", "ListVms", {}),
    ("GET", "/v1/pools/a/volumes/b", "", "GetVolume", {"name": "pools/a/volumes/b"}),
    ("GET", "/v1/pools/-/volumes", "", "ListVolumes", {"parent": "pools/-"}),
    ("GET", "/v1/pools/a/volumes:watch", "", "WatchVolumes", {"parent": "pools/a"}),
    (
        "GET",
        "/v1/pools/a/volumes/b/snapshots/c",
        "",
        "GetSnapshot",
        {"name": "pools/a/volumes/b/snapshots/c"},
    ),
    ("POST", "/v1/vms/web:start", "", "StartVm", {"name": "vms/web"}),
    ("POST", "/v1/vms/web:start", "{}", "StartVm", {"name": "vms/web"}),
    ("DELETE", "/v1/vms/web?force=true", "", "DeleteVm", {"name": "vms/web", "force": True}),
    ("GET", "/v1/vms:watch?fromRevision=9007199254740993", "", "WatchVms",
     {"from_revision": "9007199254740993"}),
    ("GET", "/v1/cluster", "", "GetCluster", {}),
    # escapes: a slash or colon that is encoded never makes a new segment or verb
    ("GET", "/v1/vms/a%2Fb", "", "GetVm", {"name": "vms/a%2Fb"}),
    ("GET", "/v1/vms/a%3Astart", "", "GetVm", {"name": "vms/a:start"}),
    ("POST", "/v1/vms/a:start:stop", "", "StopVm", {"name": "vms/a:start"}),
    ("GET", "/v1/vms/%C3%A4", "", "GetVm", {"name": "vms/ä"}),
    ("GET", "/v1/vms/a+b", "", "GetVm", {"name": "vms/a+b"}),
    ("GET", "/v1/vms/..", "", "GetVm", {"name": "vms/.."}),
    # queries
    (
        "GET",
        "/v1/vms?pageSize=5&page_token=x&filter=spec.tags%3Aweb&orderBy=name%20desc",
        "",
        "ListVms",
        {"page_size": 5, "page_token": "x", "filter": "spec.tags:web", "order_by": "name desc"},
    ),
    ("GET", "/v1/vms?readMask=name,spec.cpu.maxVcpus", "", "ListVms",
     {"read_mask": "name,spec.cpu.maxVcpus"}),
    ("GET", "/v1/vms?read_mask=spec.cpu.max_vcpus", "", "ListVms",
     {"read_mask": "spec.cpu.maxVcpus"}),
    ("GET", "/v1/vms/w:consoleLog?follow=1&lines=3", "", "ReadConsoleLog",
     {"name": "vms/w", "lines": 3, "follow": True}),
    # bodies
    (
        "POST",
        "/v1/vms",
        '{"vmId":"web","vm":{"spec":{"memory":{"memoryMib":"1024"},"tags":["a","b"]}}}',
        "CreateVm",
        {"vm_id": "web", "vm": {"spec": {"memory": {"memory_mib": "1024"}, "tags": ["a", "b"]}}},
    ),
    (
        "POST",
        "/v1/vms",
        '{"vm_id":"web","vm":{"spec":{"firmware":"FIRMWARE_UEFI","rng":false}}}',
        "CreateVm",
        {"vm_id": "web", "vm": {"spec": {"firmware": "FIRMWARE_UEFI", "rng": False}}},
    ),
    ("POST", "/v1/vms", '{"vm":{"spec":{"firmware":2}}}', "CreateVm",
     {"vm": {"spec": {"firmware": "FIRMWARE_UEFI"}}}),
    ("POST", "/v1/vms", '{"vm":{"meta":{"labels":{"a":"b"}}},"start":null}', "CreateVm",
     {"vm": {"meta": {"labels": {"a": "b"}}}}),
    ("POST", "/v1/vms/web:clone", '{"name":"vms/other","vmId":"x"}', "CloneVm",
     {"name": "vms/web", "vm_id": "x"}),
    ("POST", "/v1/operations/o:wait", '{"timeout":"1.500s"}', "WaitOperation",
     {"name": "operations/o", "timeout": "1.500s"}),
    ("POST", "/v1/pools", '{"poolId":"a","pool":{"spec":{"directory":{"path":"/x"}}}}',
     "CreatePool", {"pool_id": "a", "pool": {"spec": {"directory": {"path": "/x"}}}}),
    # PATCH: the mask comes from the body unless the query gives one
    (
        "PATCH",
        "/v1/vms/web",
        '{"spec":{"cpu":{"vcpus":4},"tags":[],"description":""},"meta":{"etag":"7"}}',
        "UpdateVm",
        {
            "vm": {"name": "vms/web", "meta": {"etag": "7"}, "spec": {"cpu": {"vcpus": 4}}},
            "update_mask": "spec.cpu.vcpus,spec.tags,spec.description",
        },
    ),
    (
        "PATCH",
        "/v1/vms/web?updateMask=spec.cpu&validateOnly=true",
        '{"spec":{"cpu":{"vcpus":4},"tags":["a"]}}',
        "UpdateVm",
        {
            "vm": {"name": "vms/web", "spec": {"cpu": {"vcpus": 4}, "tags": ["a"]}},
            "update_mask": "spec.cpu",
            "validate_only": True,
        },
    ),
    (
        "PATCH",
        "/v1/vms/web",
        '{"spec":{"disks":[{"id":"root"}]},"meta":{"labels":{"a":"b"}}}',
        "UpdateVm",
        {
            "vm": {
                "name": "vms/web",
                "meta": {"labels": {"a": "b"}},
                "spec": {"disks": [{"id": "root"}]},
            },
            "update_mask": "spec.disks,meta.labels",
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "target", "body", "method", "request_"), GOOD)
def test_a_call_stands_for(
    verb: str, target: str, body: str, method: str, request_: dict[str, Any]
) -> None:
    assert request_of(verb, target, body) == (method, request_)


BAD: list[tuple[str, str, str, str, str]] = [
    ("GET", "/v1/vms?pagesize=5", "", "pagesize", "did you mean pageSize"),
    ("GET", "/v1/vms?pageSize=many", "", "page_size", "must be a whole number, not"),
    ("GET", "/v1/vms?pageSize=1&page_size=2", "", "page_size", "twice"),
    ("GET", "/v1/vms?pageSize=99999999999", "", "page_size", "out of range"),
    ("GET", "/v1/vms?filter=%FF", "", "", "query cannot be read"),
    ("GET", "/v1/vms?" + "&".join(["filter=x"] * 300), "", "", "query cannot be read"),
    ("GET", "/v1/vms/web?name=vms/other", "", "name", "by the path"),
    ("GET", "/v1/vms/w:consoleLog?follow=yes", "", "follow", "true or false"),
    ("GET", "/v1/vms?readMask.paths=a", "", "read_mask", "not an object"),
    ("GET", "/v1/vms", "{}", "", "must be empty"),
    ("PATCH", "/v1/vms/web?vm.spec.machine=q35", "{}", "vm.spec.machine", "by the path or the"),
    ("PATCH", "/v1/vms/web?updateMask[a]=x", "{}", "update_mask", "is no map"),
    ("POST", "/v1/vms", "{", "", "not JSON"),
    ("POST", "/v1/vms", "[]", "", "must be an object, not a list"),
    ("POST", "/v1/vms", '"x"', "", "must be an object, not a string"),
    ("POST", "/v1/vms", '{"a":1,"a":2}', "", "there twice"),
    ("POST", "/v1/vms", '{"vmId":"a","vm_id":"b"}', "vm_id", "two spellings"),
    ("POST", "/v1/vms", "NaN", "", "NaN is no JSON"),
    ("POST", "/v1/vms", "[" * 100_000, "", "not JSON"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"cpus":{}}}}', "vm.spec.cpus", "did you mean cpu"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"cpu":4}}}', "vm.spec.cpu", "an object, not a number"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"tags":"a"}}}', "vm.spec.tags", "must be a list"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"cpu":{"vcpus":1.5}}}}', "vm.spec.cpu.vcpus", "integer"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"cpu":{"vcpus":true}}}}', "vm.spec.cpu.vcpus", "Bool"),
    ("POST", "/v1/vms", '{"start":"true"}', "start", "true or false"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"firmware":"EFI"}}}', "vm.spec.firmware", "Invalid enum"),
    ("POST", "/v1/vms", '{"vmId":"\\ud800"}', "vm_id", "surrogate"),
    ("POST", "/v1/vms", '{"vmId":{"a":1}}', "vm_id", "single value"),
    ("POST", "/v1/vms", '{"vm":{"spec":{"disks":[{"ids":1}]}}}', "vm.spec.disks[0].ids", "no such"),
    ("POST", "/v1/vms", '{"vm":{"meta":{"createTime":"now"}}}', "vm.meta.create_time", "timestamp"),
    ("POST", "/v1/operations/o:wait", '{"timeout":5}', "timeout", "Duration"),
]


@pytest.mark.parametrize(("verb", "target", "body", "field", "problem"), BAD)
def test_a_broken_call_names_the_field(
    verb: str, target: str, body: str, field: str, problem: str
) -> None:
    with pytest.raises(PvcError) as refused:
        request_of(verb, target, body)
    assert refused.value.reason_name == "INVALID_FIELD"
    assert refused.value.field == field
    assert problem in refused.value.message


@pytest.mark.parametrize(
    "path",
    ["/v1/vm", "/v1/vms/", "/v1//vms", "/v1/vms/a/b", "/v1/vms/a:fly", "/v1/vms/:start", "/", "",
     "/v2/vms", "/v1/pools/a/volumes/b/"],
)  # fmt: skip
def test_paths_that_are_none(path: str) -> None:
    assert [m.route.method.short for m in find(ROUTES, path)] == []


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(PvcError, match="UTF-8"):
        find(ROUTES, "/v1/vms/%FF")


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.verb} {r.template.text}")
def test_every_route_finds_its_method_again(route: Any) -> None:
    path = re.sub(r"\{[^=}]+=([^}]+)\}", r"\1", route.template.text).replace("*", "x")
    path = re.sub(r"\{[^}]+\}", "x", path)
    found = [match for match in find(ROUTES, path) if match.route.verb == route.verb]
    assert found[0].route.method == route.method
    if not route.method.client_streaming:
        build(found[0], "", b"")


def test_every_method_for_people_has_a_route_and_no_other_has() -> None:
    public = {method.path for method in METHODS.values() if not method.internal}
    assert {route.method.path for route in ROUTES} == public


@pytest.mark.parametrize(
    ("text", "path", "caught"),
    [
        ("/v1/{name=a/*/**}:go", "/v1/a/b/c/d:go", {"name": "a/b/c/d"}),
        ("/v1/{name=a/**}", "/v1/a", {"name": "a"}),
        ("/v1/{id}/x", "/v1/a%2Fb/x", {"id": "a/b"}),
        ("/v1/{a.b}/{c}", "/v1/1/2", {"a.b": "1", "c": "2"}),
        ("/v1/{id}", "/v1/a/b", None),
        ("/v1/{id}:go", "/v1/a", None),
    ],
)
def test_templates(text: str, path: str, caught: dict[str, str] | None) -> None:
    assert templates.match(templates.parse(text), *templates.split_path(path)) == caught


@pytest.mark.parametrize("text", ["v1/x", "/v1/{a=**}/b", "/v1/{a", "/v1/{A}x"])
def test_broken_templates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="template"):
        templates.parse(text)


def test_answers_show_everything_and_errors_their_details() -> None:
    vm = METHODS["/pvc.compute.v1.VmService/GetVm"].response()
    vm.spec.memory.memory_mib = 2**53 + 1  # type: ignore[attr-defined]
    shown = to_json(vm)
    assert shown["spec"]["memory"] == {"memoryMib": "9007199254740993", "maxMemoryMib": "0"}
    assert shown["spec"]["firmware"] == "FIRMWARE_UNSPECIFIED"
    error = to_json(not_found("vms/x").to_status())
    assert error["code"] == 5
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert error["details"][0]["reason"] == "NOT_FOUND"
    assert error["details"][1]["fieldViolations"][0]["field"] == "name"
    assert read_json(b'{"a":[1]}') == {"a": [1]}

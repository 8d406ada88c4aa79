"""Every watch of every service in every form that HTTP has for it: the same answers, up to the
bookmark that ends what was there."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from services.gateway.streams import resumes
from services.gateway.transcode import ROUTES, Route
from tests.contract.whole import Whole, running

WATCHES = [r for r in ROUTES if r.method.server_streaming and resumes(r)]
BOOKMARK = "CHANGE_KIND_BOOKMARK"
Told = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("watches")) as whole:
        yield whole


def token(whole: Whole) -> dict[str, str]:
    return {"authorization": f"Bearer {whole.secrets['eve']}"}


def response(whole: Whole, path: str, accept: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", whole.doors.rest_port, timeout=60)
    connection.request("GET", path, headers=token(whole) | {"accept": accept})
    return connection.getresponse()


def up_to_bookmark(told: Iterator[str]) -> Told:
    found: Told = []
    for text in told:
        found.append(json.loads(text)["result"])
        if found[-1]["kind"] == BOOKMARK:
            return found
    raise AssertionError("it ended")


def in_lines(whole: Whole, path: str) -> Told:
    return up_to_bookmark(line.decode() for line in response(whole, path, "*/*"))


def in_events(whole: Whole, path: str) -> Told:
    lines = (line.decode() for line in response(whole, path, "text/event-stream"))
    return up_to_bookmark(line[6:] for line in lines if line.startswith("data: "))


def in_frames(whole: Whole, path: str) -> Told:
    url = f"ws://127.0.0.1:{whole.doors.rest_port}{path}"
    with connect(url, additional_headers=token(whole)) as socket:
        return up_to_bookmark(str(frame) for frame in socket)


def test_every_service_has_one() -> None:
    assert len({route.method.service for route in WATCHES}) == 6


@pytest.mark.parametrize("form", [in_lines, in_events, in_frames])
@pytest.mark.parametrize("route", WATCHES, ids=lambda r: r.method.short)
def test_it_comes_in_every_form(
    whole: Whole, route: Route, form: Callable[[Whole, str], Told]
) -> None:
    path = route.template.text.replace("{parent=pools/*}", "pools/local")
    told = form(whole, path)
    assert {one["kind"] for one in told[:-1]} <= {"CHANGE_KIND_PRESENT"}
    assert all(one["revision"] == "0" for one in told[:-1]) and int(told[-1]["revision"]) > 0
    later = form(whole, f"{path}?fromRevision={told[-1]['revision']}")
    assert not [one for one in later if one["kind"] == "CHANGE_KIND_PRESENT"], "it goes on"

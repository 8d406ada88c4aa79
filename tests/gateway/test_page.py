"""The page of the API: it has everything, fetches nothing, and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from services.gateway.methods import METHODS
from services.gateway.page import Page, page
from services.gateway.rest import OPENAPI
from services.gateway.transcode import ROUTES

VOID = {"meta", "input", "br"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(json.loads(OPENAPI.read_text()))


@pytest.fixture(scope="module")
def shown(document: dict[str, Any]) -> Page:
    return page(document)


class Reader(HTMLParser):
    """Ids, links, attributes, and whether every element ends where it should."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.fetching: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            self.ids += [value or ""] if name == "id" else []
            self.links += [value or ""] if name == "href" else []
            self.fetching += [f"{tag} {value}"] if name in ("src", "srcset", "data") else []
        if tag in ("link", "img", "iframe", "object"):
            self.fetching.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def test_every_call_and_every_type_is_there(document: dict[str, Any], shown: Page) -> None:
    reader = read(shown.html)
    calls = {o["operationId"] for verbs in document["paths"].values() for o in verbs.values()}
    assert calls <= set(reader.ids)
    assert {f"t-{name}" for name in document["definitions"]} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    assert len(calls) == len(ROUTES)
    for method in METHODS.values():
        assert method.internal or method.short.replace("/", "_") in calls


def test_every_link_leads_somewhere(shown: Page) -> None:
    reader = read(shown.html)
    outside = {link for link in reader.links if not link.startswith("#")}
    assert outside == {"/openapi.json"}
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)


def test_it_fetches_nothing_and_runs_only_its_own_script(shown: Page) -> None:
    reader = read(shown.html)
    assert not reader.fetching
    assert not {name for name in reader.attributes if name.startswith("on") or name == "style"}
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", shown.html, re.S)
        digest = base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()
        assert len(texts) == 1 and f"{directive} 'sha256-{digest}'" in shown.policy
    assert "default-src 'none'" in shown.policy and "unsafe" not in shown.policy
    assert "innerHTML" not in shown.html and "Storage" not in texts[0], "the token is kept nowhere"


def test_what_contracts_say_is_text(document: dict[str, Any]) -> None:
    """Nothing that stands in a contract becomes a part of the page."""
    evil = json.dumps(document).replace("Switches a VM on.", "<script>alert(1)</script>\\\"'><b>")
    html = page(json.loads(evil)).html
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html
    read(html)


@pytest.mark.parametrize(
    ("call", "curl"),
    [
        ("VmService_GetVm", 'curl -H "authorization: Bearer $PVC_TOKEN" "$PVC/v1/vms/web"'),
        ("VmService_WatchVms", 'curl -N -H "authorization: Bearer $PVC_TOKEN" "$PVC/v1/vms:watch"'),
        ("VmService_DeleteVm", 'curl -X DELETE -H "authorization: Bearer $PVC_TOKEN" "$PVC/v1/vms'),
        ("VmService_CreateVm", '-d \'{"vmId": "web", "vm": '),
        ("VmService_UpdateVm", "curl -X PATCH "),
        ("StorageService_UploadFile2", "-T FILE"),
        ("StorageService_DownloadFile2", "-o FILE"),
    ],
)
def test_examples_can_be_copied(shown: Page, call: str, curl: str) -> None:
    start = shown.html.index(f'id="{call}"')
    sample = (
        shown.html[start : start + 60_000].partition('class="sample"')[2].partition("</pre>")[0]
    )
    plain = sample.replace("&quot;", '"').replace("&#x27;", "'")
    assert curl in plain

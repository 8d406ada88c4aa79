"""The API as a page for people, made from the OpenAPI file: every call with its parameters, its
messages and an example, to be searched and tried. It fetches nothing from elsewhere. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text()
SCRIPT = (HERE / "page.js").read_text()
DEPTH_MAX = 6
EXAMPLE_IDS = {"vm": "web", "pool": "local", "volume": "web-root", "network": "default"}
_REF = "#/definitions/"
_TICKS = re.compile(r"`([^`]+)`")
INTRODUCTION = """<p>{about}</p>
<p>The whole contract: <a href="/openapi.json">/openapi.json</a>. Press <code>/</code> to search.
Names of types open where they stand.</p>
<pre><code>curl -H "authorization: Bearer $PVC_TOKEN" "$PVC/v1/vms"</code></pre>"""


@dataclass(frozen=True, slots=True)
class Page:
    """The page, and what it may do: run its own script, and call the door that it came from."""

    html: str
    policy: str
    """Its content-security-policy."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One operation."""

    verb: str
    path: str
    said: Mapping[str, Any]

    def parameters(self, *places: str) -> list[Mapping[str, Any]]:
        return [one for one in self.said["parameters"] if one["in"] in places]

    @property
    def body(self) -> Mapping[str, Any] | None:
        return next(iter(self.parameters("body")), None)

    @property
    def sends_file(self) -> bool:
        return self.body is not None and self.body["schema"].get("format") == "binary"

    @property
    def answer(self) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self.said["responses"]["200"].get("schema", {})
        result: Mapping[str, Any] = schema.get("properties", {}).get("result", schema)
        return result

    @property
    def streams(self) -> bool:
        return "text/event-stream" in self.said.get("produces", ())


def page(openapi: Mapping[str, Any]) -> Page:
    """The page of an API."""
    services: dict[str, list[_Call]] = {tag["name"]: [] for tag in openapi["tags"]}
    for path, verbs in openapi["paths"].items():
        for verb, said in verbs.items():
            services[said["tags"][0]].append(_Call(verb.upper(), path, said))
    texts = {tag["name"]: tag.get("description", "") for tag in openapi["tags"]}
    types = openapi["definitions"]
    about = _text(openapi["info"]["description"])
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>PVC API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{_header()}"
        f'<div class="columns">{_contents(services)}<main>{INTRODUCTION.format(about=about)}'
        '<p id="nothing" hidden>Nothing fits what you look for.</p>'
        + "".join(_service(name, texts[name], calls, types) for name, calls in services.items())
        + f"{_types(types)}</main></div><script>{SCRIPT}</script></body></html>"
    )
    return Page(html, _policy())


def _policy() -> str:
    """Allows the style and the script that are in the page, by their hashes, and no other."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (STYLE, SCRIPT)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _header() -> str:
    return (
        "<header><h1>PVC API</h1>"
        '<label class="scripted">Search <input id="search" type="search" '
        'autocomplete="off"></label>'
        '<label class="scripted">Token <input id="token" type="password" autocomplete="off" '
        'placeholder="kept in this page only"></label></header>'
    )


def _contents(services: Mapping[str, list[_Call]]) -> str:
    links = "".join(f'<a href="#{escape(name)}">{_heading(name)}</a>' for name in services)
    return f'<nav aria-label="Services">{links}<a href="#types">Types</a></nav>'


def _heading(service: str) -> str:
    return escape(service.removesuffix("Service"))


def _service(name: str, text: str, calls: list[_Call], types: Mapping[str, Any]) -> str:
    shown = "".join(_call(call, types) for call in sorted(calls, key=lambda c: (c.path, c.verb)))
    return (
        f'<section class="service"><h2 id="{escape(name)}">{_heading(name)}</h2>'
        f"<p>{_text(text)}</p>{shown}</section>"
    )


def _call(call: _Call, types: Mapping[str, Any]) -> str:
    summary = " ".join(filter(None, (call.said.get("summary"), call.said.get("description"))))
    first, *rest = re.split(r"(?<=\.)\s", summary, maxsplit=1)
    words = f"{call.verb} {call.path} {call.said['operationId']} {summary}".lower()
    more = f"<p>{_text(rest[0])}</p>" if rest else ""
    return (
        f'<details class="call" id="{escape(call.said["operationId"])}" '
        f'data-text="{escape(words)}"><summary><span class="verb {call.verb}">{call.verb}</span>'
        f'<code>{escape(call.path)}</code><span class="role">{escape(call.said["x-pvc-role"])}'
        f'</span><span class="what">{_text(first)}</span></summary><div class="inside">{more}'
        f"{_parameters(call)}{_bodies(call)}{_sample(_curl(call, types))}{_try(call, types)}"
        "</div></details>"
    )


def _parameters(call: _Call) -> str:
    there = call.parameters("path", "query", "header")
    if not there:
        return ""
    rows = "".join(_row(one["name"], one, one["required"], f"in the {one['in']}") for one in there)
    return f"<h4>Parameters</h4><table>{rows}</table>"


def _bodies(call: _Call) -> str:
    """What goes in the body and what comes back."""
    shown = ""
    if call.body is not None:
        words = "the bytes of a file" if call.sends_file else _kind(call.body["schema"])
        if "application/x-ndjson" in call.said.get("consumes", ()):
            words += ", one JSON object a line"
        inside = _fields(call.body["schema"]) if "$ref" not in call.body["schema"] else ""
        shown += f"<h4>Body</h4><div>{words}{inside}</div>"
    answer = "the bytes of a file" if call.answer.get("type") == "file" else _kind(call.answer)
    how = ", a stream: one JSON object a line, or server-sent events" if call.streams else ""
    if call.said.get("x-pvc-websocket"):
        how += "; or a WebSocket on the same path"
    return f"{shown}<h4>Answer</h4><div>{answer}{how}</div>"


def _row(name: str, schema: Mapping[str, Any], required: bool, place: str = "") -> str:
    rules = schema.get("x-pvc-rules", "").removeprefix("required").removeprefix("; ")
    said = [f'<span class="kind">{_kind(schema)}{", " + place if place else ""}</span>']
    if required:
        said.append('<span class="required">required</span>')
    if rules:
        said.append(f'<span class="rules">{escape(rules)}</span>')
    text = _text(schema.get("description", ""))
    return f"<tr><td><code>{escape(name)}</code></td><td>{' '.join(said)}<br>{text}</td></tr>"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value is, with a link where it is a message or an enum."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f'<a class="of" href="#t-{escape(name)}">{escape(_short(name))}</a>'
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}"
        case "object" if "additionalProperties" in schema and "properties" not in schema:
            return f"map to {_kind(schema['additionalProperties'])}"
    return escape(str(schema.get("format") or schema.get("type") or "any JSON"))


def _short(name: str) -> str:
    """ "pvc.compute.v1.Vm" → "Vm"."""
    return re.sub(r"^(?:[a-z0-9]+\.)+", "", name)


def _types(types: Mapping[str, Any]) -> str:
    shown = "".join(
        f'<details class="type" id="t-{escape(name)}"><summary><code>{escape(_short(name))}</code> '
        f'<span class="role">{escape(name)}</span></summary><div class="inside">'
        f"<p>{_text(_about(schema))}</p>{_fields(schema)}</div></details>"
        for name, schema in sorted(types.items(), key=lambda one: _short(one[0]).lower())
    )
    return f'<section><h2 id="types">Types</h2>{shown}</section>'


def _about(schema: Mapping[str, Any]) -> str:
    text: str = schema.get("description", "")
    return text.partition("\n\n - ")[0] if "enum" in schema else text


def _fields(schema: Mapping[str, Any]) -> str:
    """A message's fields or an enum's values."""
    if "enum" in schema:
        texts = dict(re.findall(r"^ - (\w+): (.*)$", schema.get("description", ""), re.M))
        rows = "".join(
            f"<tr><td><code>{escape(value)}</code></td><td>{_text(texts.get(value, ''))}</td></tr>"
            for value in schema["enum"]
        )
    else:
        must = schema.get("required", ())
        named = schema.get("properties", {})
        rows = "".join(_row(name, one, name in must) for name, one in named.items())
    return f'<table class="fields">{rows}</table>'


def _sample(text: str) -> str:
    return (
        f'<h4>Example</h4><div class="sample"><pre><code>{escape(text)}</code></pre>'
        '<button class="copy scripted" type="button">copy</button></div>'
    )


def _curl(call: _Call, types: Mapping[str, Any]) -> str:
    flags = "-N " if call.streams else ""
    verb = "" if call.verb in ("GET", "PUT") or call.body else f"-X {call.verb} "
    if call.verb in ("PATCH", "DELETE") and call.body:
        verb = f"-X {call.verb} "
    path = re.sub(r"\{(\w+)\}", lambda one: EXAMPLE_IDS.get(one[1], one[1].upper()), call.path)
    lines = [f'curl {flags}{verb}-H "authorization: Bearer $PVC_TOKEN" "$PVC{path}"']
    if call.sends_file:
        lines.append("-T FILE")
    elif call.body is not None:
        body = json.dumps(_example(call.body["schema"], types), ensure_ascii=False)
        lines.append(f"-d '{body}'")
    elif call.answer.get("type") == "file":
        lines.append("-o FILE")
    return " \\\n  ".join(lines)


def _example(
    schema: Mapping[str, Any], types: Mapping[str, Any], depth: int = 0, name: str = ""
) -> Any:
    """What must be given, and no more."""
    if "$ref" in schema:
        inner = types[schema["$ref"].removeprefix(_REF)]
        return _example(inner, types, depth + 1) if depth < DEPTH_MAX else {}
    if "enum" in schema:
        return schema["enum"][min(1, len(schema["enum"]) - 1)]
    match schema.get("type"):
        case "object":
            named = schema.get("properties", {})
            must = schema.get("required", ())
            return {name: _example(named[name], types, depth + 1, name) for name in must}
        case "array":
            return [_example(schema["items"], types, depth + 1)]
        case "boolean":
            return True
        case "integer" | "number":
            return schema.get("minimum", 0) or 1
    if schema.get("format") in ("int64", "uint64"):
        return "1"
    return EXAMPLE_IDS.get(name.removesuffix("Id"), name.upper() or "TEXT")


def _try(call: _Call, types: Mapping[str, Any]) -> str:
    stream = " data-stream" if call.streams else ""
    fields = "".join(_inputs(call, types))
    return (
        '<details class="scripted"><summary>Try it</summary>'
        f'<div class="try" data-verb="{call.verb}" data-path="{escape(call.path)}"{stream}>{fields}'
        '<div class="wide"><button class="send" type="button">send</button>'
        '<span class="status" role="status"></span></div>'
        '<div class="wide"><pre hidden></pre></div></div></details>'
    )


def _inputs(call: _Call, types: Mapping[str, Any]) -> Iterator[str]:
    for one in call.parameters("path", "query", "header"):
        name, place = escape(one["name"]), one["in"]
        label = f"{escape(call.said['operationId'])}-{place}-{name}"
        yield (
            f'<label for="{label}"><code>{name}</code></label><input class="value" id="{label}" '
            f'name="{name}" data-in="{place}" autocomplete="off">'
        )
    if call.sends_file:
        yield '<span>file</span><input type="file">'
    elif call.body is not None:
        label = f"{escape(call.said['operationId'])}-body"
        filled = json.dumps(_example(call.body["schema"], types), indent=2, ensure_ascii=False)
        yield (
            f'<label for="{label}">body</label><textarea id="{label}" spellcheck="false">'
            f"{escape(filled)}</textarea>"
        )


def _text(words: str) -> str:
    """Text from the contracts: names in backticks are code, an empty line begins a paragraph."""
    marked = _TICKS.sub(r"<code>\1</code>", escape(words))
    return marked.replace("\n\n", "<br>")

"""The API as a page for people: every method with its path and what it does. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from pvc.core.v1 import options_pb2
from services.gateway.methods import Method
from services.gateway.transcode import Route, routes_of

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin: 2rem 0 .5rem } table { border-collapse: collapse; width: 100% }
td { padding: .35rem .6rem; vertical-align: top; border-top: 1px solid #8884 }
code, pre { font-family: ui-monospace, monospace; font-size: 13px }
pre { background: #8882; padding: .7rem; overflow-x: auto } .role { opacity: .65 }
.GET { color: #2a7ae2 }
.POST { color: #2e8b57 } .PATCH { color: #b8860b } .DELETE { color: #c0392b }
"""
INTRODUCTION = """
<p>Send <code>authorization: Bearer SECRET</code> with every call (<code>pvc token create</code>
makes one). The whole contract is at <a href="/openapi.json">/openapi.json</a>. Long work answers
with an operation: look at it under <code>/v1/operations</code>.</p>
<pre>curl -H "authorization: Bearer $PVC_TOKEN" "$PVC/v1/vms"</pre>
"""


def page(methods: Iterable[Method], openapi: Mapping[str, Any]) -> str:
    """HTML without anything to fetch or run."""
    texts = _texts(openapi)
    services: dict[str, list[str]] = {}
    for route in sorted(routes_of(methods), key=lambda r: (r.template.segments, r.verb)):
        service, _, name = route.method.short.partition("/")
        text = texts.get(f"{service}_{name}", "")
        services.setdefault(service, []).append(_row(route, text))
    sections = "".join(
        f"<h2>{escape(service)}</h2><table>{''.join(rows)}</table>"
        for service, rows in sorted(services.items())
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>PVC API</title>'
        f"<style>{STYLE}</style><h1>PVC API</h1>{INTRODUCTION}{sections}</html>"
    )


def _row(route: Route, text: str) -> str:
    role = options_pb2.Role.Name(route.method.role).removeprefix("ROLE_").lower()
    stream = " (a stream: one JSON object a line)" if route.method.server_streaming else ""
    return (
        f'<tr><td><code class="{escape(route.verb)}">{escape(route.verb)}</code></td>'
        f"<td><code>{escape(route.template.text)}</code></td>"
        f'<td>{escape(text)}{stream} <span class="role">{escape(role)}</span></td></tr>'
    )


def _texts(openapi: Mapping[str, Any]) -> Mapping[str, str]:
    """Operation id → what it says of itself."""
    return {
        call["operationId"]: " ".join(filter(None, (call.get("summary"), call.get("description"))))
        for verbs in openapi["paths"].values()
        for call in verbs.values()
    }

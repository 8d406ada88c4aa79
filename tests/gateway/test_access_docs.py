"""docs/access.md says of roles and limits what is so. GOLDEN=write makes the table anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from services.gateway.access import role_name
from services.gateway.limits import Bounds
from services.gateway.methods import METHODS
from services.gateway.token_edits import ROLES
from services.mesh.config import GatewaySection

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
BEGIN, END = "see tests/gateway/test_access_docs.py -->\n", "<!-- end of roles -->"
READING = {"viewer": "sees everything that is not secret", "operator": "runs virtual machines",
           "admin": "runs the cluster"}  # fmt: skip


def table() -> str:
    """Every public method, by role and service."""
    return "".join(_lines())


def _lines() -> Iterator[str]:
    yield "\n| role | | may call, beside what those before it may |\n|---|---|---|\n"
    for role in ROLES:
        found: dict[str, list[str]] = {}
        for method in METHODS.values():
            if method.role == role and not method.internal and not method.by_secret:
                service, _, name = method.short.partition("/")
                found.setdefault(service, []).append(name)
        told = "; ".join(f"**{service}**: {', '.join(names)}" for service, names in found.items())
        yield f"| {role_name(role)} | {READING[role_name(role)]} | {told} |\n"
    secret = ", ".join(method.short for method in METHODS.values() if method.by_secret)
    yield f"| none | has a secret that works once | {secret} |\n\n"


def test_the_table_of_roles_is_what_the_contracts_say() -> None:
    page = PAGE.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    if os.environ.get("GOLDEN") == "write":
        PAGE.write_text(page[:begin] + table() + page[end:])
        page = PAGE.read_text()
        end = page.index(END)
    assert page[begin:end] == table()
    for method in METHODS.values():
        assert (method.short.partition("/")[2] in page[begin:end]) != method.internal


def test_the_limits_are_those_that_hold() -> None:
    page, bounds, section = PAGE.read_text(), Bounds(), GatewaySection()
    for setting in ("tries_per_s", "requests_per_s", "streams_per_caller", "connections"):
        (line,) = [one for one in page.splitlines() if f"`{setting}`" in one and "|" in one]
        assert f"{getattr(bounds, setting):,.0f}" in line
        assert getattr(section, setting) == getattr(bounds, setting)

"""HTTP calls at a REST door: whole answers, and streams of which one reads as much as one likes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.doors.world import World

PATIENCE_S = 60.0


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return str(self.json["details"][0]["reason"])

    @property
    def field(self) -> str:
        return str(self.json["details"][1]["fieldViolations"][0]["field"])


@contextmanager
def asked(
    world: World,
    verb: str,
    target: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    as_: str = "eve",
) -> Iterator[http.client.HTTPResponse]:
    """The answer as it comes. body: bytes, pieces of bytes, or what is sent as JSON."""
    port = world.doors.rest_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    sent = {"authorization": f"Bearer {world.secrets[as_]}"} if as_ else {}
    plain = body is None or isinstance(body, bytes | str) or not isinstance(body, dict | list)
    content: bytes | str | Iterable[bytes] | None = body if plain else json.dumps(body)
    try:
        connection.request(verb, target, content, sent | dict(headers or {}))
        yield connection.getresponse()
    finally:
        connection.close()


def ask(world: World, verb: str, target: str, body: Any = None, **how: Any) -> Answer:
    """The whole answer."""
    with asked(world, verb, target, body, **how) as response:
        return Answer(response, response.read())

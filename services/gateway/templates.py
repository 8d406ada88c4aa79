"""Path templates of google.api.http: "/v1/{name=pools/*/volumes/*}:resize". Pure.

What a variable catches is decoded the way google.api.http says: whole where it is a single "*",
all but "%2F" where it spans segments, so that an encoded slash never makes a new segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

ANY = "*"
REST = "**"
_PART = re.compile(r"\{([a-z0-9_.]+)(?:=([^}]+))?\}|([^/{}]+)")


@dataclass(frozen=True, slots=True)
class Variable:
    """A field of the request that a stretch of the path is for."""

    path: str
    """The field: "name", "vm.name"."""
    start: int
    end: int
    """Segments start up to, not including, end; counted from behind when negative or zero."""
    single: bool
    """A lone "*"."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    text: str
    segments: tuple[str, ...]
    """Literals, ANY, or REST as the last one."""
    variables: tuple[Variable, ...]
    verb: str

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorts more specific templates first: literals before wildcards, verbs before none."""
        wild = {ANY: 1, REST: 2}
        return (0 if self.verb else 1, *(wild.get(segment, 0) for segment in self.segments))


def parse(text: str) -> Template:
    """Raises ValueError for a template that breaks the grammar."""
    body, verb = text.removeprefix("/"), ""
    if ":" in (tail := body.rpartition("}")[2].rpartition("/")[2]):
        verb = tail.partition(":")[2]
        body = body.removesuffix(f":{verb}")
    segments: list[str] = []
    variables: list[Variable] = []
    for part in _parts(body):
        name, inner, literal = part.groups()
        if literal is not None:
            segments.append(literal)
            continue
        words = (inner or ANY).split("/")
        start = len(segments)
        segments += words
        end = len(segments) if REST not in words else 0
        variables.append(Variable(name, start, end, single=words == [ANY]))
    if REST in segments[:-1] or not text.startswith("/"):
        raise ValueError(f"{text!r} is not a path template")
    return Template(text, tuple(segments), tuple(variables), verb)


def _parts(body: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(body):
        found = _PART.match(body, at)
        if found is None:
            raise ValueError(f"{body!r} is not a path template")
        yield found
        at = found.end() + 1
        if at <= len(body) and body[at - 1] != "/":
            raise ValueError(f"{body!r} is not a path template")


def split_path(path: str) -> tuple[Sequence[str], str]:
    """The segments of a path that is still encoded, and the verb behind the last one's colon."""
    segments = path.removeprefix("/").split("/")
    last, colon, verb = segments[-1].rpartition(":")
    return ([*segments[:-1], last], verb) if colon else (segments, "")


def match(template: Template, segments: Sequence[str], verb: str) -> Mapping[str, str] | None:
    """Field → value when the path fits, else None. Raises ValueError for a broken encoding."""
    wanted = template.segments
    if verb != template.verb or "" in segments:
        return None
    if wanted and wanted[-1] == REST:
        if len(segments) < len(wanted) - 1:
            return None
    elif len(segments) != len(wanted):
        return None
    for want, there in zip(wanted, segments, strict=False):
        if want not in (ANY, REST) and want != there:
            return None
    return {one.path: _caught(one, segments) for one in template.variables}


def _caught(variable: Variable, segments: Sequence[str]) -> str:
    end = variable.end or len(segments)
    caught = "/".join(segments[variable.start : end])
    return decoded(caught, keep_slashes=not variable.single)


def decoded(text: str, *, keep_slashes: bool = False) -> str:
    """Percent-decoded. Raises ValueError when what comes out is not UTF-8."""
    if keep_slashes:
        text = re.sub("%(2[fF])", r"%25\1", text)
    return unquote_to_bytes(text).decode("utf-8")

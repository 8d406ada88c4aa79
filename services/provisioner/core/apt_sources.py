"""Where Debian packages come from: apt's source files read as text, and written as lines.

It reads no file itself; sources that are not Debian's own archive are left out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from services.provisioner.core.problem import FieldProblem

DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SUITE = re.compile(
    r"(buster|bullseye|bookworm|trixie|forky|sid|stable|oldstable)(-updates|-security)?"
)
_LINE = re.compile(r"(?P<type>deb(?:-src)?)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>\S.*)")
_URI = re.compile(r"(https?|file)://[^\s\[\]\"'`$;|&<>\\]+|(https?|file):/[A-Za-z0-9/._-]+")
_KEYRING = re.compile(r"/[A-Za-z0-9._/+-]+")
_COMPONENT = re.compile(r"[a-z][a-z0-9/-]*")
# Of the machine's apt settings a build needs these: how to reach the archive, and how strictly.
_SETTING = re.compile(
    r'(Acquire::(?:https?::Proxy|Check-Valid-Until|Check-Date|Retries)) "([^"\\\s]+)";'
)


@dataclass(frozen=True, slots=True)
class AptSource:
    """One suite of one archive. `signed_by` is a keyring's path, or empty for apt's default."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


def parse_sources(text: str) -> tuple[AptSource, ...]:
    """The binary sources of a file in apt's one-line format (`deb [options] uri suite main`)."""
    sources = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.split("#", 1)[0].strip())
        if match is None or match["type"] != "deb":
            continue
        uri, *words = match["rest"].split()
        options = dict(
            word.lower().split("=", 1) if word.lower().startswith("arch") else word.split("=", 1)
            for word in (match["options"] or "").split()
            if "=" in word
        )
        if words:
            signed_by = _keyring(options.get("signed-by", ""))
            sources.append(AptSource(uri, words[0], tuple(words[1:]), signed_by))
    return tuple(sources)


def parse_deb822(text: str) -> tuple[AptSource, ...]:
    """The binary sources of a file in apt's deb822 format (`.sources`)."""
    sources: list[AptSource] = []
    for stanza in _stanzas(text):
        types = stanza.get("types", "").split()
        if "deb" not in types or stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        sources.extend(
            AptSource(
                uri,
                suite,
                tuple(stanza.get("components", "").split()),
                _keyring(stanza.get("signed-by", "")),
            )
            for uri in stanza.get("uris", "").split()
            for suite in stanza.get("suites", "").split()
        )
    return tuple(sources)


def _stanzas(text: str) -> list[dict[str, str]]:
    """Fields by lower-case name; a line that begins with a blank goes on with the field above."""
    stanzas: list[dict[str, str]] = [{}]
    name = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0] in " \t" and name in stanzas[-1]:
            stanzas[-1][name] += "\n" + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            stanzas[-1][name] = value.strip()
    return [stanza for stanza in stanzas if stanza]


def _keyring(value: str) -> str:
    """A keyring's path; a key block or a fingerprint in its place cannot be handed on."""
    return value if _KEYRING.fullmatch(value) else ""


def debian_sources(sources: Iterable[AptSource], release: str) -> tuple[AptSource, ...]:
    """Debian's own sources of this machine, turned to the release; none is a FieldProblem."""
    found: dict[AptSource, None] = {}
    for source in sources:
        match = _SUITE.fullmatch(source.suite)
        if match is not None and _is_debian(source):
            found[replace(source, suite=release + (match[2] or ""), components=("main",))] = None
    if not any(source.suite == release for source in found):
        raise FieldProblem(
            "mirrors",
            f"this machine's apt sources name no Debian archive for '{release}'; "
            "give one in the provisioner's setting, as in "
            f"'deb [signed-by={DEFAULT_KEYRING}] http://mirror.example.org/debian {release} main'",
        )
    return tuple(found)


def _is_debian(source: AptSource) -> bool:
    """A third party's archive may use Debian's suite names, but not its keys and path."""
    if not _URI.fullmatch(source.uri) or "main" not in source.components:
        return False
    if source.signed_by:
        return source.signed_by.rsplit("/", 1)[-1].startswith("debian-archive-")
    last = urlsplit(source.uri).path.rstrip("/").rsplit("/", 1)[-1]
    return last in ("debian", "debian-security")


def check_mirrors(lines: Sequence[str]) -> tuple[AptSource, ...]:
    """The sources of the `mirrors` setting, one line each, taken as they are."""
    sources = []
    for i, line in enumerate(lines):
        parsed = parse_sources(line) if line.isprintable() else ()
        if len(parsed) != 1 or not _is_plain(parsed[0]):
            raise FieldProblem(f"mirrors[{i}]", "must be one line, 'deb [options] uri suite main'")
        sources.append(parsed[0])
    return tuple(sources)


def _is_plain(source: AptSource) -> bool:
    words = (source.suite, *source.components)
    return bool(_URI.fullmatch(source.uri)) and all(_COMPONENT.fullmatch(w) for w in words)


def source_line(source: AptSource) -> str:
    """The source in the one-line format, as mmdebstrap takes it."""
    options = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    return f"deb {options}{source.uri} {source.suite} {' '.join(source.components)}"


def guest_line(source: AptSource) -> str:
    """The source for the guest: without a password of this machine's mirror in it."""
    parts = urlsplit(source.uri)
    host = parts.netloc.rsplit("@", 1)[-1]
    return source_line(replace(source, uri=parts._replace(netloc=host).geturl()))


def apt_settings(dump: str) -> tuple[str, ...]:
    """Of `apt-config dump`: the settings by which this machine reaches its archives."""
    found = {match[1]: match[2] for match in map(_SETTING.fullmatch, dump.splitlines()) if match}
    return tuple(f'{name} "{value}"' for name, value in sorted(found.items()))

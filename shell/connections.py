"""The clusters that the user knows by name, in ~/.config/pvc/connections.toml: addresses, a token,
the CA. One choice for `pvc` and `pvc-shell` of which of them a command talks to.

Each is whole in itself: the CA's certificate and the token are inside, no file beside is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from shell.toml_file import BadFile, TomlFile, config_dir

LOCAL = "local"
LOCAL_ADDRESS = "unix:/run/pvc/pvc.sock"
"""The socket of a node's own cluster; root's alone."""
PORT = 7371
"""Where gateways listen for gRPC unless told otherwise."""
FILE = "connections.toml"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,62}")
_HOST = re.compile(r"\[[0-9a-fA-F:.]+(?:%\w+)?\]|[^\s:/@\[\]]+")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a cluster. Its token is in no text that is made of it."""

    name: str
    """ "" for an address that was given as it is."""
    addresses: tuple[str, ...]
    description: str = ""
    token: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    """The certificate in PEM; "" for the system's."""

    @property
    def address(self) -> str:
        """All addresses, as a client takes them."""
        return ",".join(self.addresses)

    @property
    def label(self) -> str:
        """What it is called where people read."""
        return self.name or self.address


HERE = Connection(LOCAL, (LOCAL_ADDRESS,), "the node that this runs on")
"""Always there, and in no file."""


class Connections:
    """Those in the file."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_dir() / FILE
        self._file = TomlFile(self.path)

    def all(self) -> dict[str, Connection]:
        """By name. Raises BadFile."""
        return self._checked(self._file.read())[0]

    def current(self) -> str:
        """The name of the one that is used when none is asked for; "" for none. Raises BadFile."""
        return self._checked(self._file.read())[1]

    def get(self, name: str) -> Connection:
        """The one of that name, `local` too. Raises BadFile, UsageError."""
        return HERE if name == LOCAL else _one(self.all(), name)

    def is_private(self) -> bool:
        """Whether nobody else can read the file."""
        return self._file.is_private()

    def add(self, connection: Connection, *, overwrite: bool = False, use: bool = False) -> None:
        """Keeps one. Raises UsageError when there is one of that name already."""
        with self._changed() as document:
            found = _table(document)
            if connection.name in found and not overwrite:
                raise click.UsageError(
                    f"there is a connection {connection.name!r} already; --replace takes its place"
                )
            found[connection.name] = _written(connection)
            if use:
                document["current"] = connection.name

    def remove(self, name: str) -> None:
        """Forgets one. Raises UsageError when there is none."""
        with self._changed() as document:
            _one(_table(document), name)
            del document["connections"][name]
            if document.get("current") == name:
                del document["current"]

    def rename(self, name: str, new: str) -> None:
        """Gives one another name. Raises UsageError."""
        checked_name(new)
        with self._changed() as document:
            found = _table(document)
            entry = _one(found, name)
            if new in found:
                raise click.UsageError(f"there is a connection {new!r} already")
            found[new] = entry
            del found[name]
            if document.get("current") == name:
                document["current"] = new

    def use(self, name: str) -> None:
        """Has it used when none is asked for. Raises UsageError when there is none."""
        with self._changed() as document:
            if name != LOCAL:
                _one(_table(document), name)
            document["current"] = name

    def _changed(self) -> Any:
        return _Changed(self._file, self._checked)

    def _checked(self, found: Mapping[str, Any]) -> tuple[dict[str, Connection], str]:
        """What the file says. Raises BadFile for what is TOML but no connections."""
        table, current = found.get("connections", {}), found.get("current", "")
        if not isinstance(table, Mapping):
            raise self._wrong("connections must be a table: [connections.NAME]")
        if not isinstance(current, str) or (current not in ("", LOCAL, *table)):
            raise self._wrong(f"current = {current!r} is the name of no connection in it")
        return {name: self._read(name, entry) for name, entry in table.items()}, current

    def _read(self, name: str, entry: Any) -> Connection:
        where = f"connections.{name}"
        if not isinstance(entry, Mapping):
            raise self._wrong(f"{where} must be a table: [{where}]")
        addresses = entry.get("addresses", ())
        texts = {key: entry.get(key, "") for key in ("description", "token", "ca")}
        for key, value in texts.items():
            if not isinstance(value, str):
                raise self._wrong(f"{where}.{key} must be a text in quotes")
        if not isinstance(addresses, list) or not addresses:
            raise self._wrong(f'{where}.addresses must be a list: ["HOST:PORT"]')
        try:
            checked_name(name)
            return Connection(name, tuple(map(checked_address, addresses)), **texts)
        except click.UsageError as error:
            raise self._wrong(f"{where}: {error.format_message()}") from None

    def _wrong(self, what: str) -> BadFile:
        return BadFile(f"{self.path}: {what}. Mend it, or move it away; it was left as it is.")


class _Changed:
    """The file while it is changed; what is wrong in it is left alone."""

    def __init__(self, file: TomlFile, check: Any) -> None:
        self._change, self._check = file.changed(), check

    def __enter__(self) -> Any:
        document = self._change.__enter__()
        try:
            self._check(document.unwrap())
        except BadFile as error:
            self._change.__exit__(type(error), error, None)
            raise
        return document

    def __exit__(self, *raised: Any) -> Any:
        return self._change.__exit__(*raised)


def choose(wanted: str = "", store: Connections | None = None) -> Connection:
    """The connection that is wanted by its name or address; else by PVC_CONNECTION; else the one in
    use; else this node's own. Raises UsageError, BadFile.
    """
    wanted = wanted or os.environ.get("PVC_CONNECTION", "")
    if ":" in wanted:
        return Connection("", addresses_in(wanted))
    store = store or Connections()
    return store.get(wanted or store.current() or LOCAL)


def addresses_in(text: str) -> tuple[str, ...]:
    """The addresses in "n1:7371,n2:7371". Raises UsageError."""
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found:
        raise click.UsageError("an address is needed: HOST:PORT, or several with commas")
    return tuple(dict.fromkeys(map(checked_address, found)))


def checked_address(text: Any) -> str:
    """HOST:PORT, with the usual port where none is written, or unix:PATH. Raises UsageError."""
    if not isinstance(text, str):
        raise click.UsageError(f"{text!r} is no address: write HOST:PORT")
    scheme, _, rest = text.partition(":")
    if scheme in ("unix", "ipv4", "ipv6", "dns") and rest:
        return text
    host = _HOST.match(text)
    port = text[host.end() :] if host else ""
    if host and port == "":
        return f"{text}:{PORT}"
    if host and re.fullmatch(r":[0-9]{1,5}", port) and 0 < int(port[1:]) < 65536:
        return text
    raise click.UsageError(
        f"{text!r} is no address: write HOST:PORT, with an IPv6 address in [brackets]"
    )


def checked_name(name: str) -> str:
    """What a connection may be called. Raises UsageError."""
    if name == LOCAL:
        raise click.UsageError("local is this node's own cluster; choose another name")
    if not _NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} cannot be a connection's name: letters, digits, dots, underscores and "
            "hyphens, at most 63, a letter or digit first"
        )
    return name


def certificates_in(text: str) -> str:
    """The certificates of a PEM file, and nothing else of it. Raises UsageError."""
    found = _CERTIFICATE.findall(text)
    if not found:
        raise click.UsageError("there is no certificate in it; a node has its CA's in tls/ca.crt")
    return "".join(f"{one}\n" for one in found)


def checked_token(secret: str, where: str) -> str:
    """A token's secret without what stands around it. Raises UsageError."""
    secret = secret.strip()
    if not (secret.isascii() and (secret.isprintable() or not secret)):
        raise click.UsageError(f"{where} holds no token: a token is one line of ASCII")
    return secret


def _one(found: Mapping[str, Any], name: str) -> Any:
    if name in found:
        return found[name]
    known = ", ".join([LOCAL, *found])
    raise click.UsageError(
        f"there is no connection {name!r}; there are: {known}. An address reads HOST:PORT; "
        "pvc connection add makes a connection"
    )


def _table(document: Any) -> Any:
    """The connections of the document."""
    import tomlkit

    if "connections" not in document:
        document["connections"] = tomlkit.table(is_super_table=True)
    return document["connections"]


def _written(connection: Connection) -> Any:
    """A connection as the file has it."""
    import tomlkit

    entry = tomlkit.table()
    entry["addresses"] = list(connection.addresses)
    for key in ("description", "token"):
        if value := getattr(connection, key):
            entry[key] = value
    if connection.ca:
        entry["ca"] = tomlkit.string(connection.ca, multiline=True)
    return entry


def names(store: Connections | None = None) -> Sequence[str]:
    """The names there are, for whoever completes them; none when the file is broken."""
    try:
        return [LOCAL, *(store or Connections()).all()]
    except BadFile:
        return [LOCAL]

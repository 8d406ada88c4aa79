"""Where in ZooKeeper the state is kept: the paths and the bytes of its znodes. Pure.

ROOT/head              the newest revision; every commit sets it, which puts them in one order
ROOT/log/REVISION      a StoredCommit, for mirrors that follow; the oldest are dropped
ROOT/rows/NAME         a StoredRow
ROOT/leases/NAME~TURN  a lease that is held, by whom: ephemeral, its name is never used again
ROOT/turns/NAME        set by everyone who acquires the lease, so that two cannot do so at once
"""

from __future__ import annotations

from dataclasses import dataclass

_VERSION_RANGE = 1 << 32


@dataclass(frozen=True, slots=True)
class Znodes:
    """The paths below a root."""

    root: str

    @property
    def head(self) -> str:
        """The newest revision."""
        return f"{self.root}/head"

    @property
    def rows(self) -> str:
        """Parent of the rows."""
        return f"{self.root}/rows"

    @property
    def log(self) -> str:
        """Parent of the newest commits."""
        return f"{self.root}/log"

    @property
    def leases(self) -> str:
        """Parent of the leases that are held."""
        return f"{self.root}/leases"

    @property
    def turns(self) -> str:
        """Parent of what orders acquisitions."""
        return f"{self.root}/turns"

    def row(self, name: str) -> str:
        """A row."""
        return f"{self.rows}/{escaped(name)}"

    def entry(self, revision: int) -> str:
        """A commit in the log."""
        return f"{self.log}/{revision}"

    def lease(self, name: str, turn: str) -> str:
        """One holding of a lease."""
        return f"{self.leases}/{escaped(name)}~{turn}"

    def turn(self, name: str) -> str:
        """What orders the acquisitions of a lease."""
        return f"{self.turns}/{escaped(name)}"


def escaped(name: str) -> str:
    """A resource's or a lease's name as one znode's: neither has a colon in it."""
    assert ":" not in name and "~" not in name, name
    return name.replace("/", ":")


def unescaped(znode: str) -> str:
    """The name that `escaped` made this of."""
    return znode.replace(":", "/")


def lease_name(child: str) -> str:
    """The lease of which this child of `leases` is a holding."""
    return unescaped(child.rpartition("~")[0])


def version_after(version: int, commits: int) -> int:
    """A znode's version that many writes later: they are 32 bits and go round."""
    half = _VERSION_RANGE // 2
    return (version + commits + half) % _VERSION_RANGE - half

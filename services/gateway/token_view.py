"""The state as readers of tokens see it: each token with its last use, which is kept in a row of
its own. For reading alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from google.protobuf.message import Message

from pvc.gateway.v1.token_pb2 import Token, TokenUse
from services.mesh.rows import copied
from services.state.store import NO_ROWS, Commit, Readable, Snapshot, Watch
from services.state.table import Row, Table

TOKENS, USES = "tokens", "tokenUses"


def use_of(token: str) -> str:
    """tokens/ann → tokenUses/ann."""
    return f"{USES}/{token.removeprefix(f'{TOKENS}/')}"


def token_of(use: str) -> str:
    """tokenUses/ann → tokens/ann."""
    return f"{TOKENS}/{use.removeprefix(f'{USES}/')}"


class TokenView:
    """A Readable in which a use that is told of is a change of its token."""

    def __init__(self, store: Readable) -> None:
        self._store = store
        self._joined: tuple[object, object, Table] = (None, None, NO_ROWS)
        """The tables of tokens and uses that were last joined, and what came of it."""

    def shown(self, token: Token) -> Token:
        """The token with its last use."""
        return joined(token, self._store.snapshot().find(TokenUse, use_of(token.name)))

    def snapshot(self) -> Snapshot:
        """See Readable."""
        return self.seen(self._store.snapshot())

    def seen(self, plain: Snapshot) -> Snapshot:
        """A snapshot of the state as readers of tokens see it."""
        tokens, uses = plain.tables.get(TOKENS), plain.tables.get(USES)
        if tokens is None or uses is None:
            return plain
        if self._joined[0] is not tokens or self._joined[1] is not uses:
            rows = {
                name: joined(cast(Token, row), cast(TokenUse | None, uses.get(use_of(name))))
                for name, row in tokens.items()
            }
            self._joined = tokens, uses, Table(rows)
        return replace(plain, tables=plain.tables.set(TOKENS, self._joined[2]))

    def watch(self, after: int) -> Watch:
        """See Readable."""
        return _View(self._store, self._store.watch(after))

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Readable."""
        return self._store.on_change(wake)


class _View:
    """A Watch of tokens with their uses, the last ones known."""

    def __init__(self, store: Readable, watch: Watch) -> None:
        self._store, self._watch = store, watch

    def next(self, timeout_s: float) -> Commit | None:
        """See Watch."""
        commit = self._watch.next(timeout_s)
        if commit is None or not any(_concerns(row) for row in commit.rows):
            return commit
        named = {row.name: row for row in commit.rows}
        rows = (self._seen(row, named) for row in commit.rows)
        return replace(commit, rows=tuple(row for row in rows if row is not None))

    def close(self) -> None:
        """See Watch."""
        self._watch.close()

    def _seen(self, row: Row, named: Mapping[str, Row]) -> Row | None:
        """named: all rows of the commit."""
        snapshot = self._store.snapshot()
        if row.name.startswith(f"{TOKENS}/"):
            known = snapshot.find(TokenUse, use_of(row.name))
            use = named.get(use_of(row.name), Row("", known, known))
            return Row(row.name, _with(row.value, use.value), _with(row.before, use.before))
        if not row.name.startswith(f"{USES}/"):
            return row
        token = snapshot.find(Token, token_of(row.name))
        if token is None or token.name in named:
            return None
        return Row(token.name, _with(token, row.value), _with(token, row.before))


def joined(token: Token, use: TokenUse | None) -> Token:
    """The token with a use, if it is its own."""
    if use is None or use.token_uid != token.meta.uid:
        return token
    both = copied(token)
    both.last_used.CopyFrom(use.last_used)
    return both


def _with(token: Message | None, use: Message | None) -> Message | None:
    assert isinstance(use, TokenUse | None)
    return joined(token, use) if isinstance(token, Token) else token


def _concerns(row: Row) -> bool:
    return row.name.startswith((f"{TOKENS}/", f"{USES}/"))

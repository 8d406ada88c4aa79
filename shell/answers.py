"""What came out of a change, for programs: the thing that was made or changed as JSON, as YAML, or
by its name, in the place of a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from shell.render import as_dict, clean

TEXT = "text"
FORMATS = (TEXT, "json", "yaml", "name")


def show(format: str, rows: Sequence[Any], *, several: bool) -> None:
    """Prints messages: a list where several were asked for."""
    match format:
        case "name":
            for row in rows:
                click.echo(clean(str(getattr(row, "name", ""))))
        case "json":
            import json

            click.echo(json.dumps(_plain(rows, several), indent=2, ensure_ascii=False))
        case "yaml":
            import yaml

            text = yaml.safe_dump(_plain(rows, several), sort_keys=False, allow_unicode=True)
            click.echo(text, nl=False)


def _plain(rows: Sequence[Any], several: bool) -> Any:
    shown = [as_dict(row) for row in rows]
    return shown if several else shown[0] if shown else {}


def tell(session: Any, format: str, row: Any, sentence: str) -> None:
    """Says what was done, or shows what came out of it."""
    if format == TEXT:
        session.say(sentence)
    else:
        show(format, [row], several=False)


def outcome(pending: Any, result: Any) -> Any:
    """What an operation made; the operation itself where nothing is left: a thing that is gone."""
    made = result is not None and bool(getattr(result, "name", ""))
    return result if made else pending.operation

"""What comes in the order of time, events and the audit log: which options its lists have."""

from __future__ import annotations

from dataclasses import replace

import click

from shell.listing import Listing
from shell.tree import inner_list_options, packed, stacked

LINES = 100


def _newest(asked: Listing, lines: int, follow: bool) -> Listing:
    return replace(asked, limit=asked.limit or lines, watch=asked.watch or follow)


newest_options = stacked(
    inner_list_options,
    click.option("-l", "--lines", type=click.IntRange(1), default=LINES, show_default=True,
                 help="How many, the newest; the same as --limit."),
    click.option("--follow", is_flag=True, help="The same as --watch."),
    packed(_newest, "asked", ("asked", "lines", "follow")),
)  # fmt: skip
"""What the list of a log has; the function gets a Listing as `asked`, for show_log."""

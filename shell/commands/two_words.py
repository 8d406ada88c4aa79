"""`pvc storage volume` and `pvc storage snapshot`: the commands of `pvc volume`, which also take a
pool and a name as two words, in the order in which PVC 1.0.3 had them."""

from __future__ import annotations

import click

from shell.commands import snapshot as snapshots
from shell.commands import volume as volumes
from shell.tree import Group

ONE_WORD = {"list"}
"""Commands whose words are not about one volume."""
FILE_LAST = {"import"}
"""Commands that have the file first here, and had it last then."""


class TwoWords(Group):
    """The commands of another group; POOL NAME is read as POOL/NAME."""

    def __init__(self, of: Group, **lazy: tuple[str, str]) -> None:
        super().__init__(of.name, help=of.help, lazy=of.lazy | lazy, aliases=of.aliases)
        self.commands = of.commands

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Joins the first two words after the command's name."""
        name, command, rest = super().resolve_command(ctx, args)
        own = self.aliases.get(args[0], args[0]) if args else ""
        if isinstance(command, click.Group) or own in ONE_WORD:
            return name, command, rest
        return name, command, joined(rest, file_last=own in FILE_LAST)


def joined(words: list[str], *, file_last: bool = False) -> list[str]:
    """["vms", "web", "20G"] → ["vms/web", "20G"]; words that are options or have a slash already
    are left alone. file_last: ["vms", "web", "disk.raw"] → ["disk.raw", "vms/web"]."""
    if len(words) < 2 or any(word.startswith("-") or "/" in word for word in words[:2]):
        return words
    first = f"{words[0]}/{words[1]}"
    if file_last and len(words) > 2:
        return [words[2], first, *words[3:]]
    return [first, *words[2:]]


snapshot = TwoWords(snapshots.snapshot)
volume = TwoWords(
    volumes.volume,
    snapshot=("shell.commands.two_words:snapshot", "Snapshots of single volumes"),
)

"""`edit` and `export` of every kind that can be changed: a thing as a text in an editor or a file.

Loads the contract only when one of them runs.
"""

from __future__ import annotations

from typing import Any

import click

from shell.tree import command, name_argument, waiting_options, yes_option


def add_edit(group: click.Group, path: str, collection: str, example: str) -> None:
    """Adds `edit`. path: "vms"; collection: the client's."""
    word = group.name

    @command(group, "edit", f"pvc {word} edit {example}", f"EDITOR=nano pvc {word} edit {example}")
    @name_argument(collection)
    @waiting_options
    @yes_option
    def edit(session: Any, name: str, yes: bool, **going: Any) -> None:
        from shell.commands.editing import edit_one
        from shell.commands.raw import get
        from shell.contract.kinds import kinds

        kind = kinds()[path]
        full = getattr(session.cluster, collection).name(name)
        edit_one(session, kind, get(session, kind, full), yes=yes, **going)

    edit.help = "Change one in your editor, as YAML; the changes are shown before they are made."


def add_export(group: click.Group, path: str, collection: str, example: str) -> None:
    """Adds `export`, under a name that is free: the texts that apply takes."""
    word = group.name

    @command(group, "export", f"pvc {word} export {example} > {example}.yaml",
             f"pvc {word} export {example} --comments")  # fmt: skip
    @name_argument(collection, "names", nargs=-1)
    @click.option("--comments", is_flag=True, help="With the contract's words on every field.")
    def export(session: Any, names: tuple[str, ...], comments: bool) -> None:
        from shell.commands.raw import get
        from shell.contract.kinds import kinds
        from shell.contract.manifest import written

        kind, there = kinds()[path], getattr(session.cluster, collection)
        rows = [get(session, kind, there.name(name)) for name in names]
        if comments:
            from shell.contract.commented import commented

            texts = [commented(row, row.name) for row in rows]
            click.echo("---\n".join(texts), nl=False)
        else:
            click.echo(written(rows), nl=False)

    export.help = (
        "Print them as YAML that `pvc apply` takes: what a user may set, and nothing else."
    )

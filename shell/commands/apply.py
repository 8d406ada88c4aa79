"""`pvc apply` and `pvc diff`: things made or changed to be as files say."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import Any

import click

from shell.tree import Command, filed_options, stacked

file_option = click.option(
    "-f", "--file", "files", multiple=True, required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="YAML or JSON of the contract's form; - for stdin. May be repeated.",
)  # fmt: skip


@click.command(
    cls=Command,
    examples=(
        "pvc apply -f web.yaml",
        "pvc vm export web | sed s/1024/2048/ | pvc apply -f -",
        "pvc apply -f web.yaml -f lab.yaml --dry-run",
    ),
)
@stacked(file_option)
@click.option("--start", is_flag=True, help="Start the VMs that are made.")
@filed_options
@click.pass_obj
def apply(session: Any, /, files: tuple[str, ...], start: bool, **going: Any) -> None:
    """Have things be as files say: what is missing is made, what differs is changed.

    A file holds one thing or several: each has its name (vms/web) and its spec, as -f yaml of the
    info commands prints it. What a file says nothing of stays as it is. What others need is made
    first.
    """
    from shell.commands.applying import Round, read

    one = Round(session, start=start, **going)
    for _, same in groupby(read(files), key=lambda document: document.kind.rank):
        one.go(list(same))
    one.end()


@click.command(
    cls=Command,
    examples=("pvc diff -f web.yaml", "pvc diff -f web.yaml --exit-code"),
)
@stacked(file_option)
@click.option("--exit-code", is_flag=True, help="End with 1 when something differs.")
@click.pass_obj
def diff(session: Any, files: tuple[str, ...], exit_code: bool) -> int:
    """Show what `pvc apply` would make or change, field by field. Changes nothing."""
    from shell.commands.applying import read, step_for, told

    steps = [step_for(session, document) for document in read(files)]
    colour = session.coloured(sys.stdout)
    for step in steps:
        for line in told(step, colour):
            click.echo(line)
    differs = any(step.current is None or step.differing for step in steps)
    return 1 if exit_code and differs else 0

"""One thing of the cluster as a text in somebody's editor.

An edit never loses what was typed: where it cannot be sent it stays in a file that is named, and
what somebody else changed meanwhile is not overwritten.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from shell.commands.applying import Step, send, told
from shell.commands.raw import get
from shell.contract.changes import differences, merged
from shell.failures import Declined

HEAD = (
    "{name}: change what you want, save and leave; an empty text changes nothing. A line that is"
    " removed goes back to its default. Comments are the contract's; pvc explain {word} tells more."
)
TRIES = 3


def edit_one(session: Any, kind: Any, base: Any, *, yes: bool, **going: Any) -> None:
    """Lets somebody change it, asks, and sends the changes. Raises Declined, UsageError, PvcError;
    the text is kept then."""
    from shell.contract.commented import commented

    before = commented(base, HEAD.format(name=base.name, word=kind.word))
    file = _file(base.name, before)
    kept = True
    try:
        step = _edited(kind, base, before, file)
        if step is not None:
            for line in told(step, session.coloured(sys.stderr)):
                click.echo(line, err=True)
            if not going.get("dry_run"):
                session.confirm("Make these changes?", yes=yes)
            _send(session, kind, step, **going)
        else:
            click.echo(f"{base.name}: nothing was changed")
        kept = False
    finally:
        if kept:
            click.echo(f"your text is kept: {file}\n  again: pvc apply -f {file}", err=True)
        else:
            file.unlink(missing_ok=True)


def _file(name: str, text: str) -> Path:
    """A new file for this user's eyes alone."""
    handle, path = tempfile.mkstemp(f"-{name.rpartition('/')[2]}.yaml", "pvc-edit-")
    with os.fdopen(handle, "w", encoding="utf-8") as target:
        target.write(text)
    return Path(path)


def _edited(kind: Any, base: Any, before: str, file: Path) -> Step | None:
    """What was changed, once it can be read; None for nothing. Raises Declined."""
    from shell.contract.manifest import Malformed, documents

    (original,) = documents(before)
    while True:
        click.edit(filename=str(file))
        text = file.read_text(encoding="utf-8")
        if not text.strip():
            return None
        try:
            (edited,) = documents(text)
            if edited.name != base.name:
                raise Malformed(f"name: it is {base.name}; another name is for pvc {kind.word} "
                                "rename or clone")  # fmt: skip
        except ValueError as error:
            said = str(error) if isinstance(error, Malformed) else "there must be one thing in it"
            click.echo(f"error: {said}", err=True)
            _again()
            continue
        changed = tuple(differences(original.message, edited.message))
        if not changed:
            return None
        wanted = merged(base, edited.message, [one.path for one in changed])
        return Step(edited, base, wanted, changed)


def _again() -> None:
    """Returns when the text is to be edited again. Raises Declined."""
    if not sys.stdin.isatty():
        raise Declined("the text cannot be used, and nobody is there to mend it")
    click.echo("Edit it again? [Y/n] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("", "y", "yes"):
        raise Declined("nothing was changed")


def _send(session: Any, kind: Any, step: Step, **going: Any) -> None:
    """Sends the changes on the condition that nobody changed the same fields meanwhile. What
    agents write all the time is no such change."""
    from pvc_client.errors import EtagMismatch

    for attempt in range(1, TRIES + 1):
        try:
            send(session, step, **going)
            return
        except EtagMismatch:
            if attempt == TRIES:
                raise
            step = _rebased(step, get(session, kind, step.name))


def _rebased(step: Step, current: Any) -> Step:
    """The same changes of what it is by now. Raises ClickException when others changed the same."""
    touched = {one.path for one in differences(step.current, current)}
    both = [one.path for one in step.differing if one.path in touched]
    if both:
        raise click.ClickException(
            f"somebody else changed {', '.join(both)} of {step.name} meanwhile; nothing was changed"
        )
    paths = [one.path for one in step.differing]
    return Step(step.document, current, merged(current, step.wanted, paths), step.differing)


def as_in_file(session: Any, path: str, name: str, file: str, *, yes: bool, **going: Any) -> None:
    """Has one thing be as a file says, after showing what differs. Raises UsageError, Declined."""
    from shell.commands.applying import read, step_for

    collection = path.rpartition("/")[2]
    (document, *more) = read([file])
    full = getattr(session.cluster, collection).name(name)
    if more or document.name != full:
        raise click.UsageError(f"{file} must hold {full} alone (it has {document.name})")
    step = step_for(session, document)
    if step.current is not None and not step.differing:
        click.echo(f"{full} is as it should be")
        return
    for line in told(step, session.coloured(sys.stderr)):
        click.echo(line, err=True)
    if not going.get("dry_run"):
        session.confirm("Make these changes?", yes=yes)
    _send(session, document.kind, step, **going)

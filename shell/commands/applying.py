"""What must be asked so that a thing is as a file says: nothing, its making, or a change of the
fields that differ. Sends it, over the contract's own Create and Update methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import click

from shell.answers import tell
from shell.commands.raw import ask, get
from shell.contract.changes import Difference, completed, differences
from shell.contract.fields import behaves
from shell.contract.kinds import carrier, id_field
from shell.contract.manifest import Document, Malformed, documents
from shell.contract.methods import message_class
from shell.render import clean, painted
from shell.waiting import finish, format_of, show_plan

MAKERS = {
    "nodes": "pvc node add",
    "images": "pvc image build, or pvc image import",
    "tokens": "pvc token create",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What one thing takes."""

    document: Document
    current: Any
    """The thing as it is; None when there is none."""
    wanted: Any
    differing: tuple[Difference, ...]

    @property
    def name(self) -> str:
        """The thing's full name."""
        return self.document.name


def read(files: Sequence[str]) -> list[Document]:
    """The things in all files, in the order in which they are made. Raises UsageError."""
    found: list[Document] = []
    for file in files:
        with click.open_file(file, encoding="utf-8") as source:
            try:
                found += documents(source.read())
            except (Malformed, UnicodeDecodeError) as error:
                shown = "standard input" if file == "-" else file
                raise click.UsageError(f"{shown}: {error}") from None
    names = [one.name for one in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise click.UsageError(f"{', '.join(twice)} stands there more than once")
    return sorted(found, key=lambda one: one.kind.rank)


def step_for(session: Any, document: Document) -> Step:
    """What it takes to have the thing as the document says. Raises UsageError for what no method
    does."""
    from pvc_client.errors import NotFound

    kind = document.kind
    try:
        current = get(session, kind, document.name)
    except NotFound:
        if kind.create is None:
            how = MAKERS.get(kind.path, "")
            hint = f"; make it with {how}" if how else ""
            raise click.UsageError(f"{document.name} does not exist{hint}") from None
        return Step(document, None, document.message, ())
    wanted = completed(current, document)
    differing = tuple(differences(current, wanted))
    if differing and kind.update is None:
        fields = ", ".join(one.path for one in differing)
        raise click.UsageError(f"{document.name} cannot be changed by a file: {fields} differ")
    return Step(document, current, wanted, differing)


def request_of(step: Step, *, dry_run: bool, start: bool = False) -> tuple[Any, Any]:
    """The method and its request."""
    kind = step.document.kind
    method = kind.create if step.current is None else kind.update
    assert method is not None
    request = message_class(method.input_type)(validate_only=dry_run)
    field = carrier(method, kind.message)
    assert field is not None
    thing = getattr(request, field.name)
    thing.CopyFrom(step.wanted)
    if step.current is None:
        for part in thing.DESCRIPTOR.fields:  # {} is all that a bare network has to say
            if part.message_type is not None and behaves(part, "REQUIRED"):
                getattr(thing, part.name).SetInParent()
        parent, _, own = step.name.rpartition("/")
        setattr(request, id_field(method), own)
        if "parent" in method.input_type.fields_by_name:
            request.parent = parent.rpartition("/")[0]
        if start and "start" in method.input_type.fields_by_name:
            request.start = True
    else:
        request.update_mask.paths.extend(one.path for one in step.differing)
    return method, request


def send(
    session: Any, step: Step, *, wait: Any, dry_run: bool, start: bool = False, **going: Any
) -> Any:
    """Asks for a step and waits for it, if told to. Raises PvcError."""
    method, request = request_of(step, dry_run=dry_run, start=start)
    answer = ask(session, method, request)
    said = "is made" if step.current is None else "is changed"
    if answer.DESCRIPTOR.name != "Operation":
        said = f"would be {said.removeprefix('is ')}" if dry_run else said
        tell(session, format_of(wait), answer, f"{step.name} {said}")
        return answer
    if dry_run:
        show_plan(SimpleNamespace(operation=answer), format_of(wait))  # type: ignore[arg-type]
        return None
    pending = session.cluster.operations.pending(answer.name)
    return finish(session, pending, f"{step.name} {said}", wait=wait, **going)


def told(step: Step, colour: bool) -> Iterator[str]:
    """What differs, for people."""
    if step.current is None:
        yield painted(f"{step.name} would be made", "good", colour)
        rows = tuple(differences(type(step.wanted)(), step.wanted))
    elif not step.differing:
        yield f"{step.name} is as it should be"
        return
    else:
        yield painted(f"{step.name} would be changed", "busy", colour)
        rows = step.differing
    for one in rows:
        if one.before and step.current is not None:
            yield painted(f"  - {one.path}: {clean(one.before)}", "bad", colour)
        if one.after:
            yield painted(f"  + {one.path}: {clean(one.after)}", "good", colour)

"""What must be asked so that a thing is as a file says: nothing, its making, or a change of the
fields that differ. Sends it, over the contract's own Create and Update methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from shell.answers import TEXT, show, tell
from shell.commands.raw import amended, ask, get
from shell.contract.changes import Difference, completed, differences
from shell.contract.fields import behaves
from shell.contract.kinds import carrier, id_field
from shell.contract.manifest import Document, Malformed, documents
from shell.contract.methods import message_class
from shell.failures import exit_code
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


def begin(session: Any, step: Step, *, dry_run: bool, start: bool = False) -> Any:
    """Asks for a step: an operation's handle, or the thing itself where that is done at once.
    Raises PvcError."""
    from pvc_client import Pending

    method, request = request_of(step, dry_run=dry_run, start=start)
    answer = ask(session, method, request)
    if answer.DESCRIPTOR.name != "Operation":
        return answer
    return Pending(session.cluster.transport, answer, type(step.wanted))


def send(session: Any, step: Step, *, wait: Any, dry_run: bool) -> None:
    """Asks for a step and waits for it, if told to. Raises PvcError."""
    begun = begin(session, step, dry_run=dry_run)
    if not hasattr(begun, "operation"):
        tell(session, format_of(wait), begun, said(step, dry_run=dry_run))
    elif dry_run:
        show_plan(begun, format_of(wait))
    else:
        finish(session, begun, said(step, dry_run=False), wait=wait)


def said(step: Step, *, dry_run: bool) -> str:
    """What was done."""
    done = "made" if step.current is None else "changed"
    return f"{step.name} {'would be' if dry_run else 'is'} {done}"


class Round:
    """One run of `apply`: what came out of it so far, and what was refused."""

    def __init__(self, session: Any, *, wait: Any, dry_run: bool, start: bool) -> None:
        self._session, self._wait = session, wait
        self._dry_run, self._start = dry_run, start
        self._text = format_of(wait) == TEXT
        self.rows: list[Any] = []
        self.codes: list[int] = []

    def go(self, documents: Sequence[Document]) -> None:
        """Begins what these take, all of it, then waits for it. What is refused is told."""
        begun = [(one, self._tried(one, partial(self._begun, one))) for one in documents]
        for document, found in begun:
            if found is not None:
                self._tried(document, partial(self._ended, *found))

    def end(self) -> None:
        """Shows what came out for programs; ends the command where something was refused."""
        show(format_of(self._wait), self.rows, several=True)
        if self.codes:
            raise click.exceptions.Exit(max(self.codes))

    def _tried(self, document: Document, step: Callable[[], Any]) -> Any:
        from pvc_client import PvcError

        try:
            return step()
        except PvcError as error:
            self._session.note(f"{document.name}:")
            self._session.complain(error)
            self.codes.append(exit_code(error))

    def _begun(self, document: Document) -> tuple[Step, Any] | None:
        return amended(lambda: self._asked(document))  # agents write in between all the time

    def _asked(self, document: Document) -> tuple[Step, Any] | None:
        step = step_for(self._session, document)
        if step.current is not None and not step.differing:
            self._tell(step.current, f"{step.name} is as it should be")
            return None
        return step, begin(self._session, step, dry_run=self._dry_run, start=self._start)

    def _ended(self, step: Step, begun: Any) -> None:
        if not hasattr(begun, "operation"):
            self._tell(begun, said(step, dry_run=self._dry_run))
        elif self._dry_run:
            self.rows.append(begun.operation)
            if self._text:
                show_plan(begun)
        elif not self._wait:
            self._tell(begun.operation, f"{step.name}: {begun.name} goes on")
        else:
            made = finish(self._session, begun, "", wait=self._wait)
            self._tell(made, said(step, dry_run=False))

    def _tell(self, row: Any, sentence: str) -> None:
        self.rows.append(row)
        if self._text:
            self._session.say(sentence)


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

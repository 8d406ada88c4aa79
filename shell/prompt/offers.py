"""What could stand where the cursor is, best first, each with what it means: commands, options,
values, live names, files, fields. Answers from memory at once; asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import click

from shell.filters import is_filter
from shell.language.cursor import Cursor, cursor_in, unwrapped
from shell.language.cursor import Spot as Where
from shell.prompt import queries
from shell.prompt.fuzzy import Match, matched
from shell.prompt.kinds import GROUPS, KINDS
from shell.prompt.speech import Speech
from shell.prompt.words import rest_of_word, written
from shell.suggest import Place, Slot, collection_of, place_of

OFFERED_MAX = 100
"""More than these nobody reads; typing goes on instead."""
USES = {"filter": queries.Use.FILTER, "sort": queries.Use.SORT, "columns": queries.Use.COLUMNS}
"""What options of these names take."""
STAGE_USES = {"where": queries.Use.FILTER, "sort": queries.Use.SORT,
              "columns": queries.Use.COLUMNS}  # fmt: skip
"""What stages of these names take."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing that could stand there."""

    text: str
    help: str = ""
    match: Match | None = None
    back: int = 0
    """How many letters before the cursor it takes the place of."""
    ready: str = ""
    """What is written for it, where that is not the text: with quotes."""
    goes_on: bool = False
    """More of the same word follows: a folder, the first part of a field."""


class Known(Protocol):
    """What is in the cluster and on this machine, at once."""

    def names(
        self, collection: str, typed: str, limit: int, parent: str = ""
    ) -> Sequence[tuple[str, str]]:
        """Names that fit what is typed, best first, with a few words on each. parent: what the
        collection is inside of."""
        ...

    def files(self, typed: str) -> Sequence[tuple[str, str]]:
        """Files and folders that a path could go on to; folders end with a slash."""
        ...

    def connections(self) -> Sequence[tuple[str, str]]:
        """The clusters that there are connections to, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in a line the cursor is, all that is known of it."""

    cursor: Cursor
    place: Place
    collection: str
    """What the command of this line is about, for its fields: "vms"; "" for anything else."""
    rest: str = ""
    """What of the word stands behind the cursor."""
    near: click.Context | None = None
    """The group of the context, where its commands may stand too."""


def spot_of(root: click.Group, line: str, at: int, speech: Speech) -> Spot:
    """Reads a line up to the cursor."""
    cursor = cursor_in(line, at)
    words = list(cursor.words)
    if cursor.spot is Where.STAGE and speech.stages is not None:
        place = place_of(speech.stages, words, cursor.word)
    else:
        place = in_command(root, words, cursor.word, speech)
    command = place
    if cursor.spot is not Where.COMMAND:
        command = in_command(root, list(cursor.command), "", speech)
    collection = GROUPS.get(command.path[-2], "") if len(command.path) > 1 else ""
    first = cursor.spot is Where.COMMAND and place.slot is Slot.COMMAND and not place.path
    near = place_of(root, speech.place, "").context if first and speech.place else None
    return Spot(cursor, place, collection, rest_of_word(line, cursor, at), near)


def in_command(root: click.Group, words: Sequence[str], typed: str, speech: Speech) -> Place:
    """Where the words of a command lead, in the tree or among the commands of the prompt itself."""
    words = unwrapped((*words, typed))[:-1]
    if words[:1] == ("help",):
        words = words[1:]
    if words and is_own(speech, words[0]):
        assert speech.builtins is not None
        return place_of(speech.builtins, words, typed)
    place = place_of(root, before(speech, words, typed), typed)
    given = bool(place.arguments) and place.arguments[0] not in words
    if given and not typed and isinstance(place.awaited, click.Argument):
        return replace(place, slot=Slot.SURPLUS, awaited=None)  # the context names it already
    return place


def before(speech: Speech, words: Sequence[str], typed: str) -> Sequence[str]:
    """The words before the one that is being typed, as the tree takes them: what a context puts in
    depends on whether that one is a name already."""
    if not words:
        return ()
    whole = speech.expanded([*words, typed]) if typed and not typed.startswith("-") else []
    return whole[:-1] if whole and whole[-1] == typed else speech.expanded(words)


def is_own(speech: Speech, word: str) -> bool:
    """Whether a word is a command of the prompt itself."""
    own = speech.builtins
    return own is not None and own.get_command(click.Context(own), word) is not None


def collection_at(spot: Spot, parameter: click.Parameter) -> str:
    """The collection in which the values of the parameter at a spot are; "" for any other."""
    if spot.place.path == ("use",) and parameter.name == "name":
        return GROUPS.get(spot.place.arguments[-1], "") if spot.place.arguments else ""
    if parameter.name == "pattern" and spot.place.typed:
        return "" if is_filter(spot.place.typed) else spot.collection
    found = collection_of(parameter, spot.cursor.words)
    return found if found in KINDS else ""


def inner_collection(place: Place, parameter: click.Parameter) -> str:
    """What is inside of the thing that was named before: snapshots, drives, interfaces; "" else."""
    match place.path, parameter.name:
        case (*_, "create"), _:
            return ""
        case ("vm", *_), "snapshot_name":
            return "vms.snapshots"
        case _, "snapshot_name":
            return "volumes.snapshots"
        case (*_, "detach-disk") | ("vm", "volume", _), "part_id":
            return "vms.disks"
        case (*_, "detach-nic") | ("vm", "network", _), "part_id":
            return "vms.nics"
    return ""


def local_values(parameter: click.Parameter, place: Place) -> list[Offer] | None:
    """What the parameter itself can tell without asking the cluster; None where that is nothing."""
    complete = getattr(parameter, "_custom_shell_complete", None)
    if complete is None or hasattr(complete, "collection"):
        return None
    found = parameter.shell_complete(place.context, place.typed)
    return [Offer(str(item.value), item.help or "") for item in found]


def written_so_far(spot: Spot) -> str:
    """A value that fields stand in, up to the cursor; behind `where` it takes several words."""
    if spot.cursor.spot is Where.STAGE and spot.place.path == ("where",):
        return " ".join([*spot.cursor.words[1:], spot.place.typed])
    return spot.place.typed


def use_of(spot: Spot, parameter: click.Parameter) -> queries.Use | None:
    """What of the fields of rows a parameter takes; None for any other parameter."""
    if not spot.collection:
        return None
    if spot.cursor.spot is Where.STAGE:
        return STAGE_USES.get(spot.place.path[-1] if spot.place.path else "")
    if parameter.name == "pattern" and is_filter(spot.place.typed):
        return queries.Use.FILTER
    return USES.get(parameter.name or "") if isinstance(parameter, click.Option) else None


class Offers:
    """Makes the offers for a line."""

    def __init__(self, root: click.Group, known: Known, speech: Speech) -> None:
        self._root = root
        self._known = known
        self._speech = speech

    def at(self, line: str, at: int) -> list[Offer]:
        """What could stand at the cursor, best first."""
        spot = spot_of(self._root, line, at, self._speech)
        cursor = spot.cursor
        found: Iterable[Offer]
        match cursor.spot:
            case Where.COMMENT | Where.FOREIGN:
                found = ()
            case Where.FILE:
                found = self._files(cursor.word)
            case _:
                found = self._found(spot)
        shown = (self._fitted(offer, spot, at) for offer in found)
        return [offer for offer, _ in zip(shown, range(OFFERED_MAX), strict=False)]

    def _found(self, spot: Spot) -> Iterator[Offer]:
        place = spot.place
        if place.slot is Slot.COMMAND:
            return self._commands(spot)
        if place.slot is Slot.OPTION or (place.slot is Slot.SURPLUS and not place.typed):
            return matching(option_offers(place), place.typed)
        if place.slot is Slot.VALUE and place.awaited is not None:
            return self._values(spot, place.awaited)
        return iter(())

    def _commands(self, spot: Spot) -> Iterator[Offer]:
        place, speech = spot.place, self._speech
        found = list(command_offers(place.context))
        if spot.cursor.spot is Where.COMMAND and not place.path:
            near = [] if spot.near is None else list(command_offers(spot.near))
            own = [] if speech.builtins is None else list(
                command_offers(click.Context(speech.builtins))
            )  # fmt: skip
            words = [Offer(name, f"= {body}") for name, body in speech.aliases()]
            found = _once([*words, *near, *found, *own])
        return matching(found, place.typed)

    def _values(self, spot: Spot, parameter: click.Parameter) -> Iterator[Offer]:
        """What a parameter may be, as far as that can be listed."""
        place = spot.place
        if collection := collection_at(spot, parameter):
            return self._names(collection, place)
        if (inside := inner_collection(place, parameter)) and place.arguments:
            parent = place.arguments[0]
            named = self._known.names(inside, place.typed, OFFERED_MAX, parent)
            return matching((Offer(*one) for one in named), place.typed)
        if (own := self._of_the_prompt(spot, parameter)) is not None:
            return matching((Offer(*one) for one in own), place.typed)
        if isinstance(parameter.type, click.Choice):
            told = (Offer(str(one), queries.meaning(parameter, str(one)))
                    for one in parameter.type.choices)  # fmt: skip
            return matching(told, place.typed)
        if isinstance(parameter.type, click.Path | click.File):
            return iter(self._files(place.typed))
        if use := use_of(spot, parameter):
            return self._of_rows(use, spot)
        if (found := local_values(parameter, place)) is not None:
            return matching(found, place.typed)
        if isinstance(parameter, click.Argument) and not (parameter.required or place.typed):
            return matching(option_offers(place), "")
        if parameter.name == "state":
            states = (Offer(*told) for told in queries.state_values(spot.collection))
            return matching(states, place.typed)
        return iter(())

    def _of_the_prompt(
        self, spot: Spot, parameter: click.Parameter
    ) -> Sequence[tuple[str, str]] | None:
        """Values that the commands of the prompt itself take; None for any other."""
        match spot.place.path, parameter.name:
            case ("use",), "name" if spot.place.arguments[-1:] == ("connection",):
                return self._known.connections()
            case ("connection", _), "name":
                return self._known.connections()
            case ("use",), "kind":
                kinds = [(kind, f"be about one of the {path}") for kind, path in GROUPS.items()]
                return [*kinds, ("connection", "talk to another cluster")]
            case ("unalias" | "alias",), _:
                return self._speech.aliases()
            case ("unsave" | "save" | "run",), "name":
                return self._speech.queries()
            case ("set",), "value":
                return self._speech.values(spot.place.arguments[-1])
        return None

    def _of_rows(self, use: queries.Use, spot: Spot) -> Iterator[Offer]:
        """Fields, operators and values: they take the place of the last piece of a value only."""
        found = queries.candidates(use, spot.collection, written_so_far(spot))
        piece = found.piece
        told: Iterable[Offer] = (Offer(text, help) for text, help in found.told)
        if found.collection:
            named = self._known.names(found.collection, piece, OFFERED_MAX)
            told = (Offer(*pair) for pair in named)
        for offer in matching(told, piece):
            yield replace(offer, back=len(piece), ready=offer.text, goes_on=True)

    def _names(self, collection: str, place: Place) -> Iterator[Offer]:
        limit = OFFERED_MAX + len(place.arguments)
        for name, help in self._known.names(collection, place.typed, limit):
            if name not in place.arguments:
                yield Offer(name, help, matched(name, place.typed))

    def _files(self, typed: str) -> Sequence[Offer]:
        """Paths that fit by their last part."""
        stem = typed.rpartition("/")[2]
        before = len(typed) - len(stem)
        found = []
        for path, help in self._known.files(typed):
            if match := matched(path[before:], stem):
                places = tuple(place + before for place in match.places)
                shifted = Match(match.fit, places)
                found.append(Offer(path, help, shifted, goes_on=path.endswith("/")))
        return sorted(found, key=lambda offer: offer.match.fit if offer.match else 0)

    def _fitted(self, offer: Offer, spot: Spot, at: int) -> Offer:
        """How the offer is written at the cursor: quotes, what already stands behind it."""
        if offer.ready:
            return offer
        cursor, rest = spot.cursor, spot.rest
        typed = cursor.word if cursor.spot is Where.FILE else spot.place.typed
        text, goes_on = offer.text, offer.goes_on
        if rest and text.endswith(rest) and len(text) > len(rest):
            text, goes_on = text[: -len(rest)], True
        attached = cursor.word[: len(cursor.word) - len(typed)]
        ready = written(attached + text, cursor.quote, goes_on=goes_on)
        return replace(offer, ready=ready, back=at - cursor.begin)


def _once(offers: Iterable[Offer]) -> list[Offer]:
    """Each text the first time."""
    return list({offer.text: offer for offer in reversed(list(offers))}.values())[::-1]


def matching(offers: Iterable[Offer], typed: str) -> Iterator[Offer]:
    """Those that fit what is typed, best first, else in their order."""
    found = [(offer, match) for offer in offers if (match := matched(offer.text, typed))]
    for offer, match in sorted(found, key=lambda pair: pair[1].fit):
        yield replace(offer, match=match)


def command_offers(context: click.Context) -> Iterator[Offer]:
    """The commands of a group."""
    from shell.tree import Group

    group = context.command
    if isinstance(group, Group):
        for name, help in group.told(context):
            yield Offer(name, help)
    elif isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield Offer(name, command.get_short_help_str(60))


def option_offers(place: Place) -> Iterator[Offer]:
    """The options of a command that may still be given; short ones when one is begun."""
    for parameter in place.context.command.get_params(place.context):
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        if parameter.name in place.options and not parameter.multiple:
            continue
        spellings = [*parameter.opts, *parameter.secondary_opts]
        for spelling in spellings:
            short = not spelling.startswith("--")
            if not short or place.typed == "-" or place.typed == spelling:
                yield Offer(spelling, _help_of(parameter))


def _help_of(option: click.Option) -> str:
    return (option.help or "").partition("\n")[0]

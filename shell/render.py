"""Rows of the cluster as text: tables, records, JSON, YAML, CSV, names. Pure: width, colour and
time come in as arguments.

Nothing that a guest or a user wrote reaches the terminal with its control characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMATS = ("table", "wide", "json", "yaml", "csv", "name")
TABLE, WIDE, RECORD = 0, 1, 2
"""Where a column is first shown: in tables, in wide tables, only in the record of one thing."""

HOSTILE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that a terminal may obey, or that are not what they seem."""
GAP = "  "
SHORTEST = 8
"""A column is never cut shorter than this."""
ELLIPSIS = "…"
SPELLED = {
    "CPU": "CPU",
    "CPUS": "CPUs",
    "HA": "HA",
    "NAT": "NAT",
    "NICS": "NICs",
    "OS": "OS",
    "MTU": "MTU",
    "QEMU": "QEMU",
    "UID": "UID",
    "UUID": "UUID",
    "VMS": "VMs",
    "VNC": "VNC",
}
"""Words of titles that are not written in lower case."""
_PAINT = re.compile(r"(\x1b\[[0-9;]*m)")
_END = "\x1b[0m"
STYLES = {"good": "32", "busy": "33", "bad": "31", "dim": "2", "bold": "1"}


@dataclass(frozen=True, slots=True)
class Output:
    """How somebody asked to be shown things."""

    format: str = "table"
    columns: str = ""
    """Titles and field paths with commas between them; "" for the usual columns."""
    header: bool = True

    @property
    def for_people(self) -> bool:
        """Whether words around it do no harm."""
        return self.format in ("table", "wide")


@dataclass(frozen=True, slots=True)
class View:
    """How to show things."""

    format: str = "table"
    width: int = 80
    colour: bool = False
    now: float = 0.0
    """Seconds since the epoch, for ages."""
    header: bool = True
    chosen: bool = False
    """The columns are those that somebody asked for: all of them are shown, and nothing else."""


@dataclass(frozen=True, slots=True)
class Column:
    """One thing worth showing of a row."""

    title: str
    value: Callable[[Any, View], str]
    level: int = TABLE
    right: bool = False
    elastic: bool = False
    """May be cut when the table is too wide."""
    style: Callable[[str], str] | None = None
    """The style of a value: a key of STYLES, or ""."""
    path: str = ""
    """The field that it shows, to filter and sort by; "" for what is made of several things."""
    is_age: bool = False
    """It shows how long ago the time at the path was: the youngest is the smallest."""
    also: tuple[str, ...] = ()
    """Other names that people may use."""
    plain: Callable[[Any], Any] | None = None
    """Its value as JSON has it; the text that is shown without one."""

    @property
    def key(self) -> str:
        """The title as CSV and JSON have it: "HOST NAME" → "host_name"."""
        return self.title.lower().replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows that were to be shown, and how."""

    rows: Sequence[Any]
    columns: Sequence[Column]
    output: Output
    nothing: str = "nothing found"
    """What to say where people read and there are none."""
    is_one: bool = False
    """One thing, told as a record."""
    of: Any = None
    """The descriptor of the rows, if it is known without any."""

    @property
    def kind(self) -> Any:
        """The descriptor of the rows; None when there are none, or they have none."""
        return self.of or (getattr(self.rows[0], "DESCRIPTOR", None) if self.rows else None)


def clean(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(
        letter if unicodedata.category(letter) not in HOSTILE else "\ufffd" for letter in text
    )


def cells_wide(text: str) -> int:
    """How many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(letter)
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )


def cut(text: str, width: int) -> str:
    """The text in at most `width` cells, with an ellipsis when something is missing."""
    if cells_wide(text) <= width:
        return text
    kept = ""
    for letter in text:
        if cells_wide(kept + letter) > width - 1:
            break
        kept += letter
    return kept + ELLIPSIS


def cut_painted(text: str, width: int) -> str:
    """cut() for a text in styles: those take no room and are ended."""
    if cells_wide(_PAINT.sub("", text)) <= width:
        return text
    kept, left = "", width
    for place, piece in enumerate(_PAINT.split(text)):
        if place % 2:
            kept += piece
        elif cells_wide(piece) >= left:
            return f"{kept}{cut(piece + ELLIPSIS, left)}{_END if _END in text else ''}"
        else:
            kept, left = kept + piece, left - cells_wide(piece)
    return kept


def painted(text: str, style: str, colour: bool) -> str:
    """The text in a style, if there is colour."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and style and text else text


def many(rows: Sequence[Any], columns: Sequence[Column], view: View) -> str:
    """Several rows in the view's format. Wide tables leave out wide columns that are empty."""
    match view.format:
        case "json":
            return json_text([told_of(row, columns, view) for row in rows], 2) + "\n"
        case "yaml":
            return yaml_text([told_of(row, columns, view) for row in rows])
        case "csv":
            return csv_lines(rows, columns, view)
        case "name":
            return "".join(f"{clean(short(row))}\n" for row in rows)
    return table(rows, shown_of(columns, rows, view), view)


def shown_of(columns: Sequence[Column], rows: Sequence[Any], view: View) -> list[Column]:
    """The columns that a table has."""
    if view.chosen:
        return list(columns)
    wide = view.format == "wide"
    return [
        c
        for c in columns
        if c.level == TABLE or (wide and c.level == WIDE and any(c.value(r, view) for r in rows))
    ]


def told_of(row: Any, columns: Sequence[Column], view: View) -> Mapping[str, Any]:
    """The row for programs: all of it, or the columns that were asked for."""
    if not view.chosen:
        return as_dict(row)
    return {c.key: c.plain(row) if c.plain else c.value(row, view) for c in columns}


def one(row: Any, columns: Sequence[Column], view: View) -> str:
    """One row in the view's format: as a record where people read it."""
    match view.format:
        case "json":
            return json_text(told_of(row, columns, view), 2) + "\n"
        case "yaml":
            return yaml_text(told_of(row, columns, view))
        case "csv" | "name":
            return many([row], columns, view)
    return record(row, columns, view)


def table(
    rows: Sequence[Any], columns: Sequence[Column], view: View, least: Sequence[int] = ()
) -> str:
    """A table; columns that may be cut are, when it does not fit into the width.

    least: widths of the columns that it has at least.
    """
    body = [[clean(column.value(row, view)) for column in columns] for row in rows]
    titles = [column.title for column in columns]
    widths = fitted(
        widths_of([titles, *body] if view.header else body, least),
        [column.elastic for column in columns],
        view.width,
    )
    lines = [_line(titles, columns, widths, ["bold"] * len(columns), view)] if view.header else []
    for cells in body:
        styles = [c.style(cell) if c.style else "" for c, cell in zip(columns, cells, strict=True)]
        lines.append(_line(cells, columns, widths, styles, view))
    return "".join(line + "\n" for line in lines)


def widths_of(lines: Sequence[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    """How wide each column of some lines of cells is."""
    widths = [max(map(cells_wide, cells)) for cells in zip(*lines, strict=True)]
    return [max(pair) for pair in zip(widths, least, strict=True)] if least else widths


def fitted(widths: Sequence[int], elastic: Sequence[bool], total: int) -> list[int]:
    """The widths, the widest elastic ones shortened until all fit into the total, or can no
    more."""
    fits = list(widths)
    while sum(fits) + len(GAP) * (len(fits) - 1) > total:
        longest = max(
            (i for i in range(len(fits)) if elastic[i] and fits[i] > SHORTEST),
            key=lambda i: fits[i],
            default=None,
        )
        if longest is None:
            break
        fits[longest] -= 1
    return fits


def _line(
    cells: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    styles: Sequence[str],
    view: View,
) -> str:
    shown = []
    for cell, column, width, style in zip(cells, columns, widths, styles, strict=True):
        text = cut(cell, width)
        padding = " " * (width - cells_wide(text))
        text = painted(text, style, view.colour)
        shown.append(padding + text if column.right else text + padding)
    return GAP.join(shown).rstrip()


def record(row: Any, columns: Sequence[Column], view: View) -> str:
    """One row, a line for each column that has something to say."""
    pairs = [(column, clean_lines(column.value(row, view))) for column in columns]
    if not view.header:
        return "".join(f"{text}\n" for _, text in pairs if text or view.chosen)
    told = [(column, text) for column, text in pairs if text or view.chosen]
    titles = {column.title: titled(column.title) for column, _ in told}
    widest = max(map(len, titles.values()), default=0)
    lines = []
    for column, text in told:
        style = column.style(text) if column.style else ""
        title = painted(f"{titles[column.title]}:".ljust(widest + 2), "dim", view.colour)
        first, *more = text.split("\n")
        lines.append(title + painted(first, style, view.colour))
        lines += [" " * (widest + 2) + line for line in more]
    return "".join(line + "\n" for line in lines)


def titled(title: str) -> str:
    """A column's title as a record has it: "HOST NAME" → "Host name", "CPUS" → "CPUs"."""
    words = [SPELLED.get(word, word.lower()) for word in title.split(" ")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def clean_lines(text: str) -> str:
    """clean(), but lines stay lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def as_dict(row: Any) -> Mapping[str, Any]:
    """The row as JSON has it: the same as through REST; rows of this side tell it themselves."""
    if not hasattr(row, "DESCRIPTOR"):
        return dict(row.as_dict())
    from google.protobuf.json_format import MessageToDict

    shown = MessageToDict(row, always_print_fields_with_no_presence=True)
    _sort_maps(shown, row.DESCRIPTOR)
    return shown


def _sort_maps(shown: dict[str, Any], descriptor: Any) -> None:
    """Brings maps into the order of their keys: messages have them in none, new at every start."""
    for field in descriptor.fields:
        value, inner = shown.get(field.json_name), field.message_type
        if inner is None or not value:
            continue
        if inner.full_name == "google.protobuf.Any":
            shown[field.json_name] = dict(value)  # YAML knows no other kind of mapping
            continue
        if inner.GetOptions().map_entry and isinstance(value, dict):
            shown[field.json_name] = dict(sorted(value.items()))
            value, inner = list(value.values()), inner.fields_by_name["value"].message_type
        for one in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(one, dict):
                _sort_maps(one, inner)


def short(row: Any) -> str:
    """The ids of a row's name."""
    from pvc_client.names import short_name

    name: str = getattr(row, "name", "") or getattr(row, "id", "")
    return short_name(name) or name


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON, what a terminal would obey escaped."""
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _escaped(text, lambda letter: json.dumps(letter)[1:-1])


def yaml_text(value: Any) -> str:
    """The value as YAML, what a terminal would obey escaped."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Puts texts into double quotes that hold what must be escaped."""

    def text(dumper: Any, given: str) -> Any:
        style = '"' if clean_lines(given) != given else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", given, style=style)

    Dumper.add_representer(str, text)
    return _escaped(
        yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True),
        lambda letter: f"\\U{ord(letter):08x}",
    )


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """A text whose quoted strings hold nothing that a terminal would obey."""
    if text.isascii() and "\x7f" not in text:
        return text
    hostile = (one != "\n" and unicodedata.category(one) in HOSTILE for one in text)
    return "".join(escape(one) if bad else one for one, bad in zip(text, hostile, strict=True))


def csv_lines(rows: Iterable[Any], columns: Sequence[Column], view: View) -> str:
    """The rows as CSV: the columns of a wide table, empty ones too."""
    import csv
    import io

    told = [c for c in columns if view.chosen or c.level <= WIDE]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if view.header:
        writer.writerow([column.key for column in told])
    writer.writerows([clean(column.value(row, view)) for column in told] for row in rows)
    return text.getvalue()

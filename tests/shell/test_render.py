"""What the shell prints, compared with files that people looked at.

GOLDEN=write makes the files anew; look at the difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvc_client import errors
from shell import failures, render
from shell.measures import mebibytes, parse_size, parse_span, size, span
from shell.render import FORMATS, View
from shell.progress import progress_line
from tests.shell.rows import NOW, ROWS

GOLDENS = Path(__file__).parent / "goldens"


def golden(name: str, text: str) -> None:
    path = GOLDENS / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("width", [80, 200])
def test_tables(kind: str, width: int) -> None:
    rows, columns = ROWS[kind]
    shown = "\n".join(
        render.many(rows, columns, View(format, width, now=NOW)) for format in ("table", "wide")
    )
    golden(f"{kind}-{width}.txt", shown)
    assert "\x1b" not in shown


@pytest.mark.parametrize("kind", ROWS)
def test_records(kind: str) -> None:
    rows, columns = ROWS[kind]
    golden(f"{kind}-record.txt", "\n".join(render.one(r, columns, View(now=NOW)) for r in rows))


@pytest.mark.parametrize("format", [one for one in FORMATS if one not in ("table", "wide")])
def test_formats_for_programs(format: str) -> None:
    """Whole messages of a small kind: every new field of a VM would make another file."""
    kind = "token" if format in ("json", "yaml") else "vm"
    rows, columns = ROWS[kind]
    view = View(format, now=NOW)
    one, many = render.one(rows[0], columns, view), render.many(rows, columns, view)
    golden(f"{kind}.{format}", f"{one}\n{many}")


def test_tables_with_colour() -> None:
    rows, columns = ROWS["vm"]
    shown = render.many(rows[:2], columns, View("table", 80, True, NOW))
    golden("vm-colour.txt", shown)
    assert "\x1b[32mrunning\x1b[0m" in shown and "\x1b[31mcrashed\x1b[0m" in shown


def test_no_line_is_wider_than_the_terminal_if_it_can_be_helped() -> None:
    rows, columns = ROWS["vm"]
    for width in (70, 80, 120):
        for line in render.many(rows, columns, View("table", width, now=NOW)).splitlines():
            assert render.cells_wide(line) <= width


@pytest.mark.parametrize(
    ("text", "count"),
    [("20G", 20 * 2**30), ("1.5 GiB", 3 * 2**29), ("768m", 768 * 2**20), ("512", 512),
     ("1T", 2**40), ("4KB", 4096), ("0", 0)],
)  # fmt: skip
def test_sizes_in(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1G", "1.5", "1e3", "20 G B", "0x10", "20GG", "١G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole"):
        parse_size(text)


def test_a_bare_number_has_the_unit_of_its_place() -> None:
    assert parse_size("768", "M") == 768 * 2**20


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1536, "1.5K"),
        (2**30, "1G"),
        (5 * 2**40, "5T"),
        (2**52, "4096T"),
    ],
)
def test_sizes_out(count: int, text: str) -> None:
    assert size(count) == text


def test_spans() -> None:
    assert [span(s) for s in (0, 59, 61, 599, 600, 7200, 172800)] == [
        "0s", "59s", "1m01s", "9m59s", "10m", "2h", "2d",
    ]  # fmt: skip
    assert (parse_span("1h30m"), parse_span("30d")) == (5400, 2592000)
    assert mebibytes(1536) == "1.5G"
    for text in ("", "5", "1x", "h", "1h 2m"):
        with pytest.raises(ValueError, match="time span"):
            parse_span(text)


def test_progress_lines() -> None:
    assert progress_line("web", "starting", 25, 3.1, 79) == (
        "web  [#####...............]  25%  3.1s  starting"
    )
    assert len(progress_line("web", "x" * 100, 100, 3.1, 79)) == 79
    assert "\x1b" not in progress_line("web", "\x1b[2J", 1, 0.0, 79)


@pytest.mark.parametrize("kind", errors.BY_REASON.values(), ids=lambda k: k.__name__)
def test_every_error_has_an_exit_code_and_is_told_without_colour(
    kind: type[errors.PvcError],
) -> None:
    error = kind("vms/web is\x1b[2J not so", field="spec.x")
    expected = 4 if kind is errors.NotFound else 5 if issubclass(kind, errors.Unavailable) else 1
    assert failures.exit_code(error) == expected
    told = failures.told(error, colour=False)
    assert told.startswith("error: vms/web is\ufffd[2J not so [spec.x]\n")
    assert "\x1b" not in told


def test_hints_for_the_local_socket() -> None:
    refused = errors.Unreachable("unix:/run/pvc/pvc.sock does not answer: Permission denied")
    assert "use sudo" in failures.hint_for(refused)
    assert "is pvcd running" in failures.hint_for(errors.Unreachable("unix:/x does not answer"))

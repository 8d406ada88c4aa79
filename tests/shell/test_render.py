"""What the shell prints, compared with files that people looked at.

GOLDEN=write makes the files anew; look at the difference before it is committed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from pvc_client import errors
from shell import failures, render
from shell.measures import mebibytes, parse_size, parse_span, size, span
from shell.progress import Bar, board_lines, progress_line, time_left
from shell.render import FORMATS, View
from tests.shell.rows import NOW, ROWS

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
GOLDENS = Path(__file__).parent / "goldens"


def golden(name: str, text: str) -> None:
    path = GOLDENS / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


SHAPES = [
    *((format, width) for format in ("table", "wide") for width in (80, 200)),
    *((format, 0) for format in FORMATS if format not in ("table", "wide")),
]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(("format", "width"), SHAPES)
def test_every_kind_in_every_format(kind: str, format: str, width: int) -> None:
    rows, columns = ROWS[kind]
    shown = render.many(rows, columns, View(format, width or 80, now=NOW))
    golden(f"{kind}-{format}-{width}.txt" if width else f"{kind}.{format}", shown)
    assert not CONTROLS.search(shown), "nothing that a terminal would obey"
    if format == "json":
        assert len(json.loads(shown)) == len(rows)
    if format == "yaml":
        assert len(yaml.safe_load(shown)) == len(rows)


@pytest.mark.parametrize("kind", ROWS)
def test_records(kind: str) -> None:
    rows, columns = ROWS[kind]
    golden(f"{kind}-record.txt", "\n".join(render.one(r, columns, View(now=NOW)) for r in rows))


def test_one_thing_for_programs_is_no_list() -> None:
    rows, columns = ROWS["token"]
    assert json.loads(render.one(rows[0], columns, View("json")))["name"] == "tokens/ann"
    assert yaml.safe_load(render.one(rows[0], columns, View("yaml")))["name"] == "tokens/ann"
    assert render.one(rows[0], columns, View("name")) == "ann\n"


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
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("\x1b[1mab\x1b[0mcd", 4, "\x1b[1mab\x1b[0mcd"),
        ("\x1b[1mab\x1b[0mcd", 3, "\x1b[1mab\x1b[0m…\x1b[0m"),
        ("\x1b[1mabcd\x1b[0m", 2, "\x1b[1ma…\x1b[0m"),
        ("漢字漢字", 5, "漢字…"),
    ],
)
def test_styles_take_no_room(text: str, width: int, shown: str) -> None:
    assert render.cut_painted(text, width) == shown


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


def test_many_bars_fit_the_screen_those_that_go_on_first() -> None:
    bars = [Bar(f"web{i}", "done", 100, began=0.0, ended=2.0) for i in range(20)]
    bars.append(Bar("last", "copying", 50, began=0.0))
    lines = board_lines(bars, 10.0, 60, 5)
    assert len(lines) == 5
    assert lines[0] == "last  [##########..........]  50%  10.0s, 10s left  copying"
    assert lines[1].endswith("2.0s  done") and lines[-1] == "… 17 more"


@pytest.mark.parametrize(
    ("elapsed_s", "percent", "left_s"),
    [(3.0, 50, None), (10.0, 5, None), (10.0, 50, 10.0), (30.0, 75, 10.0), (30.0, 100, None)],
)
def test_nobody_guesses_how_long_it_takes_too_early(
    elapsed_s: float, percent: int, left_s: float | None
) -> None:
    assert time_left(elapsed_s, percent) == left_s

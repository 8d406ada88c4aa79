"""What a line says: read, refused at the right place, written and read again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shell.language.cursor import Spot, cursor_in, unwrapped
from shell.language.line import (
    Redirect,
    Stage,
    Statement,
    is_unfinished,
    line_number,
    parse,
    spelled,
)
from shell.language.words import SyntaxProblem, Word, quoted, tokens, written


def told(text: str) -> list[Any]:
    """A line in short: each statement a list of its stages, ending with its redirect if any."""
    found = []
    for one in parse(text):
        stages: list[Any] = [
            ["!", *stage.texts] if stage.is_foreign else stage.texts
            for stage in (one.command, *one.stages)
        ]
        if one.target:
            stages.append((one.target.mark, one.target.path.text))
        if one.body:
            stages.append({"body": one.body})
        found.append(stages)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  # only a comment", []),
        ("vm list", [[["vm", "list"]]]),
        ("vm list # all", [[["vm", "list"]]]),
        ("vm info a#b", [[["vm", "info", "a#b"]]]),
        ("vm list;node list ;; ", [[["vm", "list"]], [["node", "list"]]]),
        ("vm list\nnode list", [[["vm", "list"]], [["node", "list"]]]),
        ("vm \\\n list", [[["vm", "list"]]]),
        ("vm list|grep web | head 3", [[["vm", "list"], ["grep", "web"], ["head", "3"]]]),
        ("vm list |\n  grep web", [[["vm", "list"], ["grep", "web"]]]),
        ("vm list '|' \">\" \\;", [[["vm", "list", "|", ">", ";"]]]),
        ("x 'a b'\"c d\"e\\ f ''", [[["x", "a bc de f", ""]]]),
        (r'x "a\"b\\c\d" ' + r"'a\b'", [[["x", 'a"b\\c\\d', "a\\b"]]]),
        ("vm list > a.txt", [[["vm", "list"], (">", "a.txt")]]),
        ("vm list --filter memory>2G", [[["vm", "list", "--filter", "memory>2G"]]]),
        ("vm list memory>=2G cpus<4 >f",
         [[["vm", "list", "memory>=2G", "cpus<4"], (">", "f")]]),
        ("vm list --filter=memory>2G > f; x",
         [[["vm", "list", "--filter=memory>2G"], (">", "f")], [["x"]]]),
        ("vm list 'a'>b a>|b", [[["vm", "list", "a>b", "a>"], ["b"]]]),
        ("vm list | grep a>b", [[["vm", "list"], ["grep", "a>b"]]]),
        ("vm list >>a.txt; x", [[["vm", "list"], (">>", "a.txt")], [["x"]]]),
        ("vm list | name >| 'a b'", [[["vm", "list"], ["name"], (">|", "a b")]]),
        (
            "vm list | where memory > 4G AND cpus>=2 > big.txt",
            [[["vm", "list"],
              ["where", "memory", ">", "4G", "AND", "cpus", ">=", "2"],
              (">", "big.txt")]],
        ),
        ("vm list | where tags:web > f", [[["vm", "list"], ["where", "tags:web"], (">", "f")]]),
        ("vm list | where (a=1) > f",
         [[["vm", "list"], ["where", "(", "a", "=", "1", ")"], (">", "f")]]),
        ("vm list | where a<5|head", [[["vm", "list"], ["where", "a", "<", "5"], ["head"]]]),
        ("vm list | grep a=b(c", [[["vm", "list"], ["grep", "a=b(c"]]]),
        ("!ls -l", [[["!", "ls", "-l"]]]),
        ("vm list | ! less -S", [[["vm", "list"], ["!", "less", "-S"]]]),
        (r"\!ls", [[["!ls"]]]),
        ("alias ll = vm list | head 3; node list # x",
         [[["alias", "ll"], {"body": "vm list | head 3; node list # x"}]]),
        ("alias ll='vm list'\nll", [[["alias", "ll"], {"body": "vm list"}], [["ll"]]]),
        ("save q = vm list --filter 'a > 1'",
         [[["save", "q"], {"body": "vm list --filter 'a > 1'"}]]),
        ("alias; alias ll", [[["alias"]], [["alias", "ll"]]]),
        ("alias | grep x", [[["alias"], ["grep", "x"]]]),
    ],
)  # fmt: skip
def test_what_a_line_says(text: str, expected: list[Any]) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    ("text", "marked", "message", "unfinished"),
    [
        ("vm list | grep 'abc", "'abc", "not closed", True),
        ('vm info a"b c', '"b c', "not closed", True),
        ("vm list \\", "\\", "not closed", True),
        ("vm list |", "|", "must follow |", True),
        ("vm list |  ; x", ";", "must stand before ;", False),
        ("| grep a", "|", "a command must stand before |", False),
        ("vm list > ", ">", "the name of a file must follow >", False),
        ("vm list > | x", ">", "must follow >", False),
        ("vm list > a b", "b", "nothing but ; may follow", False),
        ("vm list > a | b", "|", "nothing but ; may follow", False),
        ("vm list > ''", "''", "must have a name", False),
        ("vm list 2>err", "2>", "leave a blank before >", False),
        ("vm list > a>b", "a>b", "one file only", False),
        ("vm list 2> err", "2>", "leave a blank before >", False),
        ("vm list && x", "&&", "write ;", False),
        ("vm list || x", "|", "must stand before |", False),
        ("vm create web --user-data - < f", "<", "there is no <", False),
        ("vm list | !", "!", "must follow !", False),
        ("alias ll = vm list | ", "|", "must follow |", True),
        ("alias ll = ", "l", "stands for", False),
        ("alias a b c", "b", "alias NAME = COMMAND", False),
        ("save q = vm 'x", "'x", "not closed", True),
    ],
)
def test_what_a_line_cannot_say(text: str, marked: str, message: str, unfinished: bool) -> None:
    with pytest.raises(SyntaxProblem) as refused:
        parse(text)
    problem = refused.value
    assert message in problem.message
    if marked != "l":
        assert (
            text[problem.begin : problem.end].strip() == marked.strip()
            or marked in (text[problem.begin : problem.end])
        )
    assert is_unfinished(text) is unfinished


def test_the_place_is_shown() -> None:
    with pytest.raises(SyntaxProblem) as refused:
        parse("node list\n\tvm list > a b")
    shown = refused.value.pointed("node list\n\tvm list > a b")
    assert shown.splitlines()[1:] == ["  \tvm list > a b", "  \t            ^"]
    assert line_number("a\nb\nc", 4) == 3


plain = st.from_regex(r"[A-Za-z0-9_@%+:,./*?^~{}-][A-Za-z0-9_@%+=:,./*?^~{}-]{0,6}", fullmatch=True)
bare_words = plain.map(Word)
quoted_words = st.text(max_size=8).map(lambda text: Word(text, is_quoted=True))
filled = st.builds(
    lambda before, after: Word(f"{before}${after}", False, 0, 0, True, (len(before),)),
    st.text("ab '\"", max_size=3),
    st.text("ab1*", max_size=3),
)
words = st.one_of(bare_words, quoted_words, filled)
heads = st.from_regex(r"[b-r][a-z]{0,5}", fullmatch=True).map(Word)
stages = st.builds(
    lambda head, rest, foreign: Stage((head, *rest), foreign),
    heads, st.lists(words, max_size=3), st.booleans(),
)  # fmt: skip
filters = st.lists(st.tuples(heads, st.sampled_from([">", "<=", "=", "!="]), quoted_words),
                   min_size=1, max_size=3)  # fmt: skip
where_stages = filters.map(
    lambda terms: Stage(
        (Word("where"), *(w for f, op, value in terms for w in (f, Word(op, True), value)))
    )
)
redirects = st.none() | st.builds(
    Redirect,
    st.sampled_from([">", ">>", ">|"]),
    st.text(min_size=1, max_size=8).map(lambda text: Word(text, is_quoted=True)),
)
plain_statements = st.builds(
    Statement, stages, st.lists(st.one_of(stages, where_stages), max_size=3).map(tuple), redirects
)
definitions = st.builds(
    lambda kind, name, body: Statement(Stage((Word(kind), name)), body=spelled((body,)).strip()),
    st.sampled_from(["alias", "save"]), heads, st.builds(Statement, stages),
)  # fmt: skip
lines = st.lists(st.one_of(plain_statements, definitions), max_size=4).map(tuple)


@given(lines)
def test_what_is_written_is_read_back(line: tuple[Statement, ...]) -> None:
    assert parse(spelled(line)) == line


@given(st.text(alphabet="ab \t\n|>;#'\"\\!=<&$1()", max_size=40) | st.text())
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    try:
        line = parse(text)
    except SyntaxProblem as problem:
        assert 0 <= problem.begin <= problem.end <= len(text) + 1
        assert problem.pointed(text)
        return
    assert parse(spelled(line)) == line


@given(st.text(alphabet="ab \"'\\c-", max_size=20))
def test_quotes_mean_what_they_mean_to_shlex(text: str) -> None:
    try:
        expected = shlex.split(text)
    except ValueError:
        assert is_unfinished(text)
        return
    assert [one.text for one in tokens(text) if isinstance(one, Word)] == expected


@given(st.text(max_size=20))
def test_a_quoted_word_is_one_word(text: str) -> None:
    (word,) = tokens(quoted(text))
    assert isinstance(word, Word) and word.text == text
    (again,) = tokens(written(word))
    assert again == word
    if "\0" not in text:
        assert shlex.split(quoted(text)) == [text]


@pytest.mark.parametrize(
    ("text", "spot", "words", "word", "command"),
    [
        ("", Spot.COMMAND, (), "", ("",)),
        ("vm", Spot.COMMAND, (), "vm", ("vm",)),
        ("vm ", Spot.COMMAND, ("vm",), "", ("vm", "")),
        ("vm start 'we", Spot.COMMAND, ("vm", "start"), "we", ("vm", "start", "we")),
        ("vm list; node li", Spot.COMMAND, ("node",), "li", ("node", "li")),
        ("vm list | gr", Spot.STAGE, (), "gr", ("vm", "list")),
        ("vm list | where mem", Spot.STAGE, ("where",), "mem", ("vm", "list")),
        ("vm list | where memory >", Spot.STAGE, ("where", "memory", ">"), "", ("vm", "list")),
        ("vm list | where a > 4 > fi", Spot.FILE, (), "fi", ("vm", "list")),
        ("vm list > ", Spot.FILE, (), "", ("vm", "list")),
        ("vm list | !le", Spot.FOREIGN, (), "!le", ("vm", "list")),
        ("vm list # com", Spot.COMMENT, ("vm", "list"), "", ("vm", "list")),
        ("alias ll = vm li", Spot.COMMAND, ("vm",), "li", ("vm", "li")),
        ("alias ll = vm list | so", Spot.STAGE, (), "so", ("vm", "list")),
    ],
)
def test_where_the_cursor_is(
    text: str, spot: Spot, words: tuple[str, ...], word: str, command: tuple[str, ...]
) -> None:
    found = cursor_in(text)
    assert (found.spot, found.words, found.word) == (spot, words, word)
    if spot is not Spot.COMMENT:
        assert found.command == command
    assert text[found.begin :].strip("'\"") == word


@given(st.text(alphabet="ab \t\n|>;#'\"\\!=<&$1()", max_size=40) | st.text())
def test_the_cursor_is_always_somewhere(text: str) -> None:
    found = cursor_in(text)
    assert 0 <= found.begin <= len(text)


def test_what_stands_before_a_command() -> None:
    assert unwrapped(("pvc", "vm", "list")) == ("vm", "list")
    assert unwrapped(("watch", "-n", "2", "time", "vm", "list")) == ("vm", "list")
    assert unwrapped(("watch",)) == ("watch",)

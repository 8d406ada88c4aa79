"""How typed letters fit names: which fit at all, which come first, and how much work ten thousand
are."""

from __future__ import annotations

import time

import pytest

from shell.prompt.fuzzy import Fit, Names, best, matched


@pytest.mark.parametrize(
    ("text", "typed", "fit", "places"),
    [
        ("start", "sta", Fit.PREFIX, (0, 1, 2)),
        ("Start", "sT", Fit.PREFIX, (0, 1)),
        ("start", "", Fit.PREFIX, ()),
        ("attach-disk", "ad", Fit.WORD_STARTS, (0, 7)),
        ("attach-disk", "atd", Fit.WORD_STARTS, (0, 1, 7)),
        ("local/web-root", "wr", Fit.WORD_STARTS, (6, 10)),
        ("spec.memory.memory_mib", "smm", Fit.WORD_STARTS, (0, 5, 12)),
        ("attach-disk", "sk", Fit.WITHIN, (9, 10)),
        ("attach-disk", "tk", Fit.SCATTERED, (1, 10)),
        ("a.b", ".", Fit.WITHIN, (1,)),
    ],
)
def test_letters_fit(text: str, typed: str, fit: Fit, places: tuple[int, ...]) -> None:
    found = matched(text, typed)
    assert found is not None
    assert (found.fit, found.places) == (fit, places)


@pytest.mark.parametrize(("text", "typed"), [("start", "x"), ("ab", "ba"), ("", "a"), ("a]", "^")])
def test_letters_that_do_not_fit(text: str, typed: str) -> None:
    assert matched(text, typed) is None


def test_the_best_come_first_and_the_order_stays_among_equals() -> None:
    texts = ["tops", "attach-disk", "stop", "start", "list", "last"]
    assert [texts[n] for n, _ in best(texts, "st")] == ["stop", "start", "list", "last"]


def test_of_many_names_the_best_come_first() -> None:
    names = Names(["web", "db", "Web-2", "my-web", "wxexb", "old.web", "w-e-b"])
    assert names.best("web", 9) == ["web", "Web-2", "my-web", "old.web", "w-e-b", "wxexb"]
    assert names.best("web", 2) == ["web", "Web-2"]
    assert names.best("", 3) == ["db", "my-web", "old.web"]
    assert names.best("nothing", 9) == []
    assert names.best("web\nd", 9) == []
    assert Names([]).best("a", 9) == [] and Names([]).last(3) == []
    assert names.last(2) == ["wxexb", "Web-2"]


def test_many_names_fit_as_single_ones_do() -> None:
    texts = [f"vm-{n}-{'prod' if n % 3 else 'test'}" for n in range(500)]
    for typed in ("v", "vp", "49", "4t", "m-1", "tset"):
        alone = {texts[n]: match.fit for n, match in best(texts, typed)}
        together = Names(texts).best(typed, 1000)
        assert set(together) == set(alone)
        assert [alone[name] for name in together] == sorted(alone.values())


def test_no_name_is_slow_however_it_is_made() -> None:
    hostile = Names(["a-" * 31 + "a", "a" * 63, "-" * 63] * 1000)
    began = time.process_time()
    hostile.best("aaaaaaaaaaab", 100)
    assert time.process_time() - began < 10


def test_ten_thousand_names_are_searched_within_a_keystroke() -> None:
    names = Names([f"vm-{n:05d}-prod-{n % 7}" for n in range(10_000)])
    for typed in ("v", "vm-49", "42p", "zzz", "vmprod9"):
        spent = []
        for _ in range(3):
            began = time.process_time()
            names.best(typed, 100)
            spent.append(time.process_time() - began)
        assert min(spent) < 0.3, typed

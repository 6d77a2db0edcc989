"""Patterns and numbers as filters compare them, without a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.filter.matching import is_like, meets_number, meets_text
from everloop.core.filter.parser import parse_filter
from everloop.core.filter.tree import Comparison


def the(text: str) -> Comparison:
    found = parse_filter(text)
    assert isinstance(found, Comparison)
    return found


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        ("abc", "abc", True),
        ("abc", "a%", True),
        ("abc", "%c", True),
        ("abc", "a%c", True),
        ("a", "a%a", False),
        ("aa", "a%a", True),
        ("abab", "%ab", True),
        ("abc", "a_c", True),
        ("ac", "a_c", False),
        ("a\nc", "a_c", True),
        ("a\nc", "%", True),
        ("", "", True),
        ("", "%", True),
        ("", "_", False),
        ("axbxc", "a%b%c", True),
        ("axcxb", "a%b%c", False),
        ("a.c", "a.c", True),
        ("abc", "a.c", False),
        ("ABC", "abc", False),
    ],
)
def test_a_pattern_matches_the_whole_text(value: str, pattern: str, expected: bool) -> None:
    assert expected is is_like(value, pattern, folded=False)


def test_folded_patterns_ignore_the_case_of_ascii_letters_only() -> None:
    assert is_like("ABC", "a%", folded=True)
    assert not is_like("Ä", "ä", folded=True)


def _naive(value: str, pattern: str) -> bool:
    if not pattern:
        return not value
    if pattern[0] == "%":
        return any(_naive(value[at:], pattern[1:]) for at in range(len(value) + 1))
    return bool(value) and pattern[0] in {"_", value[0]} and _naive(value[1:], pattern[1:])


@given(st.text("ab", max_size=8), st.text("ab%_", max_size=6))
def test_patterns_mean_what_their_definition_says(value: str, pattern: str) -> None:
    assert _naive(value, pattern) is is_like(value, pattern, folded=False)


def test_what_is_missing_meets_no_test_but_is_null() -> None:
    tests = ["a = 'x'", "a != 'x'", "a in ('x')", "a not in ('x')", "a not like 'x'"]

    assert [False] * 5 == [meets_text(None, the(text)) for text in tests]
    assert meets_text(None, the("a is null"))
    assert not meets_text(None, the("a is not null"))


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("a > 1", [2.0]),
        ("a != 1", [0.0, 2.0, float("nan")]),
        ("a between 0 and 1", [0.0, 1.0]),
        ("a not in (0, 1)", [2.0, float("nan")]),
        ("a is nan", [float("nan")]),
    ],
)
def test_numbers_compare_with_nan_different_from_all(text: str, met: list[float]) -> None:
    values = [0.0, 1.0, 2.0, float("nan"), None]

    assert str(met) == str([value for value in values if meets_number(value, the(text))])

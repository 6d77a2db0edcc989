"""Stored text cannot steer a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.cli.text import clean, clean_json, clean_line, to_cell


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "\u202eabc", "\u2066x", "\ufeff", "\x7f"],
)
def test_no_character_that_steers_a_terminal_comes_through(text: str) -> None:
    shown = clean(text)

    assert shown.isprintable()
    assert "\\" in shown


def test_words_of_any_language_stay_as_they_are() -> None:
    text = "Größe 数据 данные naïve"

    assert text == clean(text) == clean_line(text)


def test_a_cell_is_one_line() -> None:
    assert "a b c" == to_cell("a\nb\tc")


def test_a_cell_shows_what_a_struct_holds_and_not_its_code() -> None:
    class Named(msgspec.Struct):
        name: str
        at: datetime

    told = Named("order-7", datetime(2026, 11, 21, 9, 30, tzinfo=UTC))

    assert "order-7 2026-11-21 09:30:00, -" == to_cell([told, None])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_keeps_its_meaning_and_shows_nothing_harmful(text: str) -> None:
    shown = clean_json(json.dumps({"a": text}, ensure_ascii=False))

    assert {"a": text} == json.loads(shown)
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown

"""The grammar of filters and orders: what is read, and where a mistake is said to be."""

from __future__ import annotations

import math

import pytest

from everloop.core.errors import InvalidInput
from everloop.core.filter.parser import DEEPEST, LONGEST, MOST_TESTS, parse_filter, parse_order
from everloop.core.filter.tree import (
    EVERYTHING,
    Both,
    Comparison,
    Either,
    How,
    Literal,
    Moment,
    Name,
    Negated,
    Number,
    SortKey,
    Text,
)


def a(name: str, how: How = How.EQ, *values: Literal, negated: bool = False) -> Comparison:
    return Comparison(Name(tuple(name.split("."))), how, values or (Number(1),), negated)


def test_and_binds_before_or_and_not_before_both() -> None:
    found = parse_filter("a = 1 or b = 1 AND not c = 1")

    assert Either((a("a"), Both((a("b"), Negated(a("c")))))) == found


def test_brackets_group() -> None:
    assert Both((Either((a("a"), a("b"))), a("c"))) == parse_filter("(a=1 or b=1) and c=1")


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_filter_holds_for_everything(text: str) -> None:
    assert EVERYTHING == parse_filter(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'xgb'", Text("xgb")),
        ('"xgb"', Text("xgb")),
        ("'it''s'", Text("it's")),
        ('"say ""so"""', Text('say "so"')),
        (r"'C:\'", Text("C:\\")),
        ("''", Text("")),
        ("0.9", Number(0.9)),
        (".5", Number(0.5)),
        ("5.", Number(5.0)),
        ("-3", Number(-3)),
        ("+3", Number(3)),
        ("1e-3", Number(0.001)),
        ("1E5", Number(1e5)),
        ("12345678901234567890", Number(12345678901234567890)),
        ("-inf", Number(-math.inf)),
        ("2026-11-21", Text("2026-11-21")),
        ("2026-11-21T09:30:00Z", Text("2026-11-21T09:30:00Z")),
        ("now", Moment(0)),
        ("now - 7d", Moment(-604_800)),
        ("NOW-90m", Moment(-5_400)),
        ("now + 2w", Moment(1_209_600)),
    ],
)
def test_a_value_is_a_text_a_number_a_date_or_a_time_from_now(text: str, value: Literal) -> None:
    assert a("x", How.EQ, value) == parse_filter(f"x = {text}")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("metrics.auc", ("metrics", "auc")),
        ("metrics.val.auc", ("metrics", "val", "auc")),
        ("metrics.`val auc`", ("metrics", "val auc")),
        ('metrics."val.auc"', ("metrics", "val.auc")),
        ("metrics.`a``b`", ("metrics", "a`b")),
        ("metrics.system/cpu-load:1@x", ("metrics", "system/cpu-load:1@x")),
        ("metrics.1st", ("metrics", "1st")),
        ("tags.and", ("tags", "and")),
        ("`Run name`", ("Run name",)),
        ('"status"', ("status",)),
        ("`and`", ("and",)),
        ("params.größe", ("params", "größe")),
    ],
)
def test_a_name_is_a_path_with_quotes_where_it_needs_them(
    text: str, parts: tuple[str, ...]
) -> None:
    assert Comparison(Name(parts), How.EQ, (Number(1),)) == parse_filter(f"{text} = 1")


@pytest.mark.parametrize(
    ("text", "test"),
    [
        ("x == 1", a("x", How.EQ)),
        ("x <> 1", a("x", How.NE)),
        ("x>=1", a("x", How.GE)),
        ("x like 'a%'", a("x", How.LIKE, Text("a%"))),
        ("x NOT ILIKE 'a%'", a("x", How.ILIKE, Text("a%"), negated=True)),
        ("x in ('a', \"b\",)", a("x", How.IN, Text("a"), Text("b"))),
        ("x not in (1)", a("x", How.IN, Number(1), negated=True)),
        ("x between 1 and 2", a("x", How.BETWEEN, Number(1), Number(2))),
        ("x is null", Comparison(Name(("x",)), How.NULL)),
        ("x is not NaN", Comparison(Name(("x",)), How.NAN, (), negated=True)),
    ],
)
def test_a_test_compares_a_field(text: str, test: Comparison) -> None:
    assert test == parse_filter(text)


def test_between_does_not_swallow_the_and_behind_it() -> None:
    found = parse_filter("x between 1 and 2 and y = 1")

    assert Both((a("x", How.BETWEEN, Number(1), Number(2)), a("y"))) == found


MISTAKES = [
    ("metrics.auc >> 1", 13, "is no comparison"),
    ("a ~ 'x'", 3, "is no comparison"),
    ("a = xgb", 5, "Expected a number, a date, or a text in quotes, found 'xgb'"),
    ("a = 'x", 5, "has no end"),
    ("a = \"x", 5, "has no end"),
    ("`a = 1", 1, "has no end"),
    ("(a=1", 5, "Expected AND, OR or ')', found the end"),
    ("(a=1 b=1)", 6, "Expected AND, OR or ')', found 'b'"),
    ("a=1)", 4, "found ')'"),
    ("a=1 b=2", 5, "Expected AND, OR or the end, found 'b'"),
    ("a=1 and", 8, "Expected a field, NOT or '(', found the end"),
    ("and a=1", 1, "found 'and'"),
    ("a=1 or or b=1", 8, "found 'or'"),
    ("not", 4, "found the end"),
    ("a in ()", 7, "found ')'"),
    ("a in ('x' 'y')", 11, "Expected ',' or ')'"),
    ("a in 'x'", 6, "Expected '('"),
    ("a not = 1", 7, "Expected LIKE, ILIKE, IN or BETWEEN"),
    ("a is 5", 6, "Expected NULL or NAN"),
    ("a like x", 8, "Expected a pattern in quotes"),
    ("a rlike 'x'", 3, "Expected a comparison"),
    ("a", 2, "Expected a comparison"),
    ("a between 1 or 2", 13, "Expected AND"),
    ("a = 1 && b = 2", 7, "has no meaning"),
    ("a = 1;", 6, "has no meaning"),
    ("a = 7x", 5, "is no number"),
    ("a = 7d", 5, "found '7d'"),
    ("a = now - 7", 11, "Expected a span of time"),
    ("a = now - 999999999999d", 11, "A span of time is too long"),
    ("a = = 1", 5, "found '='"),
    ("a = null", 5, "found 'null'"),
    ("7 = a", 1, "found '7'"),
    ("a.`` = 1", 1, "A part of a name is empty"),
    ("`` = 1", 1, "A part of a name is empty"),
    ('"" = 1', 1, "Expected a field"),
    ("a = " + "9" * 301, 5, "too many digits"),
    ("a like '" + "%" * 1_001 + "'", 8, "A pattern is too long"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "position", "problem"), MISTAKES)
def test_a_mistake_is_told_with_its_position_and_a_caret(
    text: str, position: int, problem: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_filter(text)

    error = refused.value
    caret = str(error.context["caret"])
    assert ("filter.invalid", position) == (error.code, error.context["position"])
    assert problem in error.message
    assert error.hint
    shown = str(error.context["excerpt"])
    assert text[position - 1 :][:1] == shown[len(caret) - 1 :][:1]


def test_the_caret_stands_below_wide_characters_too() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_filter("`日本` = x")

    assert ("`日本` = x", "         ^") == (
        refused.value.context["excerpt"],
        refused.value.context["caret"],
    )


def test_the_excerpt_of_a_long_filter_is_what_is_around_the_mistake() -> None:
    text = " and ".join(["a = 1"] * 40) + " or x ! 1"
    with pytest.raises(InvalidInput) as refused:
        parse_filter(text)

    excerpt = str(refused.value.context["excerpt"])
    assert excerpt.startswith("...")
    assert len(excerpt) < 130
    assert "!" == excerpt[len(str(refused.value.context["caret"])) - 1]


@pytest.mark.parametrize(
    "text",
    [
        "(" * (DEEPEST + 1) + "a=1" + ")" * (DEEPEST + 1),
        "not " * (DEEPEST + 1) + "a=1",
        " and ".join(["a=1"] * (MOST_TESTS + 1)),
        "a = '" + "x" * LONGEST + "'",
    ],
)
def test_what_is_too_deep_too_long_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="too"):
        parse_filter(text)


def test_the_deepest_filter_that_is_allowed_is_read() -> None:
    assert a("a") == parse_filter("(" * DEEPEST + "a=1" + ")" * DEEPEST)


def test_an_order_is_a_list_of_fields_with_directions() -> None:
    found = parse_order("metrics.auc DESC, started_at, `Run name` asc")

    assert (
        SortKey(Name(("metrics", "auc")), descending=True),
        SortKey(Name(("started_at",))),
        SortKey(Name(("Run name",))),
    ) == found
    assert () == parse_order(" ")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a,", 3),
        ("a down", 3),
        (", a", 1),
        ("a; b", 2),
        ("a desc desc", 8),
        (",".join("abcdefg"), 13),
    ],
)
def test_a_mistake_in_an_order_is_told_with_its_position(text: str, position: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_order(text)

    assert ("order.invalid", position) == (refused.value.code, refused.value.context["position"])


def test_a_filter_that_is_asked_again_is_read_once_and_a_long_one_is_not_kept() -> None:
    short, long = "a = 1", f"a IN ({', '.join(map(str, range(1_000)))})"

    assert parse_filter(short) is parse_filter(short)
    assert parse_filter(long) == parse_filter(long)
    assert parse_filter(long) is not parse_filter(long), "256 of them would fill the memory"

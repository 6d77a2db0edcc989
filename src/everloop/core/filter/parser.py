"""Reads filters and orders: one grammar for everything that can be searched.

The grammar (keywords in any case)::

    filter   = [ either ] ;
    either   = both { "OR" both } ;
    both     = denied { "AND" denied } ;
    denied   = "NOT" denied | "(" either ")" | test ;
    test     = name ( compare value
                    | [ "NOT" ] ( "LIKE" | "ILIKE" ) value
                    | [ "NOT" ] "IN" "(" value { "," value } [ "," ] ")"
                    | [ "NOT" ] "BETWEEN" value "AND" value
                    | "IS" [ "NOT" ] ( "NULL" | "NAN" ) ) ;
    compare  = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ;
    value    = text | [ sign ] ( number | "inf" ) | date | "now" [ sign span ] ;
    sign     = "+" | "-" ;
    name     = part { "." key } ;
    part     = word | backticked | doublequoted ;
    key      = { word character, or one of - / : @ inside } | backticked | doublequoted ;
    text     = "'" ... "'" | '"' ... '"' ;              (a quote inside is doubled)
    date     = 2026-11-21 | 2026-11-21T09:30:00Z ;      (in quotes or without)
    span     = digits ( "s" | "m" | "h" | "d" | "w" ) ; (seconds to weeks)

    order    = sortkey { "," sortkey } ;
    sortkey  = name [ "ASC" | "DESC" ] ;

AND binds before OR, and NOT before both. An empty filter holds for every row.
"""

from __future__ import annotations

import math
from functools import lru_cache

from everloop.core.errors import InvalidInput
from everloop.core.filter.faults import fault, shown
from everloop.core.filter.lexer import Kind, Token, tokens_of
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
    Node,
    Number,
    SortKey,
    Text,
)

LONGEST = 10_000
DEEPEST = 50
MOST_TESTS = 200
MOST_SORT_KEYS = 6
LONGEST_PATTERN = 1_000
LONGEST_REMEMBERED = 2_000
"""The tree of a longer filter is not kept: a list of ids takes megabytes, and comes once."""
KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "BETWEEN"})
_COMPARES = {each.value: each for each in list(How)[:6]} | {"==": How.EQ, "<>": How.NE}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_MOST_DIGITS = 300
_MOST_SECONDS = 100 * 365 * 86_400
_VALUE = "a number, a date, or a text in quotes"


def parse_filter(text: str, *, longest: int = LONGEST) -> Node:
    """Return the tree of a filter.

    Raises:
        InvalidInput: ``filter.invalid``; its context says where (see ``faults.fault``).
    """
    _require_short(text, longest, "filter")
    return _remembered(text) if len(text) <= LONGEST_REMEMBERED else _read_filter(text)


def _read_filter(text: str) -> Node:
    parser = _Parser(text, "filter")
    if parser.is_at_end():
        return EVERYTHING
    node = parser.either(0)
    if not parser.is_at_end():
        raise parser.unexpected("AND, OR or the end", parser.advice_after_test())
    return node


_remembered = lru_cache(maxsize=256)(_read_filter)


@lru_cache(maxsize=256)
def parse_order(text: str) -> tuple[SortKey, ...]:
    """Return the keys of an order such as ``metrics.auc DESC, started_at``; empty for none.

    Raises:
        InvalidInput: ``order.invalid``.
    """
    _require_short(text, LONGEST, "order")
    parser = _Parser(text, "order")
    if parser.is_at_end():
        return ()
    keys = [parser.sort_key()]
    while parser.accept(Kind.PUNCTUATION, ","):
        if len(keys) == MOST_SORT_KEYS:
            raise parser.wrong(
                "There are too many keys to sort by", f"Sort by {MOST_SORT_KEYS} at most."
            )
        keys.append(parser.sort_key())
    if not parser.is_at_end():
        raise parser.unexpected("ASC, DESC, ',' or the end", "Part the keys with commas.")
    return tuple(keys)


def _require_short(text: str, longest: int, what: str) -> None:
    if len(text) > longest:
        raise fault(
            text,
            longest,
            f"A text of {len(text):,} characters is too long: it is cut",
            f"Write it in at most {longest:,} characters.",
            what=what,
        )


class _Parser:
    """Goes through the tokens once, one method for each rule of the grammar."""

    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._what = what
        self._tokens = tokens_of(text, what=what)
        self.now: Token = next(self._tokens)
        self._tests = 0

    def _step(self) -> None:
        if self.now.kind is not Kind.END:
            self.now = next(self._tokens)

    @property
    def kind(self) -> Kind:
        return self.now.kind

    def is_at_end(self) -> bool:
        """Tell whether all tokens are read."""
        return self.now.kind is Kind.END

    def accept(self, kind: Kind, raw: str) -> bool:
        """Step over a token if it is this one."""
        if self.now.kind is kind and self.now.raw == raw:
            self._step()
            return True
        return False

    def accept_word(self, *words: str) -> str:
        """Step over a keyword if it is one of these; return it, or an empty text."""
        word = self.now.word
        if word in words:
            self._step()
            return word
        return ""

    def wrong(self, problem: str, hint: str, at: int | None = None) -> InvalidInput:
        return fault(self._text, self.now.at if at is None else at, problem, hint, what=self._what)

    def unexpected(self, expected: str, hint: str) -> InvalidInput:
        found = "the end" if self.kind is Kind.END else shown(self.now.raw)
        return self.wrong(f"Expected {expected}, found {found}", hint)

    def either(self, depth: int) -> Node:
        parts = [self._both(depth)]
        while self.accept_word("OR"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self, depth: int) -> Node:
        parts = [self._denied(depth)]
        while self.accept_word("AND"):
            parts.append(self._denied(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _denied(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise self.wrong(
                "Brackets and NOTs are nested too deep", f"Nest them {DEEPEST} times at most."
            )
        if self.accept_word("NOT"):
            return Negated(self._denied(depth + 1))
        opening = self.now.at
        if self.accept(Kind.PUNCTUATION, "("):
            node = self.either(depth + 1)
            if not self.accept(Kind.PUNCTUATION, ")"):
                hint = f"Close the bracket that opens at position {opening + 1}."
                if self.kind is not Kind.END:
                    hint = self.advice_after_test()
                raise self.unexpected("AND, OR or ')'", hint)
            return node
        return self._test()

    def advice_after_test(self) -> str:
        """Return what to do about something that follows a test and should not."""
        if self.now.raw == ")":
            return "No bracket is open here; take this one away."
        if self.kind in {Kind.NAME, Kind.QUOTED}:
            return "Put AND or OR between two tests."
        if self.kind is Kind.TEXT:
            return "Inside a text, write a quote twice: 'it''s'."
        return "Compare one field with one value, and join such tests with AND and OR."

    def _test(self) -> Comparison:
        self._tests += 1
        if self._tests > MOST_TESTS:
            raise self.wrong(
                "There are too many tests", f"Write {MOST_TESTS} at most; use IN for many values."
            )
        name = self._name("a field, NOT or '('")
        compare = self.now
        if compare.kind is Kind.COMPARE:
            return Comparison(name, self._compare(), (self._value(),))
        if self.accept_word("IS"):
            negated = bool(self.accept_word("NOT"))
            word = self.accept_word("NULL", "NAN")
            if not word:
                raise self.unexpected("NULL or NAN", "Write IS NULL, IS NOT NULL or IS NAN.")
            return Comparison(name, How(word), (), negated)
        negated = bool(self.accept_word("NOT"))
        word = self.accept_word("LIKE", "ILIKE", "IN", "BETWEEN")
        if word in {"LIKE", "ILIKE"}:
            return Comparison(name, How(word), (self._pattern(),), negated)
        if word == "IN":
            return Comparison(name, How.IN, self._list(), negated)
        if word == "BETWEEN":
            low = self._value()
            if not self.accept_word("AND"):
                raise self.unexpected("AND", "Write it like BETWEEN 1 AND 2.")
            return Comparison(name, How.BETWEEN, (low, self._value()), negated)
        raise self._no_compare(negated)

    def _no_compare(self, negated: bool) -> InvalidInput:
        if negated:
            return self.unexpected("LIKE, ILIKE, IN or BETWEEN", "Write NOT before a whole test.")
        if self.now.word in {"RLIKE", "REGEXP", "MATCHES", "CONTAINS"}:
            return self.unexpected(
                "a comparison", "Use LIKE or ILIKE with '%': tags.note LIKE '%retry%'."
            )
        return self.unexpected(
            "a comparison: =, !=, <, <=, >, >=, LIKE, ILIKE, IN, BETWEEN or IS",
            "Write it like status = 'finished' or metrics.auc > 0.9.",
        )

    def _compare(self) -> How:
        found = _COMPARES.get(self.now.raw)
        if found is None:
            pattern = "~" in self.now.raw
            raise self.wrong(
                f"{shown(self.now.raw)} is no comparison",
                "Use LIKE for patterns." if pattern else "Use =, !=, <, <=, > or >=.",
            )
        self._step()
        return found

    def _name(self, expected: str) -> Name:
        token = self.now
        is_keyword = token.word in KEYWORDS
        if token.kind not in {Kind.NAME, Kind.QUOTED} or is_keyword or token.parts == ("",):
            hint = "Write it like metrics.auc > 0.9 AND params.model = 'xgb'."
            if token.word in {"AND", "OR"}:
                hint = f"{token.word} stands between two tests."
            elif is_keyword:
                hint = f"Put {shown(token.raw)} in backticks where it is the name of a field."
            raise self.unexpected(expected, hint)
        self._step()
        return Name(token.parts, token.at)

    def _list(self) -> tuple[Literal, ...]:
        if not self.accept(Kind.PUNCTUATION, "("):
            raise self.unexpected("'('", "Write it like IN ('a', 'b').")
        values = [self._value()]
        while self.accept(Kind.PUNCTUATION, ","):
            if self.now.raw == ")":
                break
            values.append(self._value())
        if not self.accept(Kind.PUNCTUATION, ")"):
            raise self.unexpected("',' or ')'", "Write it like IN ('a', 'b').")
        return tuple(values)

    def _pattern(self) -> Literal:
        if self.kind not in {Kind.TEXT, Kind.QUOTED}:
            raise self.unexpected("a pattern in quotes", "Write it like LIKE 'a%'.")
        if len(self.now.parts[0]) > LONGEST_PATTERN:
            raise self.wrong(
                "A pattern is too long", f"Write it in {LONGEST_PATTERN:,} characters at most."
            )
        return self._value()

    def _value(self) -> Literal:
        token = self.now
        if token.kind in {Kind.TEXT, Kind.QUOTED}:
            self._step()
            return Text(token.parts[0], token.at)
        if token.word == "NOW":
            return self._moment()
        sign = -1 if token.raw == "-" else 1
        if token.kind is Kind.SIGN:
            self._step()
        if self.now.word in {"INF", "INFINITY"}:
            self._step()
            return Number(sign * math.inf, token.at)
        if self.kind is not Kind.NUMBER:
            raise self.unexpected(_VALUE, self._advice_for_value())
        return Number(sign * self._number(), token.at)

    def _advice_for_value(self) -> str:
        word = self.now.word
        if word == "NULL":
            return "Write IS NULL or IS NOT NULL."
        if word == "NAN":
            return "Write IS NAN or IS NOT NAN."
        if self.kind is Kind.NAME and word not in KEYWORDS:
            return f"A text stands in quotes: '{'.'.join(self.now.parts)[:40]}'."
        if self.kind is Kind.SPAN:
            return "A span of time is counted from now: now - 7d."
        if self.kind is Kind.COMPARE:
            return "One comparison stands between a field and a value."
        return "Write it like metrics.auc > 0.9 or status = 'finished'."

    def _number(self) -> int | float:
        raw = self.now.raw
        if len(raw) > _MOST_DIGITS:
            raise self.wrong("A number has too many digits", f"{_MOST_DIGITS} are enough.")
        self._step()
        return int(raw) if raw.isdigit() else float(raw)

    def _moment(self) -> Moment:
        at = self.now.at
        self._step()
        if self.kind is not Kind.SIGN:
            return Moment(0, at)
        sign = -1 if self.now.raw == "-" else 1
        self._step()
        token = self.now
        if token.kind is not Kind.SPAN:
            raise self.unexpected(
                "a span of time", "Write it like now - 7d, with s, m, h, d or w after the number."
            )
        seconds = _SECONDS[token.raw[-1]] * int(token.raw[:-1][:20])
        if seconds > _MOST_SECONDS:
            raise self.wrong("A span of time is too long", "A hundred years are the most.")
        self._step()
        return Moment(sign * seconds, at)

    def sort_key(self) -> SortKey:
        if self.kind not in {Kind.NAME, Kind.QUOTED} or self.now.parts == ("",):
            raise self.unexpected("a field", "Write it like metrics.auc DESC, started_at.")
        name = Name(self.now.parts, self.now.at)
        self._step()
        return SortKey(name, descending=self.accept_word("ASC", "DESC") == "DESC")

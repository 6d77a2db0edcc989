"""Which rows an index can name: the few among which all that meet a filter must be.

A search is fast when something selective leads it. The databases guess what that is, one of them
without any figures to go by; here the indexes are asked, each for at most so many rows as would
be worth following.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from everloop.core.records import Record
from everloop.core.search import All, Any, Compare, Filter, Has, Not, Test
from everloop.storage.reading import led_by, parts_of
from everloop.storage.searching import Compiler, Tables
from everloop.storage.statements import Dialect, Fragment, quoted
from everloop.storage.tables import Row, SqlValue

Run = Callable[[str, Sequence[SqlValue]], Sequence[Row]]
NAMED = 50
_RANGES = frozenset({Compare.LT, Compare.LE, Compare.GT, Compare.GE, Compare.PREFIX, Compare.IN})


class _Wanted(NamedTuple):
    """Values of a field of the rows that meet a filter."""

    kind: type[Record]
    field: str
    filter: Filter


class Reach(NamedTuple):
    """A statement that yields values of a field, and at most how many those are.

    Attributes:
        whole: The part of the filter that the values meet already; None when they may not.
    """

    values: Fragment
    most: int
    whole: Filter | None = None


class Reaching:
    """Asks the indexes of one snapshot."""

    def __init__(self, tables: Tables, dialect: Dialect, run: Run) -> None:
        self._tables = tables
        self._dialect = dialect
        self._run = run
        self._counted: dict[tuple[str, tuple[SqlValue, ...]], tuple[int, int]] = {}

    def ids(self, kind: type[Record], filter: Filter, bound: int) -> Reach | None:
        """Return ids that hold those of all rows that meet the filter, if fewer than ``bound``."""
        parts = parts_of(filter)
        tests = [part for part in parts if isinstance(part, Test)]
        best = self._least(self._by_tests(_Wanted(kind, "id", All(tuple(tests))), tests, bound))
        for part in parts:
            if best is not None and best.most == 0:
                return best
            limit = bound if best is None else best.most
            if isinstance(part, Has):
                found = self._by_row(kind, part, limit)
                best = self._least(best, found and found._replace(whole=part))
            elif isinstance(part, Any):
                best = self._least(best, self._by_any(kind, part, limit))
        return best

    def resolved(self, kind: type[Record], filter: Filter) -> Filter:
        """Return a filter that means the same, where what few rows are named by is written out.

        A run that read ``credit@3`` is one whose edge leads to that very version: found once,
        instead of once for each run.
        """
        match filter:
            case Has():
                inner = self.resolved(filter.kind, filter.filter)
                has = replace(filter, filter=inner)
                return has if has.link.ours == "id" else self._named(kind, has)
            case All(parts=parts):
                return All(tuple(self.resolved(kind, part) for part in parts))
            case Any(parts=parts):
                return Any(tuple(self.resolved(kind, part) for part in parts))
            case Not(part=part):
                return Not(self.resolved(kind, part))
        return filter

    def _named(self, kind: type[Record], has: Has) -> Filter:
        found = self._values(has, NAMED)
        if found is None:
            return has
        rows = [] if found.most == 0 else self._run(found.values.text, found.values.values)
        decode = self._tables[kind].by_name[has.link.ours].decode
        values = {value if decode is None else decode(value) for (value,) in rows}
        return Test(has.link.ours, Compare.IN, tuple(sorted(str(value) for value in values)))

    def _by_any(self, kind: type[Record], filter: Any, bound: int) -> Reach | None:
        most = 0
        texts: list[str] = []
        values: list[SqlValue] = []
        for part in filter.parts:
            found = self.ids(kind, part, bound - most)
            if found is None:
                return None
            most += found.most
            texts.append(found.values.text)
            values += found.values.values
        if not texts:
            return None
        return Reach(Fragment(" UNION ALL ".join(texts), tuple(values)), most)

    def _by_row(self, kind: type[Record], has: Has, bound: int) -> Reach | None:
        """Return ids of rows to which another row may belong."""
        found = self._values(has, bound)
        if found is None or has.link.ours == "id":
            return found
        return self._among(_Wanted(kind, "id", All()), has.link.ours, found, bound)

    def _values(self, has: Has, bound: int) -> Reach | None:
        """Return values of our field of the link, of rows to which another row may belong."""
        link = has.link
        parts = parts_of(has.filter)
        tests = [part for part in parts if isinstance(part, Test)]
        wanted = _Wanted(has.kind, link.theirs, has.filter)
        found = self._by_tests(wanted, tests, bound)
        for part in parts:
            if found is not None:
                break
            if isinstance(part, Has):
                inner = self._values(part, bound)
                if inner is not None:
                    # All of them meet this part already.
                    rest = All(tuple(other for other in parts if other is not part))
                    unmet = wanted._replace(filter=rest)
                    found = self._among(unmet, part.link.ours, inner, bound)
        if found is None or not (link.prefix or link.strip):
            return found
        # Back over the link: what is put before our value comes off again.
        mark, size = self._dialect.mark, len(link.prefix)
        text = (
            f"SELECT {mark} || substr(v.value, {size + 1}) AS value "
            f"FROM ({found.values.text}) v WHERE substr(v.value, 1, {size}) = {mark}"
        )
        return Reach(Fragment(text, (link.strip, *found.values.values, link.prefix)), found.most)

    def _by_tests(self, wanted: _Wanted, tests: Sequence[Test], bound: int) -> Reach | None:
        """Return what is wanted where an index serves some of the tests."""
        group = self._served(wanted.kind, tests)
        if group is None:
            return None
        served = All(tuple(test for test in tests if test.field in group))
        compiler = Compiler(self._tables, self._dialect)
        return self._bounded(wanted, compiler.filter(wanted.kind, "x", served), bound)

    def _among(self, wanted: _Wanted, ours: str, values: Reach, bound: int) -> Reach | None:
        """Return what is wanted where another field is one of few values."""
        if led_by(self._tables[wanted.kind].kind, (), ours) is None:
            return None
        if values.most == 0:
            return values
        text = f"x.{quoted(ours)} {self._dialect.among.format(values.values.text)}"
        return self._bounded(wanted, Fragment(text, values.values.values), bound)

    def _bounded(self, wanted: _Wanted, served: Fragment, bound: int) -> Reach | None:
        """Return what is wanted if an index finds fewer rows than the bound."""
        kind, field, filter = wanted
        table = quoted(self._tables[kind].name)
        most = self._count(f"SELECT 1 FROM {table} x WHERE {served.text}", served.values, bound)
        if most >= bound:
            return None
        rest = Compiler(self._tables, self._dialect).filter(kind, "x", filter)
        text = f"SELECT x.{quoted(field)} AS value FROM {table} x WHERE {served.text}"
        return Reach(Fragment(f"{text} AND {rest.text}", served.values + rest.values), most)

    def _count(self, text: str, values: tuple[SqlValue, ...], bound: int) -> int:
        """Return how many rows a statement finds, up to the bound; asks once for the same."""
        found, looked = self._counted.get((text, values), (0, 0))
        if found < looked or bound <= looked:
            return min(found, bound)
        limited = f"{text} LIMIT {self._dialect.mark}"
        ((most,),) = self._run(f"SELECT COUNT(*) FROM ({limited}) c", (*values, bound))
        assert isinstance(most, int)
        self._counted[text, values] = most, bound
        return most

    def _served(self, kind: type[Record], tests: Sequence[Test]) -> frozenset[str] | None:
        """Return the fields of the index that serves most tests, and more than the project's."""
        equal = {test.field for test in tests if test.compare is Compare.EQ}
        ranged = {test.field for test in tests if test.compare in _RANGES} | {
            test.field for test in tests if test.compare is Compare.NE and test.value is None
        }
        declared = self._tables[kind].kind
        best: tuple[str, ...] = ()
        for group in (*declared.index, *declared.unique, ("id",)):
            size = 0
            while size < len(group) and group[size] in equal:
                size += 1
            if size < len(group) and group[size] in ranged:
                size += 1
            best = max(best, group[:size], key=_telling)
        return frozenset(best) if _telling(best)[0] else None

    @staticmethod
    def _least(*found: Reach | None) -> Reach | None:
        return min((each for each in found if each is not None), key=lambda r: r.most, default=None)


def _telling(fields: tuple[str, ...]) -> tuple[int, int]:
    """Return how many fields tell rows of one project apart, and how many there are."""
    return len(set(fields) - {"project"}), len(fields)


def narrowed(values: Fragment, probes: Sequence[Fragment]) -> Fragment:
    """Return the statement that yields, as ``v.value``, only values that meet all probes."""
    if not probes:
        return values
    met = " AND ".join(probe.text for probe in probes)
    text = f"SELECT v.value FROM ({values.text}) v WHERE {met}"
    return Fragment(text, (*values.values, *(bound for each in probes for bound in each.values)))

from __future__ import annotations

import datetime as dt
import math

import pyarrow as pa
import pytest

from everloop.core.errors import InvalidInput
from everloop.data.contract import Violation, check_contract, read_contract

TABLE = pa.table(
    {
        "id": [1, 2, 2, 4, 5, 5, 5],
        "x": [0.0, 1.0, math.nan, None, -3.0, 9.0, 2.0],
        "c": pa.array(["a", "b", "a", None, "z", "z", "q"]).dictionary_encode(),
        "day": pa.array([dt.date(2011, 1, d) for d in range(1, 8)]),
    }
)


def check(**columns: dict[str, object]) -> list[Violation]:
    return check_contract(TABLE, read_contract({"columns": columns}))


def found(violations: list[Violation]) -> list[tuple[str | None, str, int, tuple[int, ...]]]:
    return [(v.column, v.rule, v.count, v.examples) for v in violations]


def test_a_kept_contract_gives_no_violations() -> None:
    kept = check(
        id={"dtype": "integer", "nullable": False, "min": 1, "max": 5},
        x={"dtype": "float64", "max_null_fraction": 0.5, "min": -3},
        c={"dtype": "string", "allowed": ["a", "b", "z", "q"]},
        day={"dtype": "date", "min": "2011-01-01"},
    )

    assert kept == []


@pytest.mark.parametrize(
    ("column", "rules", "expected"),
    [
        ("id", {"unique": True}, ("id", "unique", 5, (1, 2, 4, 5, 6))),
        ("id", {"dtype": "string"}, ("id", "dtype", 7, ())),
        ("x", {"nullable": False}, ("x", "nullable", 2, (2, 3))),
        ("x", {"max_null_fraction": 0.2}, ("x", "max_null_fraction", 2, (2, 3))),
        ("x", {"min": 0}, ("x", "min", 1, (4,))),
        ("x", {"max": 1.5}, ("x", "max", 2, (5, 6))),
        ("c", {"allowed": ["a", "b"]}, ("c", "allowed", 3, (4, 5, 6))),
        ("day", {"max": "2011-01-05"}, ("day", "max", 2, (5, 6))),
        ("gone", {}, ("gone", "missing_column", 1, ())),
    ],
)
def test_a_broken_rule_names_its_count_and_rows(
    column: str, rules: dict[str, object], expected: tuple[object, ...]
) -> None:
    assert found(check(**{column: rules})) == [expected]


def test_rows_and_extra_columns_are_judged() -> None:
    few = read_contract({"rows": {"min": 10}})
    many = read_contract({"rows": {"max": 5}, "columns": {"id": {}}, "allow_extra": False})

    assert found(check_contract(TABLE, few)) == [(None, "too_few_rows", 3, ())]
    assert [v.rule for v in check_contract(TABLE, many)] == [
        "too_many_rows",
        "extra_column",
        "extra_column",
        "extra_column",
    ]


def test_a_value_that_is_not_allowed_is_shown() -> None:
    (violation,) = check(c={"allowed": ["a", "b"]})

    assert violation.message == "3 values of 'c' are not allowed: z, q"


@pytest.mark.parametrize("rules", [{"min": "tall"}, {"allowed": ["a", "b"]}, {"allowed": [1, "b"]}])
def test_a_rule_that_does_not_fit_the_column_is_a_violation_not_a_crash(
    rules: dict[str, object],
) -> None:
    assert [v.rule for v in check(x=rules)] == ["unusable_rule"]


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"columns": {"x": {"minimun": 1}}}, "minimun"),
        ({"columns": {"x": {"unique": "yes"}}}, "unique"),
        ({"colums": {}}, "colums"),
        ({"columns": {"x": {"max_null_fraction": 2}}}, "max_null_fraction"),
        ({"rows": {"min": -1}}, "rows.min"),
    ],
)
def test_a_wrong_contract_names_the_key(mapping: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_contract(mapping)
    assert refused.value.code == "contract.invalid"
    assert named in refused.value.message


@pytest.mark.parametrize(
    ("values", "rules"),
    [
        (pa.array([1]), {"max": 10**30}),
        (pa.array([1]), {"allowed": [10**30]}),
        (pa.array([[1], [1]]), {"unique": True}),
        (pa.array([[1]]), {"allowed": []}),
        (pa.array([1], pa.time64("ns")), {"allowed": []}),
        (pa.array([2**62], pa.duration("s")), {"allowed": [1]}),
        (pa.array([b"x"]), {"min": 1}),
    ],
    ids=str,
)
def test_a_rule_that_arrow_cannot_apply_is_a_violation_too(
    values: pa.Array, rules: dict[str, object]
) -> None:
    contract = read_contract({"columns": {"x": rules}})

    (violation,) = check_contract(pa.table({"x": values}), contract)

    assert "unusable_rule" == violation.rule


def test_an_empty_table_keeps_rules_about_values() -> None:
    contract = read_contract({"columns": {"id": {"nullable": False, "unique": True, "min": 0}}})

    assert check_contract(TABLE.slice(0, 0), contract) == []

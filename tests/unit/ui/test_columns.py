"""Which columns the table of runs has."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from everloop.ui.columns import chosen_columns, find_column, metrics_of, usual_columns


@dataclass
class Seen:
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)


def keys(*runs: Seen, with_experiment: bool = True) -> list[str]:
    return [column.key for column in usual_columns(runs, with_experiment=with_experiment)]


def test_parameters_that_are_the_same_everywhere_are_not_worth_a_column() -> None:
    runs = [Seen(params={"seed": "7", "rate": str(n)}) for n in range(3)]

    assert "params.rate" in keys(*runs)
    assert "params.seed" not in keys(*runs)


def test_a_parameter_that_some_runs_lack_does_not_differ_by_that() -> None:
    assert "params.seed" not in keys(Seen(params={"seed": "7"}), Seen())


def test_frequent_metrics_come_first_and_those_of_the_machine_not_at_all() -> None:
    runs = [Seen(metrics={"rare": "1", "often": "1", "system/cpu": "1"}), Seen({}, {"often": "2"})]

    assert ["metrics.often", "metrics.rare"] == keys(*runs)[4:]


def test_the_experiment_is_left_out_where_it_is_chosen() -> None:
    assert "experiment" not in keys(with_experiment=False)
    assert "experiment" in keys()


@pytest.mark.parametrize("key", ["", "x", "metrics.", ".x", "owner.x", "params." + "x" * 251])
def test_what_is_no_column_is_none(key: str) -> None:
    assert find_column(key) is None


def test_a_name_with_odd_characters_is_quoted_in_an_order_and_plain_in_an_address() -> None:
    column = find_column("metrics.val loss `x`")

    assert column is not None
    assert ("metrics.val loss `x`", "val loss `x`") == (column.key, column.label)
    assert "metrics.`val loss ``x```" == column.order


def test_columns_come_once_in_the_order_in_which_they_were_chosen() -> None:
    found = chosen_columns(["params.b", "status", "params.b", "nonsense", "metrics.a"])

    assert ["params.b", "status", "metrics.a"] == [column.key for column in found]
    assert ("metrics.a",) == metrics_of(found)

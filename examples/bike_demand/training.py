"""Training of the bike-demand model: plain functions, the same answer for the same seed.

The target counts rentals, with a variance that grows faster than their mean, so the model is
fitted with the Tweedie deviance: its answers are never negative, and nothing has to be
transformed back when it is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from features import DAY, INPUTS, build_features, to_matrix, to_target
from pyarrow import csv

if TYPE_CHECKING:
    import lightgbm

Parameter = str | int | float | bool

DATA = Path(__file__).parent / "data" / "bike_sharing_hour.csv.gz"

PARAMS: dict[str, Parameter] = {
    "objective": "tweedie",
    "n_trees": 200,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.9,
}

HOLDOUT_EVERY = 5
"""One day in five is kept from training, for the gate."""

__all__ = [
    "DATA",
    "HOLDOUT_EVERY",
    "PARAMS",
    "build_features",
    "choose_days",
    "evaluate",
    "read_hours",
    "split_by_day",
    "train",
]


def read_hours(path: Path = DATA) -> pa.Table:
    """Return the source's hours as they are, in order of time."""
    return csv.read_csv(path)


def choose_days(features: pa.Table, *, until: date, days: int) -> pa.Table:
    """Return the hours of the `days` days before `until`, which is not among them."""
    day = features.column(DAY)
    first = pa.scalar(until - timedelta(days=days), pa.date32())
    return features.filter(
        pc.and_(pc.greater_equal(day, first), pc.less(day, pa.scalar(until, pa.date32())))
    )


def split_by_day(features: pa.Table, *, every: int = HOLDOUT_EVERY) -> tuple[pa.Table, pa.Table]:
    """Return the hours to train on, and those of every `every`-th day, which are held out.

    Whole days are held out, since neighbouring hours are nearly copies of one another. They are
    counted backwards from the newest day, which is held out itself: the newest weeks are in both
    parts, and a champion that was trained earlier has seen none of them.

    Raises:
        ValueError: fewer days than `every`, or `every` below 2.
    """
    days = np.unique(features.column(DAY).to_numpy())
    if every < 2 or days.size < every:
        raise ValueError(f"{days.size} days cannot be split with every {every}th held out")
    held_out = pa.array(days[::-1][::every], pa.date32())
    is_held_out = pc.is_in(features.column(DAY), value_set=held_out)
    return features.filter(pc.invert(is_held_out)), features.filter(is_held_out)


def train(features: pa.Table, params: Mapping[str, Parameter], seed: int) -> lightgbm.Booster:
    """Return a model of the target; the same features, parameters and seed give the same bytes.

    Args:
        features: What `build_features` made, with the target.
        params: LightGBM's own names, and `n_trees`; what is missing is taken from `PARAMS`.
        seed: Of bagging and of the choice of columns.
    """
    import lightgbm

    chosen = PARAMS | dict(params)
    n_trees = int(chosen.pop("n_trees"))
    fixed = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    rows = lightgbm.Dataset(
        to_matrix(features), label=to_target(features), feature_name=list(INPUTS)
    )
    return lightgbm.train(chosen | fixed | {"seed": seed}, rows, num_boost_round=n_trees)


def evaluate(booster: lightgbm.Booster, features: pa.Table) -> dict[str, float]:
    """Return the mean absolute error, the root mean squared error and the bias on these hours."""
    answers = np.asarray(booster.predict(to_matrix(features), num_threads=1))
    residuals = answers - to_target(features)
    return {
        "mae": float(np.abs(residuals).mean()),
        "rmse": float(np.sqrt(np.square(residuals).mean())),
        "bias": float(residuals.mean()),
    }

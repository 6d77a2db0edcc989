"""What the loop freezes to retrain on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from everloop.app.verbs import load_verbs
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion
from everloop.data.snapshot import commit_table
from everloop.data.tables import read_table
from everloop.loop.model import LoopConfig
from everloop.loop.snapshot import Frozen, freeze
from tests.kit import World, world

load_verbs()
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
CONFIG = LoopConfig(dataset="rows", train_days=10, holdout_every=5, min_rows=24)


def hours(days: int, **columns: float) -> pa.Table:
    times = [BEGIN + timedelta(hours=hour) for hour in range(24 * days)]
    filled = {name: [value] * len(times) for name, value in columns.items()}
    return pa.table(
        {"x": range(len(times)), **filled, "at": pa.array(times, pa.timestamp("us", tz="UTC"))}
    )


def frozen(made: World, days: int) -> Frozen | None:
    now = BEGIN + timedelta(days=days)
    return freeze(made.owner, deployment=Id("d"), target="y", config=CONFIG, now=now)


def days_of(made: World, version: DatasetVersion) -> set[int]:
    return set(read_table(made.blobs, version).column("day").to_pylist())


def test_whole_days_are_kept_from_training_and_old_ones_left_out() -> None:
    made = world()
    commit_table(made.owner, "rows", hours(20, y=1.0))

    found = frozen(made, 20)

    assert found is not None
    first = int(BEGIN.timestamp() // 86_400)
    assert {day for day in range(first + 10, first + 20) if day % 5} == days_of(
        made, found.training
    )
    assert {day for day in range(first + 10, first + 20) if not day % 5} == days_of(
        made, found.holdout
    )


def test_a_dataset_without_a_first_holdout_is_no_obstacle() -> None:
    made = world()
    commit_table(made.owner, "rows", hours(8, y=1.0))

    assert frozen(made, 8) is not None


def test_too_few_rows_freeze_nothing() -> None:
    made = world()
    commit_table(made.owner, "rows", hours(20, y=1.0))

    assert frozen(made, 40) is None


def test_nothing_at_all_freezes_nothing() -> None:
    assert frozen(world(), 3) is None

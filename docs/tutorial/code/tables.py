"""Makes the tables of the tutorial: how many cups a small coffee bar sells in each hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

START = datetime(2026, 3, 5, tzinfo=UTC)  # a Thursday
HISTORY_DAYS = 56


def sell(first_day: int, days: int, *, crowd: float = 1.0) -> pa.Table:
    """Return the sales of some days; `crowd` says how many more people live in the street."""
    source = np.random.default_rng(1000 + first_day)
    hours = np.arange(first_day * 24, (first_day + days) * 24)
    hour, weekday = hours % 24, (hours // 24 + 3) % 7
    temperature = np.round(12 + 8 * np.sin(hours / 24 / 58) + source.normal(0, 3, hours.size), 1)
    morning = 30 * np.exp(-(((hour - 8.5) / 2.0) ** 2))
    expected = (6 + morning - 0.2 * temperature) * np.where(weekday < 5, 1.0, 0.6) * crowd
    cups = np.maximum(0, np.round(expected + source.normal(0, 2.0, hours.size)))
    return pa.table(
        {
            "at": [START + timedelta(hours=int(place)) for place in hours],
            "hour": hour,
            "weekday": weekday,
            "temperature": temperature,
            "cups": cups.astype(np.int64),
        }
    )


if __name__ == "__main__":
    table = sell(0, HISTORY_DAYS)
    held_out = pc.equal(pc.bit_wise_and(pc.day_of_year(table["at"]), 3), 0)  # each fourth day
    csv.write_csv(table.filter(pc.invert(held_out)), "train.csv")
    csv.write_csv(table.filter(held_out), "holdout.csv")
    print("wrote train.csv and holdout.csv")

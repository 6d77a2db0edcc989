"""The answers that count as valid."""

from __future__ import annotations

import pytest

from everloop.registry.bounds import output_bounds
from everloop.registry.signature import Field, Signature, Task


@pytest.mark.parametrize(
    ("task", "seen", "bounds"),
    [
        ("regression", (10.0, 40.0), (-20.0, 70.0)),
        ("classification", (0.0, 1.0), (0.0, 1.0)),
        ("regression", (None, 40.0), (None, 40.0)),
        ("regression", (None, None), (None, None)),
    ],
)
def test_a_number_may_leave_the_range_seen_in_training_by_its_width_and_a_probability_may_not(
    task: Task, seen: tuple[float | None, float | None], bounds: tuple[float | None, float | None]
) -> None:
    field = Field(name="y", dtype="float64", minimum=seen[0], maximum=seen[1])
    signature = Signature(inputs=(Field(name="x", dtype="float64"),), output=field, task=task)

    assert bounds == output_bounds(signature)

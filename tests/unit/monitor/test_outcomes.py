from __future__ import annotations

import math

import numpy as np
import pytest

from everloop.gate.case import losses
from everloop.monitor.outcomes import loss_of_classes
from everloop.registry.evidence import LossName


@pytest.mark.parametrize("kind", ["log_loss", "zero_one", "squared_error", "absolute_error"])
def test_an_answer_of_several_classes_loses_in_use_what_it_loses_at_the_gate(
    kind: LossName,
) -> None:
    rng = np.random.default_rng(11)
    answers = rng.random((200, 4))
    answers[:20, :2] = 0.5  # equal ones: the first is the answer
    truth = rng.integers(-1, 4, 200).astype(float)

    found = [
        loss_of_classes(kind, tuple(row), place)
        for row, place in zip(answers.tolist(), truth.tolist(), strict=True)
    ]

    np.testing.assert_allclose(np.array(found, dtype=float), losses(kind, answers, truth))


@pytest.mark.parametrize("outputs", [(), (0.0, 0.0), (0.5, None), (0.5, math.nan), (1.5, -0.5)])
def test_what_is_no_answer_has_no_loss(outputs: tuple[float | None, ...]) -> None:
    assert loss_of_classes("log_loss", outputs, 0.0) is None

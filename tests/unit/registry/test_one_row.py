"""One row at a time: the same bits as in a batch, from memory that is used again."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from everloop.core.errors import Conflict, InvalidInput
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.formats import save_model
from everloop.registry.loaders import Predictor, load_predictor
from tests.unit.registry.zoo import ONE_NUMBER, SEVERAL_NUMBERS, Sample, X

POLICY = LoadPolicy()
EVERY = [*ONE_NUMBER, *SEVERAL_NUMBERS]
every = pytest.mark.parametrize(
    "sample", EVERY, ids=[f"{n}-{one.kind}" for n, one in enumerate(EVERY)]
)
native = pytest.mark.parametrize(
    "sample",
    [one for one in EVERY if one.kind in {"lightgbm", "xgboost"}],
    ids=lambda one: one.kind,
)


def opened(sample: Sample) -> Predictor:
    return load_predictor(*save_model(sample.make(0)), POLICY)


@every
def test_a_row_alone_gets_the_answer_that_it_gets_among_others(sample: Sample) -> None:
    predictor = opened(sample)
    exact = sample.kind in {"lightgbm", "xgboost"}
    together = predictor.predict(X[:50])

    alone = np.array([predictor.predict_one(row.tolist()) for row in X[:50]])
    single = np.concatenate([predictor.predict(row[None, :]) for row in X[:50]])

    np.testing.assert_allclose(alone, together, rtol=0 if exact else 1e-6)
    np.testing.assert_array_equal(alone, single)


@every
def test_a_row_of_another_length_is_refused_and_the_next_one_answered(sample: Sample) -> None:
    predictor = opened(sample)
    row = X[0].tolist()
    answer = predictor.predict_one(row)

    for wrong in (row[:-1], [*row, 1.0]):
        with pytest.raises(InvalidInput) as refused:
            predictor.predict_one(wrong)
        assert "model.wrong_shape" == refused.value.code

    np.testing.assert_array_equal(answer, predictor.predict_one(row))


@native
def test_an_answer_stays_when_the_next_row_is_asked(sample: Sample) -> None:
    predictor = opened(sample)
    first = predictor.predict(X[:1])
    kept = first.copy()

    predictor.predict(X[1:2] + 100.0)
    predictor.predict_one((X[2] - 100.0).tolist())

    np.testing.assert_array_equal(kept, first)


@native
def test_threads_that_share_a_model_get_their_own_answers(sample: Sample) -> None:
    predictor = opened(sample)
    expected = predictor.predict(X[:40])
    wrong: list[int] = []

    def ask(start: int) -> None:
        for turn in range(300):
            place = (start + turn) % 40
            if not np.array_equal(predictor.predict_one(X[place].tolist()), expected[place]):
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(n * 7,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong


@native
def test_a_closed_model_answers_no_row(sample: Sample) -> None:
    predictor = opened(sample)
    predictor.predict_one(X[0].tolist())
    predictor.close()
    predictor.close()

    with pytest.raises(Conflict) as refused:
        predictor.predict_one(X[0].tolist())
    assert "model.closed" == refused.value.code
    with pytest.raises(Conflict):
        predictor.predict(X[:1])

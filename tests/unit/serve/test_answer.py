from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from everloop.core.errors import EverloopError, Unavailable
from everloop.core.ids import IdSource
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.serve.answer import Answerer, assign_arm, score, score_adapted
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import Matrix
from everloop.serve.lines import LogWriter, read_rows
from everloop.serve.protocol import InputField, PredictAnswer
from everloop.serve.runtime import Model, open_model
from everloop.serve.switchboard import Canary, Lineup
from tests.kit import PushedClock
from tests.unit.serve.served import INPUTS, MODEL, ROW, make_bundle, version_id

REAL = open_model("lightgbm", {"model.txt": MODEL}, 4).predict
EXPECTED = float(REAL(np.array([[8.0, 21.5, 1.0, 2.0]]))[0])


def loaded(number: int, model: Model = REAL, **changes: object) -> LoadedBundle:
    return LoadedBundle(make_bundle(number, MODEL, **changes), model)


def plus(shift: float) -> Model:
    return lambda matrix: REAL(matrix) + shift


def broken(_matrix: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    raise ZeroDivisionError("a model of its own mind")


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = LogWriter(folder)
        clock = PushedClock(datetime(2026, 5, 1, tzinfo=UTC))
        self.answerer = Answerer(self.log, IdSource(lambda: 1_700_000_000_000, os.urandom), clock)
        self.lineup = Lineup(epoch=3, deployment="bikes", champion=loaded(1))

    def ask(self, count: int = 1, **fields: object) -> PredictAnswer:
        body = msgspec.json.encode({"inputs": [ROW] * count, **fields})
        answer, _ = self.answerer.answer(self.lineup, body)
        return msgspec.json.decode(answer, type=PredictAnswer)

    def canary(self, model: Model, share: float = 1 - 1e-12, **changes: object) -> None:
        canary = Canary(loaded=loaded(2, model, **changes), share=share, salt="salt")
        self.lineup = replace(self.lineup, canary=canary)

    def rows(self) -> list[PredictionRow]:
        return read_rows(self.folder, "w0-00000001.jsonl").rows


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.log.close()


def test_the_answer_and_the_log_agree(desk: Desk) -> None:
    answer = desk.ask(at="2011-06-01T00:00:00Z", unit="ann")

    (row,) = desk.rows()
    (found,) = answer.predictions
    assert (EXPECTED, version_id(1), Arm.CHAMPION) == (found.output, found.version, found.arm)
    assert (found.id, EXPECTED, ROW, "ann", 3) == (
        row.id,
        row.output,
        row.inputs,
        row.unit,
        row.epoch,
    )
    assert (datetime(2011, 6, 1, tzinfo=UTC), 0.0) == (row.at, row.share)


def test_each_row_of_a_request_has_its_own_answer_and_id(desk: Desk) -> None:
    body = msgspec.json.encode({"inputs": [{**ROW, "hour": hour} for hour in range(24)]})

    answer, _ = desk.answerer.answer(desk.lineup, body)

    found = msgspec.json.decode(answer, type=PredictAnswer).predictions
    alone = [float(REAL(np.array([[float(hour), 21.5, 1.0, 2.0]]))[0]) for hour in range(24)]
    assert alone == [one.output for one in found]
    assert 24 == len({one.id for one in found})


def test_without_a_champion_there_is_no_answer(desk: Desk) -> None:
    desk.lineup = Lineup()

    with pytest.raises(Unavailable):
        desk.ask()


def test_the_canary_answers_its_share(desk: Desk) -> None:
    desk.canary(plus(5.0), share=0.3)

    found = desk.ask(count=1_000).predictions

    by_canary = [one for one in found if one.arm is Arm.CANARY]
    assert 240 < len(by_canary) < 360
    assert {EXPECTED + 5.0} == {one.output for one in by_canary}
    assert {0.3} == {row.share for row in desk.rows()}


def test_a_unit_stays_with_its_arm_and_only_ever_moves_to_the_canary() -> None:
    units = [f"user-{place}" for place in range(500)]

    small = {unit for unit in units if assign_arm("s", unit, 0.1) is Arm.CANARY}
    large = {unit for unit in units if assign_arm("s", unit, 0.5) is Arm.CANARY}

    assert small < large
    assert 20 < len(small) < 90
    assert small != {unit for unit in units if assign_arm("t", unit, 0.1) is Arm.CANARY}


def test_a_canary_that_raises_costs_nobody_an_answer(desk: Desk) -> None:
    desk.canary(broken)

    (found,) = desk.ask().predictions

    assert (EXPECTED, version_id(1), True) == (found.output, found.version, found.fallback)
    (row,) = desk.rows()
    assert (Arm.CANARY, Status.ERROR, None) == (row.arm, row.status, row.output)
    assert (version_id(2), version_id(1), EXPECTED) == (
        row.version,
        row.fallback_version,
        row.fallback_output,
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6, -1e6])
def test_a_canary_with_an_impossible_answer_is_not_believed(desk: Desk, value: float) -> None:
    desk.canary(lambda matrix: np.full(len(matrix), value))

    (found,) = desk.ask().predictions

    assert (EXPECTED, True) == (found.output, found.fallback)
    (row,) = desk.rows()
    assert Status.INVALID == row.status
    assert (value if math.isfinite(value) else None) == row.output


def test_a_canary_that_answers_too_few_rows_is_not_believed(desk: Desk) -> None:
    desk.canary(lambda matrix: REAL(matrix)[:-1])

    found = desk.ask(count=4).predictions

    assert [True] * 4 == [one.fallback for one in found]


def test_a_canary_with_other_inputs_gets_the_ones_it_takes(desk: Desk) -> None:
    desk.canary(lambda matrix: matrix[:, 0], inputs=(INPUTS[1], INPUTS[0]))

    (found,) = desk.ask().predictions

    assert (21.5, False) == (found.output, found.fallback)


def test_a_canary_that_needs_what_nobody_sends_has_an_error(desk: Desk) -> None:
    desk.canary(REAL, inputs=(*INPUTS[:3], InputField(name="wind", dtype="float64")))

    (found,) = desk.ask().predictions

    assert True is found.fallback
    assert Status.ERROR == desk.rows()[0].status


def test_a_champion_without_an_answer_is_an_error_on_record(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, champion=loaded(1, broken))

    with pytest.raises(EverloopError) as refused:
        desk.ask()

    assert "model.failed" == refused.value.code
    assert [Status.ERROR] == [row.status for row in desk.rows()]


def test_a_champion_outside_its_bounds_answers_and_is_on_record(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, champion=loaded(1, plus(5_000.0)))

    assert EXPECTED + 5_000.0 == desk.ask().predictions[0].output
    assert [Status.INVALID] == [row.status for row in desk.rows()]


def test_the_shadow_is_asked_for_every_row_and_answers_nobody(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, shadow=loaded(2, plus(1.0)))
    body = msgspec.json.encode({"inputs": [ROW] * 3})

    answer, job = desk.answerer.answer(desk.lineup, body)

    found = msgspec.json.decode(answer, type=PredictAnswer).predictions
    assert job is not None
    assert [one.id for one in found] == list(job.ids)
    assert {EXPECTED} == {one.output for one in found}
    assert [EXPECTED + 1.0] * 3 == [one.output for one in score(job.loaded, job.rows)]


def test_a_busy_process_asks_no_shadow_and_says_so(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, shadow=loaded(2))
    for _ in range(3):
        desk.ask(count=1_000)

    rows = read_rows(desk.folder, "w0-00000001.jsonl").rows
    assert [] == rows  # the first two thousand wait for their shadows
    assert 2_000 == desk.answerer.awaited_shadows


def test_an_answer_goes_out_although_the_log_cannot_be_written(desk: Desk) -> None:
    read_only = os.open(desk.log._file.path, os.O_RDONLY)
    os.dup2(read_only, desk.log._file.descriptor)
    os.close(read_only)

    answer = desk.ask()

    assert (EXPECTED, False) == (answer.predictions[0].output, answer.logged)
    assert 1 == desk.answerer.counters.unlogged


def test_requests_without_an_answer_leave_no_shadow_awaited(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, champion=loaded(1, broken), shadow=loaded(2))

    with pytest.raises(EverloopError):
        desk.ask(count=3)

    assert 0 == desk.answerer.awaited_shadows
    assert [None] * 3 == [row.shadow_version for row in desk.rows()]


def test_a_shadow_with_other_inputs_gets_them_by_name(desk: Desk) -> None:
    def sums(matrix: Matrix) -> Matrix:
        return np.asarray(matrix @ np.array([1.0, 100.0]), dtype=np.float64)

    turned = loaded(2, sums, inputs=(INPUTS[1], INPUTS[0]))
    desk.lineup = replace(desk.lineup, shadow=turned)
    body = msgspec.json.encode({"inputs": [{**ROW, "hour": 7, "temperature": 0.5}]})

    _, job = desk.answerer.answer(desk.lineup, body)

    assert job is not None
    [found] = score_adapted(job.loaded, job.origin, job.rows)
    assert 700.5 == found.output

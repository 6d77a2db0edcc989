from __future__ import annotations

import asyncio
import gc
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from everloop.core.errors import EverloopError, Unavailable
from everloop.core.wire import Arm, LogRules, PredictionRow, Scalar, Status
from everloop.registry.adapters.pyfunc import FunctionPredictor
from everloop.serve.answer import Answerer
from everloop.serve.ask import Ask, Result
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.exchange import Reply
from everloop.serve.hosting import NoLog
from everloop.serve.identity import IdBlocks
from everloop.serve.lineup import Canary, Lineup
from everloop.serve.log import Block, LogWriter, list_files, read_rows
from everloop.serve.protocol import InputField
from everloop.serve.router import assign_arm
from everloop.serve.runtime import Model, open_model
from everloop.serve.scoring import WAITING_ROWS, Scorer
from everloop.serve.turn import Deferred, Turn
from tests.unit.serve.served import INPUTS, MODEL, ROW, make_bundle, version_id

REAL = open_model("lightgbm", {"model.txt": MODEL}, 4).predict
EXPECTED = float(REAL(np.array([[8.0, 21.5, 1.0, 2.0]]))[0])


def version(number: int, model: Model = REAL, **changes: object) -> Scorer:
    return Scorer(LoadedBundle(make_bundle(number, MODEL, **changes), model))


def plus(shift: float) -> Model:
    return lambda matrix: REAL(matrix) + shift


def broken(_matrix: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    raise ZeroDivisionError("a model of its own mind")


class Desk:
    def __init__(self, folder: Path, turn: Turn | None = None) -> None:
        self.folder = folder
        self.log = LogWriter(folder)
        self.answerer = Answerer(self.log, IdBlocks(), turn=turn)
        self.lineup = Lineup(epoch=3, deployment="bikes", champion=version(1))

    def ask(self, *rows: dict[str, Scalar], unit: str | None = None) -> Result:
        return self.tell(self.asked(*rows, unit=unit))

    def asked(self, *rows: dict[str, Scalar], unit: str | None = None) -> Ask:
        assert self.lineup.champion is not None
        decoder = self.lineup.champion.loaded.rows
        values = [msgspec.structs.astuple(decoder.from_values(row)) for row in rows or (ROW,)]
        at_us = int(datetime(2011, 6, 1, tzinfo=UTC).timestamp() * 1e6)
        return Ask(given_matrix=decoder.to_numbers(values), values=values, unit=unit, at_us=at_us)

    def tell(self, ask: Ask) -> Result:
        told: list[Result] = []

        def keep(result: Result) -> Reply:
            told.append(result)
            return Reply()

        async def finish() -> None:
            answer = self.answerer.answer(self.lineup, ask, keep)
            if not isinstance(answer, Reply):
                await answer

        asyncio.run(finish())
        return told[0]

    def tell_all(self, asks: Sequence[Ask]) -> list[Result | EverloopError]:
        """Answer what has come in one turn of the event loop."""
        told: dict[int, Result | EverloopError] = {}

        def keep(place: int, result: Result) -> Reply:
            told[place] = result
            return Reply()

        async def turn() -> None:
            answers = [
                self.answerer.answer(self.lineup, ask, partial(keep, place))
                for place, ask in enumerate(asks)
            ]
            for place, answer in enumerate(answers):
                assert not isinstance(answer, Reply)
                try:
                    await answer
                except EverloopError as error:
                    told[place] = error

        asyncio.run(turn())
        return [told[place] for place in range(len(asks))]

    def canary(self, model: Model, share: float = 1 - 1e-12, **changes: object) -> None:
        canary = Canary(scorer=version(2, model, **changes), share=share, salt="salt")
        self.lineup = replace(self.lineup, canary=canary)

    def rows(self) -> list[PredictionRow]:
        files = list_files(self.folder)
        return [row for file in files for row in read_rows(self.folder, file.name).rows]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.log.close()


@pytest.fixture
def turning(tmp_path: Path) -> Iterator[Desk]:
    """A desk that answers by turns, and whose champion is known to be quick."""
    made = Desk(tmp_path, Turn())
    made.lineup = replace(made.lineup, champion=quick(version(1)))
    yield made
    made.log.close()


def quick(scorer: Scorer) -> Scorer:
    scorer.call_us = scorer.row_us = 1.0
    return scorer


def test_the_answer_and_the_log_agree(desk: Desk) -> None:
    found = desk.ask(unit="ann")

    (row,) = desk.rows()
    assert ([EXPECTED], version_id(1), Arm.CHAMPION) == (
        found.outputs.tolist(),
        found.loaded.bundle.version_id,
        found.arm,
    )
    assert (found.ids(), EXPECTED, ROW, "ann", 3) == (
        [row.id],
        row.output,
        row.inputs,
        row.unit,
        row.epoch,
    )
    assert (datetime(2011, 6, 1, tzinfo=UTC), 0.0) == (row.at, row.share)


def test_what_happened_when_time_began_is_not_logged_as_now(desk: Desk) -> None:
    asked = desk.asked()
    asked.at_us = 0

    desk.tell(asked)

    assert [datetime(1970, 1, 1, tzinfo=UTC)] == [row.at for row in desk.rows()]


def test_each_row_of_a_request_has_its_own_answer_and_id(desk: Desk) -> None:
    found = desk.ask(*({**ROW, "hour": hour} for hour in range(24)))

    alone = [float(REAL(np.array([[float(hour), 21.5, 1.0, 2.0]]))[0]) for hour in range(24)]
    assert alone == found.outputs.tolist()
    assert 24 == len(set(found.ids()))
    assert [row.id for row in desk.rows()] == found.ids()


def test_without_a_champion_there_is_no_answer(desk: Desk) -> None:
    asked = desk.asked()
    desk.lineup = Lineup()

    with pytest.raises(Unavailable):
        desk.tell(asked)


def test_the_canary_answers_its_share_of_the_requests(desk: Desk) -> None:
    desk.canary(plus(5.0), share=0.3)

    found = [desk.ask() for _ in range(1_000)]

    by_canary = [one for one in found if one.arm is Arm.CANARY]
    assert 240 < len(by_canary) < 360
    assert {EXPECTED + 5.0} == {one.outputs.item() for one in by_canary}
    assert {0.3} == {row.share for row in desk.rows()}


def test_all_rows_of_a_request_are_answered_by_one_version(desk: Desk) -> None:
    desk.canary(plus(5.0), share=0.5)

    found = [desk.ask(*[ROW] * 8) for _ in range(40)]

    assert {1} == {len(set(one.outputs.tolist())) for one in found}
    assert {EXPECTED, EXPECTED + 5.0} == {one.outputs[0] for one in found}


def test_a_unit_stays_with_its_arm_and_only_ever_moves_to_the_canary() -> None:
    units = [f"user-{place}" for place in range(500)]

    small = {unit for unit in units if assign_arm("s", unit, 0.1) is Arm.CANARY}
    large = {unit for unit in units if assign_arm("s", unit, 0.5) is Arm.CANARY}

    assert small < large
    assert 20 < len(small) < 90
    assert small != {unit for unit in units if assign_arm("t", unit, 0.1) is Arm.CANARY}


def test_a_canary_that_raises_costs_nobody_an_answer(desk: Desk) -> None:
    desk.canary(broken)

    found = desk.ask()

    assert (EXPECTED, version_id(1), True) == (
        found.outputs.item(),
        found.loaded.bundle.version_id,
        found.is_fallback,
    )
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

    found = desk.ask()

    assert (EXPECTED, True) == (found.outputs.item(), found.is_fallback)
    (row,) = desk.rows()
    assert Status.INVALID == row.status
    assert (value if math.isfinite(value) else None) == row.output


def test_a_canary_that_answers_too_few_rows_is_not_believed(desk: Desk) -> None:
    desk.canary(lambda matrix: REAL(matrix)[:-1])

    found = desk.ask(*[ROW] * 4)

    assert (True, [EXPECTED] * 4) == (found.is_fallback, found.outputs.tolist())


def test_a_canary_with_other_inputs_gets_the_ones_it_takes(desk: Desk) -> None:
    desk.canary(lambda matrix: matrix[:, 0], inputs=(INPUTS[1], INPUTS[0]))

    found = desk.ask()

    assert (21.5, False) == (found.outputs.item(), found.is_fallback)


def test_a_canary_that_needs_what_nobody_sends_has_an_error(desk: Desk) -> None:
    desk.canary(REAL, inputs=(*INPUTS[:3], InputField(name="wind", dtype="float64")))

    assert desk.ask().is_fallback
    assert Status.ERROR == desk.rows()[0].status


def test_a_champion_without_an_answer_is_an_error_on_record(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, champion=version(1, broken))

    with pytest.raises(EverloopError) as refused:
        desk.ask()

    assert "model.failed" == refused.value.code
    assert [Status.ERROR] == [row.status for row in desk.rows()]


@pytest.mark.parametrize("answer", [7.0, [7.0], np.empty(0)])
def test_a_champion_with_another_number_of_answers_than_rows_has_none(
    desk: Desk, answer: object
) -> None:
    desk.lineup = replace(desk.lineup, champion=version(1, lambda _matrix: np.asarray(answer)))

    with pytest.raises(EverloopError) as refused:
        desk.ask(ROW, ROW)

    assert "model.failed" == refused.value.code


def test_a_champion_outside_its_bounds_answers_and_is_on_record(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, champion=version(1, plus(5_000.0)))

    assert EXPECTED + 5_000.0 == desk.ask().outputs.item()
    assert [Status.INVALID] == [row.status for row in desk.rows()]


def test_the_shadow_is_asked_for_every_row_and_answers_nobody(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, shadow=version(2, plus(1.0)))

    found = desk.ask(*[ROW] * 3)
    asyncio.run(desk.answerer.shadows.drain())

    assert [EXPECTED] * 3 == found.outputs.tolist()
    assert [(version_id(2), EXPECTED + 1.0)] * 3 == [
        (row.shadow_version, row.shadow_output) for row in desk.rows()
    ]


def test_a_shadow_with_other_inputs_gets_them_by_name(desk: Desk) -> None:
    def sums(matrix: FloatArray) -> FloatArray:
        return np.asarray(matrix @ np.array([1.0, 100.0]), dtype=np.float64)

    turned = version(2, sums, inputs=(INPUTS[1], INPUTS[0]))
    desk.lineup = replace(desk.lineup, shadow=turned)

    desk.ask({**ROW, "hour": 7, "temperature": 0.5})
    asyncio.run(desk.answerer.shadows.drain())

    assert [700.5] == [row.shadow_output for row in desk.rows()]


def test_a_busy_process_asks_no_shadow_and_says_so(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, shadow=version(2))
    for _ in range(3):
        desk.ask(*[ROW] * 1_000)

    assert [] == desk.rows()  # the first two thousand wait for their shadows
    assert 2_000 == desk.answerer.shadows.awaited


def test_the_shadow_is_asked_about_what_the_champion_failed_at(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, champion=version(1, broken), shadow=version(2))

    with pytest.raises(EverloopError):
        desk.ask(*[ROW] * 3)
    asyncio.run(desk.answerer.shadows.drain())

    assert 0 == desk.answerer.shadows.awaited
    assert [(Status.ERROR, version_id(2), EXPECTED)] * 3 == [
        (row.status, row.shadow_version, row.shadow_output) for row in desk.rows()
    ]


def test_the_shadow_is_not_asked_about_what_the_canary_answered(desk: Desk) -> None:
    desk.canary(plus(1.0))
    assert desk.lineup.canary is not None
    desk.lineup = replace(desk.lineup, shadow=desk.lineup.canary.scorer)

    desk.ask(*[ROW] * 3)
    asyncio.run(desk.answerer.shadows.drain())

    assert [(Arm.CANARY, None)] * 3 == [(row.arm, row.shadow_version) for row in desk.rows()]


def test_masked_inputs_are_answered_and_never_logged(desk: Desk) -> None:
    sealed = desk.lineup.champion
    assert sealed is not None
    masking = version(1, masked=("weather",))
    desk.lineup = Lineup(
        epoch=3, deployment="bikes", champion=masking, log=LogRules(masked=("hour",))
    )

    answered = desk.ask()

    assert EXPECTED == answered.outputs[0]
    (row,) = desk.rows()
    assert set(ROW) - {"hour", "weather"} == set(row.inputs)


def test_of_requests_that_are_not_sampled_all_is_logged_but_the_inputs(desk: Desk) -> None:
    desk.lineup = Lineup(epoch=3, deployment="bikes", champion=version(1), log=LogRules(sample=0.0))

    answered = desk.ask()

    (row,) = desk.rows()
    assert ({}, EXPECTED, answered.ids()[0]) == (row.inputs, row.output, row.id)


def unlogged(desk: Desk) -> int:
    return sum(found.unlogged for found in desk.answerer.tally.answers.values())


def test_an_answer_goes_out_although_nothing_can_be_logged(desk: Desk, tmp_path: Path) -> None:
    desk.lineup = replace(desk.lineup, log=LogRules(max_bytes=1))
    with closing(LogWriter(tmp_path / "full")) as full:
        desk.answerer = Answerer(full, IdBlocks())

        found = desk.ask()

    assert (EXPECTED, False) == (found.outputs.item(), found.is_logged)
    assert 1 == unlogged(desk)


def test_a_server_without_a_log_misses_no_line_of_it(desk: Desk) -> None:
    desk.answerer = Answerer(NoLog(), IdBlocks())

    assert not desk.ask().is_logged
    assert 0 == unlogged(desk)


def test_what_came_while_a_dear_model_scored_is_scored_together_and_told_apart() -> None:
    batches: list[int] = []

    def slow(matrix: FloatArray) -> FloatArray:
        batches.append(len(matrix))
        return np.asarray(matrix[:, 0] * 2.0)

    scorer = version(1, slow)

    async def crowd() -> list[list[float]]:
        waiting = [scorer.later(np.full((rows, 4), float(rows))) for rows in range(1, 60)]
        return [(await one).outputs.tolist() for one in waiting]  # type: ignore[union-attr]

    found = asyncio.run(crowd())

    assert [[2.0 * rows] * rows for rows in range(1, 60)] == found
    assert sum(range(1, 60)) == sum(batches)
    assert len(batches) < 59


def test_a_row_that_breaks_the_model_takes_no_other_answer_with_it() -> None:
    def touchy(matrix: FloatArray) -> FloatArray:
        if (matrix[:, 0] == 3.0).any():
            raise ZeroDivisionError
        return np.asarray(matrix[:, 0])

    scorer = version(1, touchy)

    async def crowd() -> list[Status]:
        waiting = [scorer.later(np.full((1, 4), float(place))) for place in range(6)]
        return [(await one).status for one in waiting]

    assert [Status.OK] * 3 + [Status.ERROR] + [Status.OK] * 2 == asyncio.run(crowd())


def test_a_model_that_is_too_slow_is_told_and_on_record(desk: Desk) -> None:
    ended = threading.Event()

    def slow(matrix: FloatArray) -> FloatArray:
        ended.wait(20)
        return np.asarray(matrix[:, 0])

    desk.answerer = Answerer(desk.log, IdBlocks(), answer_s=0.05)
    desk.lineup = replace(desk.lineup, champion=version(1, slow))

    with pytest.raises(Unavailable) as refused:
        desk.ask()
    ended.set()

    assert "model.too_slow" == refused.value.code
    assert [Status.ERROR] == [row.status for row in desk.rows()]


def test_a_canary_that_is_too_slow_costs_nobody_an_answer(desk: Desk) -> None:
    ended = threading.Event()

    def slow(matrix: FloatArray) -> FloatArray:
        ended.wait(20)
        return np.asarray(matrix[:, 0])

    desk.answerer = Answerer(desk.log, IdBlocks(), answer_s=0.5)
    desk.canary(slow)

    found = desk.ask()
    ended.set()

    assert (EXPECTED, True) == (found.outputs.item(), found.is_fallback)


def test_a_dear_champion_in_a_canarys_place_holds_nobody_up(desk: Desk) -> None:
    asked: list[str] = []

    def dear(matrix: FloatArray) -> FloatArray:
        asked.append(threading.current_thread().name)
        return REAL(matrix)

    desk.lineup = replace(desk.lineup, champion=version(1, dear))
    desk.canary(broken)
    assert desk.lineup.canary is not None
    desk.lineup.canary.scorer.call_us = 1.0

    found = desk.ask()

    assert (EXPECTED, True, ["scorer"]) == (found.outputs.item(), found.is_fallback, asked)


def test_a_function_is_never_asked_where_all_requests_are_read() -> None:
    plan = b'{"entry": "f", "inputs": 4}'
    function = FunctionPredictor(plan, b"def f(rows): return rows[:, 0]", must_hold=False)
    with closing(function):
        scorer = Scorer(LoadedBundle(make_bundle(1), function.predict, function))
        scorer.warm()

        assert scorer.call_us < math.inf
        assert not scorer.is_quick(1)


def test_a_canary_whose_queue_is_full_has_failed_and_costs_nobody_an_answer(desk: Desk) -> None:
    desk.canary(plus(1.0))
    assert desk.lineup.canary is not None
    desk.lineup.canary.scorer.waiting_rows = WAITING_ROWS

    found = desk.ask()

    assert (EXPECTED, True) == (found.outputs.item(), found.is_fallback)
    assert [(Arm.CANARY, Status.ERROR)] == [(row.arm, row.status) for row in desk.rows()]


def test_a_shadow_that_never_answers_holds_up_neither_the_log_nor_what_comes_later(
    desk: Desk,
) -> None:
    ended = threading.Event()

    def stuck(matrix: FloatArray) -> FloatArray:
        ended.wait(20)
        return np.asarray(matrix[:, 0])

    desk.answerer = Answerer(desk.log, IdBlocks(), answer_s=0.05)
    desk.lineup = replace(desk.lineup, shadow=version(2, stuck))
    asked = [desk.ask() for _ in range(100)]

    async def drain() -> None:
        async with asyncio.timeout(2.0):
            await desk.answerer.shadows.drain()

    asyncio.run(drain())
    ended.set()

    assert 0 == desk.answerer.shadows.awaited
    # The others were not asked: one hiccup is no hundred failures.
    statuses = [Status.ERROR, *[None] * 99]
    assert list(zip([one.ids()[0] for one in asked], statuses, strict=True)) == [
        (row.id, row.shadow_status) for row in desk.rows()
    ]


def test_a_constant_answers_instead_of_a_version_that_is_not_asked(desk: Desk) -> None:
    desk.lineup = replace(desk.lineup, constant=12.5, champion=version(1, broken))

    found = desk.ask(ROW, ROW)

    rows = desk.rows()
    assert ([12.5, 12.5], True) == (found.outputs.tolist(), found.is_fallback)
    assert [(Status.OK, None, None, 12.5)] * 2 == [
        (row.status, row.output, row.fallback_version, row.fallback_output) for row in rows
    ]


def hours(desk: Desk, *of: int) -> list[Ask]:
    return [desk.asked({**ROW, "hour": hour}) for hour in of]


def alone(hour: int) -> float:
    return float(REAL(np.array([[float(hour), 21.5, 1.0, 2.0]]))[0])


def test_each_request_of_a_turn_has_its_own_answer(turning: Desk) -> None:
    told = turning.tell_all(hours(turning, *range(24), *range(6)))

    found = [each for each in told if isinstance(each, Result)]
    assert [*map(alone, range(24)), *map(alone, range(6))] == [
        each.outputs.item() for each in found
    ]
    assert [(each.ids()[0], each.outputs.item()) for each in found] == [
        (row.id, row.output) for row in turning.rows()
    ]


def test_what_is_broken_takes_no_other_answer_of_its_turn_away(turning: Desk) -> None:
    def moody(matrix: FloatArray) -> FloatArray:
        if (matrix[:, 0] == 13.0).any():
            raise ZeroDivisionError("thirteen")
        return np.asarray(REAL(matrix), dtype=np.float64)

    turning.lineup = replace(turning.lineup, champion=quick(version(1, moody)))

    first, second, third = turning.tell_all(hours(turning, 12, 13, 14))

    kept = [each.outputs.item() for each in (first, third) if isinstance(each, Result)]
    assert isinstance(second, EverloopError)
    assert ("model.failed", [alone(12), alone(14)]) == (second.code, kept)
    assert [Status.OK, Status.ERROR, Status.OK] == [row.status for row in turning.rows()]


def test_only_the_requests_outside_the_bounds_are_on_record_as_such(turning: Desk) -> None:
    def moody(matrix: FloatArray) -> FloatArray:
        return np.where(matrix[:, 0] == 13.0, 9_999.0, REAL(matrix))

    turning.lineup = replace(turning.lineup, champion=quick(version(1, moody)))

    turning.tell_all(hours(turning, 12, 13, 14))

    assert [Status.OK, Status.INVALID, Status.OK] == [row.status for row in turning.rows()]


def test_what_others_ask_changes_neither_the_answer_nor_its_latency(turning: Desk) -> None:
    called: list[int] = []

    def counting(matrix: FloatArray) -> FloatArray:
        called.append(len(matrix))
        return np.asarray(REAL(matrix), dtype=np.float64)

    turning.lineup = replace(turning.lineup, champion=quick(version(1, counting)))
    turning.canary(counting, share=0.5)
    assert turning.lineup.canary is not None
    quick(turning.lineup.canary.scorer)

    turning.tell_all(hours(turning, *range(24)))

    assert [1] * 24 == called
    assert {Arm.CHAMPION, Arm.CANARY} == {row.arm for row in turning.rows()}


def test_a_step_that_breaks_leaves_nobody_waiting(turning: Desk) -> None:
    class Gone(NoLog):
        def append_all(self, blocks: Sequence[Block]) -> list[bool]:
            raise OSError("the disk has gone")

    turning.answerer = Answerer(Gone(), IdBlocks(), turn=Turn())

    told = turning.tell_all(hours(turning, 7, 8))

    assert ["server.failed"] * 2 == [each.code for each in told if isinstance(each, EverloopError)]


@pytest.mark.parametrize("is_champion_quick", [True, False])
def test_a_canary_that_fails_in_a_turn_costs_nobody_an_answer(
    turning: Desk, is_champion_quick: bool
) -> None:
    turning.canary(broken)
    assert turning.lineup.canary is not None
    quick(turning.lineup.canary.scorer)
    if not is_champion_quick:
        turning.lineup = replace(turning.lineup, champion=version(1))

    told = turning.tell_all(hours(turning, 7, 8))

    found = [each for each in told if isinstance(each, Result)]
    assert [(alone(7), True), (alone(8), True)] == [
        (each.outputs.item(), each.is_fallback) for each in found
    ]
    assert [Status.ERROR] * 2 == [row.status for row in turning.rows()]


def test_a_champion_that_fails_for_a_canary_is_told(turning: Desk) -> None:
    turning.canary(broken)
    assert turning.lineup.canary is not None
    quick(turning.lineup.canary.scorer)
    turning.lineup = replace(turning.lineup, champion=version(1, broken))

    (told,) = turning.tell_all(hours(turning, 7))

    assert isinstance(told, EverloopError)
    assert "model.failed" == told.code


def test_a_turn_asks_no_more_of_the_shadow_than_it_can_take(turning: Desk) -> None:
    turning.lineup = replace(turning.lineup, shadow=version(2))

    turning.tell_all([turning.asked(*[ROW] * 900) for _ in range(3)])

    assert 1_800 == turning.answerer.shadows.awaited


def test_a_long_turn_is_answered_before_its_end(turning: Desk) -> None:
    taken: list[int] = []
    failed: list[object] = []

    async def turn(*of: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: failed.append(told))
        for ask in hours(turning, *of):
            turning.answerer.answer(turning.lineup, ask, lambda _result: Reply())
            taken.append(len(turning.rows()))
        await asyncio.sleep(0)

    asyncio.run(turn(*range(24), *range(8)))
    assert (0, 32) == (taken[30], taken[31])
    asyncio.run(turn(*range(24), *range(24)))
    assert (32, 64, 64) == (taken[62], taken[63], taken[79])

    assert (80, []) == (len(turning.rows()), failed)


def test_a_turn_leaves_nothing_for_the_collector(turning: Desk) -> None:
    asks = hours(turning, *range(24))
    turning.tell_all(asks)
    asyncio.run(asyncio.sleep(0))
    gc.collect()

    async def turn() -> int:
        answers = [
            turning.answerer.answer(turning.lineup, ask, lambda _result: Reply()) for ask in asks
        ]
        for answer in answers:
            assert isinstance(answer, Deferred)
            answer.then(lambda _reply: None)
        await asyncio.sleep(0)
        del answer
        answers.clear()
        return gc.collect()

    assert 0 == asyncio.run(turn())

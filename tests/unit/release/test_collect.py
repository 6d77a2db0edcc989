from __future__ import annotations

import msgspec
import pytest

from everloop.core.ids import Id
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.loop.guarding import judged as outcome_judged
from everloop.monitor.outcomes import decode_outcomes, encode_outcomes, join
from everloop.release.collect import (
    Judged,
    find_latency_limit,
    find_range,
    find_record,
    news_of_labels,
    news_of_rows,
)
from everloop.release.model import Guardrail, Limits, News, Pair, Tally, Traffic, Watch
from tests.unit.release.test_decision import START, release

CANARY = release("canary")
SHADOW = release()


def row(**changes: object) -> PredictionRow:
    made = PredictionRow(
        id=Id("x"),
        at=START,
        logged_at=START,
        version=Id("old"),
        arm=Arm.CHAMPION,
        share=0.2,
        status=Status.OK,
        latency_us=10,
        inputs={},
        output=1.0,
        epoch=1,
    )
    return msgspec.structs.replace(made, **changes)


def by_canary(**changes: object) -> PredictionRow:
    return row(version=Id("new"), arm=Arm.CANARY, **changes)


def judged(**changes: object) -> Judged:
    made = Judged(epoch=1, version=Id("old"), arm=Arm.CHAMPION, share=0.2, loss=1.0)
    return msgspec.structs.replace(made, **changes)


def kinds(news: News) -> list[tuple[Guardrail, Arm]]:
    return [(event.guardrail, event.arm) for event in news.events]


def test_traffic_counts_both_arms() -> None:
    assert (
        Traffic(champion=2, canary=1) == news_of_rows(CANARY, [row(), row(), by_canary()]).traffic
    )


@pytest.mark.parametrize(
    ("changes", "guardrails"),
    [
        ({}, []),
        ({"status": Status.ERROR, "latency_us": 999}, [Guardrail.ERROR]),
        ({"status": Status.INVALID}, [Guardrail.INVALID]),
        ({"latency_us": 101}, [Guardrail.LATENCY]),
        ({"latency_us": 100}, []),
        ({"status": Status.INVALID, "latency_us": 101}, [Guardrail.INVALID, Guardrail.LATENCY]),
    ],
)
def test_faults_show_without_a_label(
    changes: dict[str, object], guardrails: list[Guardrail]
) -> None:
    news = news_of_rows(CANARY, [by_canary(**changes), row(**changes)])

    assert [
        *((guardrail, Arm.CANARY) for guardrail in guardrails),
        *((guardrail, Arm.CHAMPION) for guardrail in guardrails),
    ] == kinds(news)


@pytest.mark.parametrize(
    "foreign",
    [
        row(share=0.0),
        row(epoch=0),
        row(version=Id("older")),
        by_canary(epoch=0),
        row(version=Id("other"), arm=Arm.CANARY),
    ],
)
def test_answers_of_another_release_do_not_count(foreign: PredictionRow) -> None:
    bad = msgspec.structs.replace(foreign, status=Status.ERROR)

    assert News() == news_of_rows(CANARY, [bad])


def test_slow_answers_count_only_once_the_limit_is_known() -> None:
    unknown = msgspec.structs.replace(CANARY, limits=Limits())

    assert [] == kinds(news_of_rows(unknown, [row(latency_us=10**6)]))


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (None, Status.ERROR, (Pair(champion=0.0, candidate=1.0),)),
        (None, Status.INVALID, (Pair(champion=0.0, candidate=1.0),)),
        (9.0, Status.INVALID, ()),
        (9.0, Status.OK, ()),
        (None, None, ()),
    ],
)
def test_a_shadow_without_an_answer_loses_most(
    output: float | None, status: Status | None, expected: tuple[Pair, ...]
) -> None:
    found = row(share=0.0, shadow_version=Id("new"), shadow_output=output, shadow_status=status)

    assert News(pairs=expected) == news_of_rows(SHADOW, [found])


@pytest.mark.parametrize(
    ("shadow_output", "status", "expected"),
    [(None, Status.INVALID, ()), (9.0, Status.OK, (Pair(champion=1.0, candidate=0.0),))],
)
def test_a_shadow_is_not_blamed_for_what_the_champion_could_not_answer_either(
    shadow_output: float | None, status: Status, expected: tuple[Pair, ...]
) -> None:
    found = row(
        share=0.0,
        status=Status.INVALID,
        output=None,
        shadow_version=Id("new"),
        shadow_output=shadow_output,
        shadow_status=status,
    )

    assert expected == news_of_rows(SHADOW, [found]).pairs


def test_a_request_that_the_shadow_failed_at_is_one_pair_however_many_rows_it_had() -> None:
    lost = {"shadow_version": Id("new"), "shadow_status": Status.ERROR, "share": 0.0}
    first, second = (f"019a{number}000-0000-7000-8000-00000000" for number in (1, 2))
    rows = [
        row(id=Id(f"{start}{place:04x}"), **lost)
        for start in (first, second)
        for place in range(200)
    ]

    pairs = news_of_rows(SHADOW, rows).pairs

    assert [(0.0, 1.0)] * 2 == [(pair.champion, pair.candidate) for pair in pairs]
    assert 2 == len({pair.unit for pair in pairs} - {None})


def test_great_losses_are_bad_events_of_their_arm() -> None:
    news = news_of_labels(
        CANARY,
        [
            judged(loss=10.0),
            judged(loss=10.1),
            judged(version=Id("new"), arm=Arm.CANARY, loss=11.0),
            judged(version=Id("new"), arm=Arm.CANARY, loss=None),
        ],
    )

    expected = [(Guardrail.LABEL_LOSS, Arm.CHAMPION), (Guardrail.LABEL_LOSS, Arm.CANARY)]
    assert expected == kinds(news)
    assert {0.2} == {event.share for event in news.events}


@pytest.mark.parametrize(
    "foreign",
    [
        judged(epoch=0, loss=99.0),
        judged(share=0.0, loss=99.0),
        judged(version=Id("older"), loss=99.0),
    ],
)
def test_labels_of_answers_before_the_release_do_not_count(foreign: Judged) -> None:
    assert News() == news_of_labels(CANARY, [foreign])


def test_pairs_are_parts_of_the_bound() -> None:
    labelled = [
        judged(share=0.0, loss=2.0, shadow_version=Id("new"), shadow_loss=4.0),
        judged(share=0.0, loss=50.0, shadow_version=Id("new"), shadow_loss=0.0),
        judged(share=0.0, loss=2.0, shadow_version=Id("new"), shadow_loss=None),
        judged(share=0.0, loss=2.0, shadow_version=Id("other"), shadow_loss=4.0),
    ]

    news = news_of_labels(SHADOW, labelled)

    assert (Pair(champion=0.2, candidate=0.4), Pair(champion=1.0, candidate=0.0)) == news.pairs
    assert () == news.events


def test_labels_of_the_rows_of_one_request_are_one_pair_and_say_their_mean() -> None:
    paired = {"share": 0.0, "shadow_version": Id("new")}
    start, alone = (f"019a{number}000-0000-7000-8000-00000000" for number in (1, 2))
    labelled = [
        judged(prediction=Id(f"{start}0000"), loss=2.0, shadow_loss=4.0, **paired),
        judged(prediction=Id(f"{alone}0000"), loss=1.0, shadow_loss=0.0, **paired),
        judged(prediction=Id(f"{start}0001"), loss=0.0, shadow_loss=99.0, **paired),
        judged(prediction=Id(f"{start}0002"), loss=4.0, shadow_loss=None, **paired),
    ]

    first, second = news_of_labels(SHADOW, labelled).pairs

    assert (0.1, 0.7, True) == (first.champion, first.candidate, first.unit is not None)
    assert Pair(champion=0.1, candidate=0.0) == second


def test_late_labels_of_the_shadow_count_while_the_canary_runs() -> None:
    late = judged(share=0.0, loss=2.0, shadow_version=Id("new"), shadow_loss=4.0)

    assert 1 == len(news_of_labels(release(stage=0), [late]).pairs)
    assert News() == news_of_labels(CANARY, [late])


def test_the_champions_shadowed_answers_count_as_traffic_and_as_pairs() -> None:
    during = release(stage=0)
    shadow = {"shadow_version": Id("new"), "shadow_status": Status.ERROR}

    rows = news_of_rows(during, [row(**shadow), by_canary(**shadow)])
    labels = news_of_labels(during, [judged(loss=99.0, shadow_version=Id("new"), shadow_loss=1.0)])

    assert (Traffic(champion=1, canary=1), 1) == (rows.traffic, len(rows.pairs))
    assert ([(Guardrail.LABEL_LOSS, Arm.CHAMPION)], 1) == (kinds(labels), len(labels.pairs))


def test_losses_say_nothing_before_their_bound_is_known() -> None:
    unknown = msgspec.structs.replace(CANARY, limits=Limits())

    assert News() == news_of_labels(unknown, [judged(loss=1e9)])


def test_the_latency_limit_is_the_champions_99th_percentile() -> None:
    rows = [row(latency_us=place) for place in range(1, 1_001)]
    noise = [by_canary(latency_us=10**6), row(latency_us=10**6, status=Status.ERROR)] * 50

    assert 990.0 == find_latency_limit(rows + noise, Id("old"))
    assert None is find_latency_limit(rows[:99], Id("old"))


def test_requests_of_one_unit_are_told_together_and_without_its_name() -> None:
    rows = [row(unit="ann"), row(unit="ann"), row(unit="bob"), row(), row()]

    news = news_of_rows(CANARY, rows)

    assert [2, 1, 2] == [part.count for part in news.assigned]
    assert Traffic(champion=5, canary=0) == news.traffic
    marks = [part.unit for part in news.assigned]
    assert (None, 2) == (marks[2], len(set(marks[:2])))
    assert not {"ann", "bob"} & set(marks)


def test_labels_name_the_unit_that_the_faults_of_its_answers_name() -> None:
    [fault] = news_of_rows(CANARY, [row(unit="ann", status=Status.ERROR)]).events
    [loss] = news_of_labels(CANARY, [judged(unit="ann", loss=99.0)]).events

    assert None is not fault.unit == loss.unit


FIRST = "019b76da-a800-7000-8000-0000000a0000"


def part(place: int) -> Id:
    return Id(f"{FIRST[:-4]}{place:04x}")


def test_an_answer_outside_of_the_champions_range_is_a_bad_event_of_its_own() -> None:
    known = msgspec.structs.replace(CANARY, limits=Limits(low=0.0, high=2.0))

    found = [
        kinds(news_of_rows(known, [row(output=output)])) for output in (-0.1, 0.0, 2.0, 2.1, None)
    ]

    outside = [(Guardrail.RANGE, Arm.CHAMPION)]
    assert [outside, [], [], outside, []] == found


def test_the_range_is_frozen_from_enough_answers_of_the_champion() -> None:
    rows = [row(output=float(place)) for place in range(1_000)]

    assert (4.0, 995.0) == find_range(rows, Id("old"))
    assert find_range(rows[:99], Id("old")) is None
    assert find_range(rows, Id("new")) is None


def test_an_answer_that_a_person_overrode_is_a_bad_event_without_any_truth() -> None:
    found = news_of_labels(CANARY, [judged(loss=None, overridden=True), judged()])

    assert [(Guardrail.OVERRIDE, Arm.CHAMPION)] == kinds(found)


@pytest.mark.parametrize(
    ("rows", "voices"),
    [
        ([row(id=part(0)), row(id=part(1)), row(id=part(2))], 1),
        ([row(id=part(1)), row(id=part(2))], 1),
        ([row(request="r"), row(request="r")], 1),
        ([row(unit="u", request="r"), row(unit="u", request="s")], 1),
        ([row(request="r"), row(request="s")], None),
        ([row(id=part(0)), row(id=Id("019b76da-a800-7000-8000-0000000b0000"))], None),
    ],
)
def test_rows_of_one_request_retries_and_units_speak_with_one_voice(
    rows: list[PredictionRow], voices: int | None
) -> None:
    bad = [msgspec.structs.replace(each, status=Status.ERROR) for each in rows]

    marks = {event.unit for event in news_of_rows(CANARY, bad).events}

    assert (marks == {None}) if voices is None else (len(marks) == 1 and None not in marks)


def test_a_promoted_version_is_judged_by_what_it_answers_after_its_promotion() -> None:
    watch = Watch(until=START, epoch=5)
    promoted = msgspec.structs.replace(
        CANARY, standing=msgspec.structs.replace(CANARY.standing, watch=watch)
    )
    after = {"version": Id("new"), "share": 0.0, "epoch": 5}
    rows = [row(**after), row(**after, status=Status.ERROR), row(**{**after, "epoch": 4})]
    labels = [judged(**after, loss=99.0), judged(**after, loss=None, overridden=True)]

    news = news_of_rows(promoted, rows).plus(news_of_labels(promoted, labels))

    told = {each.guardrail: (each.answers, each.bad) for each in news.watched}
    assert ((2, 1), (1, 1), (2, 1)) == (
        told[Guardrail.ERROR],
        told[Guardrail.LABEL_LOSS],
        told[Guardrail.OVERRIDE],
    )
    assert () == news.events


def test_the_champions_record_is_what_it_answered_before_the_release() -> None:
    rows = [
        row(epoch=0, unit="u", status=Status.ERROR),
        row(epoch=0, unit="u"),
        row(epoch=0),
        row(epoch=1),
        row(epoch=0, version=Id("other")),
    ]
    labels = [judged(epoch=0, loss=99.0), judged(epoch=0, loss=1.0), judged(loss=99.0)]

    record = find_record(CANARY, rows, labels)

    assert Tally(answers=2, bad=1) == record["error"]
    assert Tally(answers=2, bad=1) == record["label_loss"]
    assert Tally(answers=2, bad=0) == record["override"]
    assert "range" not in record


def test_labels_of_retries_of_one_request_speak_with_one_voice() -> None:
    again = [by_canary(id=Id(name), request="r") for name in "ab"]
    other = by_canary(id=Id("c"), request="s")
    kept = decode_outcomes(encode_outcomes([join(one, 99.0) for one in (*again, other)]))

    labelled = [outcome_judged(one, "absolute_error") for one in kept]
    news = news_of_labels(CANARY, labelled)

    units = [event.unit for event in news.events]
    assert [Guardrail.LABEL_LOSS] * 3 == [event.guardrail for event in news.events]
    assert units[0] is not None
    assert units[0] == units[1]
    assert units[2] is None

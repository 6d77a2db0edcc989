"""What the news add to a standing."""

from __future__ import annotations

import math
import random

import pytest

from everloop.core.ids import Id
from everloop.core.wire import Arm
from everloop.release import counting
from everloop.release.collect import Judged, news_of_labels
from everloop.release.config import ReleaseConfig
from everloop.release.model import News, Pair, Standing
from tests.unit.release.test_decision import release

FRESH = counting.begin(ReleaseConfig(), "shadow")


def pairs(standing: Standing) -> int:
    assert standing.paired is not None
    return standing.paired.pairs


def told(standing: Standing, *units: str | None) -> Standing:
    news = News(pairs=tuple(Pair(champion=0.0, candidate=1.0, unit=unit) for unit in units))
    return counting.advance(standing, news, seed="seed")


def test_a_request_whose_labels_come_bit_by_bit_is_one_pair() -> None:
    once = told(FRESH, "a")

    assert once.paired == told(once, "a", "a").paired
    assert 3 == pairs(told(once, "b", "a", "c"))


@pytest.mark.parametrize("request_id", [None, "client-7"])
def test_rows_that_are_labelled_at_different_times_are_one_pair(request_id: str | None) -> None:
    labelled = [
        Judged(
            epoch=1, version=Id("old"), arm=Arm.CHAMPION, share=0.0, loss=1.0, request=request_id,
            prediction=Id(f"019a0000-0000-7000-8000-00000000000{row}"),
            shadow_version=Id("new"), shadow_loss=2.0,
        )
        for row in range(4)
    ]  # fmt: skip
    standing = FRESH
    for batch in (labelled[:2], labelled[2:3], labelled[3:]):
        standing = counting.advance(standing, news_of_labels(release(), batch), seed="seed")

    assert 1 == pairs(standing)


def test_requests_of_one_row_are_a_pair_each() -> None:
    assert 3 == pairs(told(told(FRESH, None, None), None))


def test_pairs_go_on_when_there_were_more_requests_than_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "MOST_UNITS", 3)

    many = told(FRESH, "a", "b", "c", "d")

    assert 4 == pairs(many)
    assert ("b", "c", "d") == many.units[counting.PAIRS]
    assert 4 == pairs(told(many, "b"))


def test_two_equal_versions_are_told_apart_as_seldom_when_the_rows_of_a_request_are_alike() -> None:
    alarms = sum(is_alarmed(random.Random(campaign)) for campaign in range(100))

    assert alarms <= 3  # alpha and three standard errors, of a hundred campaigns


def is_alarmed(chance: random.Random, *, requests: int = 30, rows: int = 20) -> bool:
    """Run a shadow in which one or the other version is worse by half at all rows of a request."""
    shadow, standing = release(), FRESH
    for number in range(requests):
        losses = chance.sample([2.0, 7.0], 2)
        labelled = [
            Judged(
                epoch=1, version=Id("old"), arm=Arm.CHAMPION, share=0.0, loss=losses[0],
                prediction=Id(f"019a{number:04x}-0000-7000-8000-00000000{row:04x}"),
                shadow_version=Id("new"), shadow_loss=losses[1],
            )
            for row in range(rows)
        ]  # fmt: skip
        standing = counting.advance(standing, news_of_labels(shadow, labelled), seed="seed")
        assert standing.paired is not None
        if standing.paired.log_evidence_bad >= -math.log(0.01):
            return True
    return False

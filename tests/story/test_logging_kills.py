"""The short form of the campaign: a few kills of a training and its server while they log."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.logging_kills import kill_often


def test_a_few_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    told = kill_often(tmp_path / "kills", kills=3, seed=20_261_121)

    assert isinstance(told["points_kept"], int)
    assert told["points_kept"] > 0

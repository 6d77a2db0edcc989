"""The short form of the campaign: load on the server while a worker dies and models are swapped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.serving_soak import Plan, soak


@pytest.mark.slow
def test_no_answer_is_wrong_or_lost_while_workers_die_and_models_change(tmp_path: Path) -> None:
    plan = Plan(seconds=12, kill_every_s=3, swap_every_s=1, seed=20_261_121)

    told = soak(tmp_path / "serve", plan)

    print(told)
    assert [] == told["wrong"]
    assert {} == told["refused"]
    assert (0, 0) == (told["lost_predictions"], told["lost_labels"])
    assert isinstance(told["killed"], int)
    assert told["killed"] >= 2
    assert isinstance(told["versions"], dict)
    assert 3 == len(told["versions"])
    assert isinstance(told["labels"], int)
    assert told["labels"] > 0

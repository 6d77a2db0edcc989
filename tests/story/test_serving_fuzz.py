"""The short form of the campaign: damaged requests to every address of the serving process."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.serving_fuzz import fuzz


def test_a_thousand_damaged_requests_are_refused_and_harm_nobody(tmp_path: Path) -> None:
    told = fuzz(tmp_path / "bikes", rounds=1_500, seed=20_261_121)

    print(told)
    assert [] == told["found"]
    statuses = told["statuses"]
    assert isinstance(statuses, dict)
    assert statuses[200] > 50
    assert statuses[400] > 500

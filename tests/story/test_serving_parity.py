"""The short form of the campaign: every runtime answers over HTTP as its framework does."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.serving_parity import compare, tolerance


def test_every_runtime_answers_over_http_as_its_framework(tmp_path: Path) -> None:
    told = compare(tmp_path / "home", rows=1_000)

    print(told)
    assert 8 == len(told)
    assert {} == {name: worst for name, worst in told.items() if worst > tolerance(name)}

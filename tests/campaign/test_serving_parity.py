"""10,000 random and boundary rows over HTTP for every runtime, against the training frameworks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.serving_parity import compare, tolerance

pytestmark = pytest.mark.campaign


def test_ten_thousand_rows_are_answered_as_the_frameworks_answer_them(tmp_path: Path) -> None:
    told = compare(tmp_path / "home", rows=10_000)

    print(told)
    assert {} == {name: worst for name, worst in told.items() if worst > tolerance(name)}

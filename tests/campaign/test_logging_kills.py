"""``kill -9`` of trainings and their server while they log: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.campaign.logging_kills import kill_often

pytestmark = pytest.mark.campaign
KILLS = int(os.environ.get("EVERLOOP_CAMPAIGN_KILLS", "50"))


def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("EVERLOOP_CAMPAIGN_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed {seed}")

    told = kill_often(tmp_path / "kills", kills=KILLS, seed=seed)

    print(json.dumps({"seed": seed, **told}, indent=2))

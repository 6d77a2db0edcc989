"""Load at half of the greatest rate while workers are killed and models swapped.

A minute of it in `make test-all`; an hour, with a kill a minute and a swap every ten seconds, by
``EVERLOOP_CAMPAIGN_SOAK_S=3600``.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.campaign.serving_soak import Plan, soak

pytestmark = pytest.mark.campaign
SECONDS = float(os.environ.get("EVERLOOP_CAMPAIGN_SOAK_S", "60"))


def test_nothing_is_wrong_or_lost_and_the_memory_stays_what_it_was(tmp_path: Path) -> None:
    seed = int(os.environ.get("EVERLOOP_CAMPAIGN_SEED") or random.SystemRandom().randrange(10**6))
    plan = Plan(
        seconds=SECONDS,
        kill_every_s=min(60.0, SECONDS / 6),
        swap_every_s=min(10.0, SECONDS / 30),
        seed=seed,
    )
    print(f"seed {seed}")

    told = soak(tmp_path / "serve", plan)

    print(json.dumps(told, indent=2))
    assert [] == told["wrong"]
    assert {} == told["refused"]
    assert (0, 0) == (told["lost_predictions"], told["lost_labels"])
    before, after = told["memory_before_mb"], told["memory_after_mb"]
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after < 1.2 * before + 10

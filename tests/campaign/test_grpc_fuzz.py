"""Many thousands of damaged calls and connections to the gRPC port of the serving process."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.campaign.grpc_fuzz import fuzz

pytestmark = pytest.mark.campaign
ROUNDS = int(os.environ.get("EVERLOOP_CAMPAIGN_GRPC_FUZZ", "20000"))


def test_no_damaged_call_breaks_the_server(tmp_path: Path) -> None:
    seed = int(os.environ.get("EVERLOOP_CAMPAIGN_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed {seed}")

    told = fuzz(tmp_path / "bikes", rounds=ROUNDS, seed=seed)

    print(json.dumps({"seed": seed, **told}, indent=2))
    assert [] == told["found"]

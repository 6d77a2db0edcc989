"""``kill -9`` of any process of the demo at random moments: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.campaign import checking
from tests.campaign.crashing import Acknowledged, Crashes

pytestmark = pytest.mark.campaign
KILLS = int(os.environ.get("EVERLOOP_CAMPAIGN_KILLS", "50"))
DAYS = int(os.environ.get("EVERLOOP_CAMPAIGN_DAYS", "0"))
LEDGER_EVERY = 10


def test_a_demo_whose_processes_are_killed_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    seed = int(os.environ.get("EVERLOOP_CAMPAIGN_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed {seed}")
    rng, killed = random.Random(seed), Counter[str]()
    figures: list[dict[str, object]] = []
    while killed.total() < KILLS:
        crashes = Crashes(tmp_path / f"demo-{len(figures)}", rng, days=DAYS)
        try:
            figures.append(run_once(crashes, KILLS - killed.total()))
        finally:
            crashes.end()
        killed += crashes.killed
    told = {"seed": seed, "kills": killed.total(), "by_kind": dict(killed), "demos": figures}
    print(json.dumps(told, indent=2))


def run_once(crashes: Crashes, kills: int) -> dict[str, object]:
    """Run one demo to its end, killing as long as kills are left; return its figures."""
    began = time.monotonic()
    crashes.start()
    entries = 0
    while crashes.killed.total() < kills and crashes.live_on():
        killed = crashes.kill()
        told = Acknowledged.read(crashes.acknowledged)
        print(f"{time.monotonic() - began:6.1f} s  kill {crashes.killed.total()}: {killed}", end="")
        print(f", {len(told.outputs)} answers, {len(told.labels)} labels", flush=True)
        checking.check_log(crashes.folder, told)
        if crashes.killed.total() % LEDGER_EVERY == 0:
            with checking.connected(crashes.folder) as client:
                entries = checking.check_ledger(client, crashes.folder)
                checking.check_records(client)
        crashes.recover(killed)
    crashes.finish()
    told = Acknowledged.read(crashes.acknowledged)
    assert {"driver": [], "control": [], "serving": [], "training": []} == crashes.processes()
    with checking.connected(crashes.folder) as client:
        rows = checking.check_sealed(client, crashes.folder)
        checking.check_acknowledged(client, told)
        checking.check_records(client)
        checking.check_rest(client, crashes.folder)
        entries = checking.check_ledger(client, crashes.folder)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "kills": dict(crashes.killed),
        "acknowledged": len(told.outputs),
        "labels": len(told.labels),
        "logged": rows,
        "entries": entries,
        "leftovers": checking.leftovers(crashes.folder),
    }

"""Drills move on by what their servers report, and hold up nobody when they can't."""

from __future__ import annotations

from pathlib import Path

import pytest

from everloop.app.drilling import Drills
from everloop.app.home import Home
from everloop.kernel.bootstrap import SERVER, local_caller
from everloop.release.halting import DrillDeployment, DrillView
from tests.unit.release.released import Released


def test_a_drill_that_can_not_be_settled_is_said_once_and_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Released()
    for shift in (1, 2):
        made.champion(made.version(shift))
    made.owner.perform("deployment.drill", DrillDeployment(deployment="bikes"), DrillView)
    home = Home(tmp_path)
    folder = home.serve("bikes")
    folder.mkdir(parents=True)
    (folder / "deployment.json").write_text("{")
    drills = Drills(home, made.world.kernel, local_caller(made.world.kernel, SERVER))

    for _ in range(3):
        drills.step()

    assert drills.are_waiting
    (said,) = caplog.messages
    assert "the drill of bikes can't be settled" in said

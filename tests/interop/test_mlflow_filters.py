"""Whatever filter MLflow's own store answers, we answer with the same runs in the same order."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.track.model import Experiment, Run, RunField, RunStatus
from everloop.track.search import Deleted
from everloop.track.wholes import FetchRuns, WholeRuns
from tests.kit import World, world
from tests.parts.mlflow import NEWEST, QUIET, SCENARIOS, command_of
from tests.unit.track.test_runs import log, series, start

load_verbs()
pytestmark = [pytest.mark.slow, pytest.mark.needs_mlflow]
SEED, FILTERS = 1, 300
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _asked(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        command_of(NEWEST, SCENARIOS / "mlflow_filters.py", str(folder), str(FILTERS), str(SEED)),
        env=QUIET,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _add(w: World, told: dict[str, Any]) -> Id:
    tags = told["tags"] | {"mlflow.runName": told["name"], "mlflow.user": "ann"}
    run = start(w, name=told["name"], experiment="one", tags=tags, params=told["params"])
    log(w, run, *(series(key, value) for key, value in told["metrics"].items()))
    with w.kernel.store.write() as tx:
        row = tx.find(Run, run)
        assert row is not None
        tx.replace(
            msgspec.structs.replace(
                row,
                status=RunStatus(told["status"].lower()),
                started_at=_instant(told["start"]),
                ended_at=_instant(told["end"]),
            )
        )
        for field in tx.select(RunField, *where(run=run)):
            tx.replace(msgspec.structs.replace(field, at=_instant(told["start"])))
    return run


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else EPOCH + timedelta(milliseconds=milliseconds)


def test_every_filter_that_mlflow_answers_gets_the_same_runs_in_the_same_order(
    tmp_path: Path,
) -> None:
    asked = _asked(tmp_path)
    w = world()
    ids = {told["id"]: _add(w, told) for told in asked["runs"]}
    with w.kernel.store.read() as tx:
        experiments = tuple(row.id for row in tx.select(Experiment))

    def answer(text: str, order: list[str]) -> list[str] | str:
        for theirs, ours in ids.items():
            text = text.replace(theirs, ours)
        ask = FetchRuns(
            experiments=experiments, filter=text, order=tuple(order), deleted=Deleted.ALL
        )
        try:
            found = w.owner.perform("run.fetch", ask, WholeRuns)
        except InvalidInput as error:
            return str(error)
        return [whole.run.name for whole in found.items]

    answered = [each for each in asked["asked"] if each["names"] is not None]
    assert len(answered) > FILTERS // 2
    for each in answered:
        assert each["names"] == answer(each["filter"], each["order"]), each

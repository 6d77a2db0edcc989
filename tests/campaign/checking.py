"""What must hold of a demo's folder whatever was killed: after each kill, and at the end."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import msgspec

from everloop.app.client import Client, connect_home
from everloop.app.home import Home
from everloop.core.ids import Id
from everloop.core.wire import Applied, PredictionRow, Routes
from everloop.govern.exporting import LedgerVerdict, VerifyLedger
from everloop.kernel.bootstrap import LOOP
from everloop.loop.model import FINAL, LoopRun, LoopState, LoopTransition
from everloop.monitor.model import FeedbackBatch, PredictionSegment
from everloop.monitor.queries import PredictionView, ShowPrediction
from everloop.registry.model import AliasMove, ModelVersion
from everloop.release.model import Deployment, Release, State
from everloop.serve.log import list_files, read_rows
from everloop.track import sync_spool
from everloop.track.model import Run, RunStatus
from tests.campaign.crashing import Acknowledged

MODEL = "bike"
MIN_GAP = timedelta(days=14)


def connected(folder: Path) -> Client:
    """Open the folder of a demo."""
    return connect_home(Home(folder / ".everloop"), project=MODEL)


def logged_ids(folder: Path) -> dict[str, list[str]]:
    """Return the ids in each file of the prediction log."""
    log = folder / ".everloop/serve" / MODEL / "log"
    return {file.name: [row.id for row in read_all(log, file.name)] for file in list_files(log)}


def read_all(log: Path, name: str) -> list[PredictionRow]:
    """Return all rows of a file."""
    rows: list[PredictionRow] = []
    offset = 0
    while True:
        chunk = read_rows(log, name, offset)
        rows += chunk.rows
        if chunk.next_offset == offset:
            return rows
        offset = chunk.next_offset


def check_log(folder: Path, told: Acknowledged) -> None:
    """Every answer that somebody got is in the log."""
    logged = {key for keys in logged_ids(folder).values() for key in keys}
    missing = set(told.outputs) - logged
    assert not missing, f"{len(missing)} acknowledged answers are not in the log: {missing}"


def check_ledger(client: Client, folder: Path) -> int:
    """The ledger, its anchor and all records agree; return the number of entries."""
    anchor = (folder / ".everloop/checkpoints.log").read_text()[-400_000:]
    anchor = anchor[anchor.find("\neverloop/ledger\n") + 1 :]
    verdict = client.perform("audit.verify", VerifyLedger(anchor=anchor), LedgerVerdict)
    assert verdict.ok, verdict.problems
    return verdict.entries


def check_records(client: Client) -> None:
    """The loop is in one state: no run doubled or left out, one release alive, one champion."""
    assert client.kernel is not None
    with client.kernel.store.read() as tx:
        runs = tx.select(LoopRun, order="started_at")
        steps = tx.select(LoopTransition, order="seq")
        releases = tx.select(Release)
        deployments = tx.select(Deployment)
        moves = tx.select(AliasMove)
    assert sum(run.state not in FINAL for run in runs) <= 1
    for before, after in pairwise(runs):
        assert after.caused_at - before.caused_at >= MIN_GAP, (before, after)
    for run in runs:
        mine = [step for step in steps if step.run == run.id]
        assert list(range(1, run.transitions + 1)) == [step.seq for step in mine]
        assert [step.after for step in mine][:-1] == [step.before for step in mine][1:]
        assert run.state == mine[-1].after
        begun = [it for it in releases if it.candidate == run.version and it.id > run.id]
        known = [run.release] if run.release else []
        if run.state in FINAL:
            assert known == [it.id for it in begun], (run, begun)
    assert sum(release.live is not None for release in releases) <= 1
    for deployment in deployments:
        promoted = [it for it in releases if it.state is State.PROMOTED]
        newest = max(promoted, key=lambda it: it.id, default=None)
        assert deployment.champion == (newest.candidate if newest else None)
        named = [it for it in moves if it.alias == "production"]
        last = max(named, key=lambda it: it.number, default=None)
        assert deployment.champion == (last.version if last else None)


def check_rest(client: Client, folder: Path) -> None:
    """A demo that came to its end left nothing half done."""
    assert client.kernel is not None
    for who in (client, connect_home(Home(folder / ".everloop"), project=MODEL, actor=LOOP)):
        sync_spool(folder / ".everloop/spool", who)
    with client.kernel.store.read() as tx:
        loops = tx.select(LoopRun)
        releases = {release.id: release for release in tx.select(Release)}
        versions = tx.select(ModelVersion)
        running = [run for run in tx.select(Run) if run.status is RunStatus.RUNNING]
        deployment = tx.select(Deployment)[0]
    for run in (run for run in loops if run.state not in FINAL):
        assert run.state is LoopState.RELEASING
        assert run.release is not None
        assert releases[run.release].live is not None
    assert [] == running
    assert [] == list((folder / ".everloop/spool").glob("*.spool"))
    artifacts = Counter((version.model, version.artifact) for version in versions)
    assert 1 == max(artifacts.values())
    trained = {run.version for run in loops if run.version is not None}
    mine = [version for version in versions if version.name == MODEL]
    assert len(mine) == 1 + 2 + len(trained), "each training registered one version"
    serve = folder / ".everloop/serve" / MODEL
    routes = msgspec.json.decode((serve / "routes.json").read_bytes(), type=Routes)
    applied = msgspec.json.decode((serve / "applied.json").read_bytes(), type=Applied)
    assert deployment.epoch == routes.epoch == applied.epoch
    assert routes.champion is not None
    assert deployment.champion == routes.champion.version_id


def check_sealed(client: Client, folder: Path) -> int:
    """Every whole line of the log is sealed, once; return the number of rows."""
    assert client.kernel is not None
    with client.kernel.store.read() as tx:
        segments = tx.select(PredictionSegment, order="seq")
        batches = tx.select(FeedbackBatch, order="seq")
    assert list(range(1, len(segments) + 1)) == [it.seq for it in segments]
    assert list(range(1, len(batches) + 1)) == [it.seq for it in batches]
    rows: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for segment in segments:
        assert segment.offset_start == ends[segment.file], segment
        ends[segment.file] = segment.offset_end
        rows[segment.file] += segment.rows
    logged = {name: len(keys) for name, keys in logged_ids(folder).items() if keys}
    assert logged == dict(rows)
    assert sum(it.labelled for it in segments) == sum(it.fresh for it in batches)
    return rows.total()


def check_acknowledged(client: Client, told: Acknowledged) -> None:
    """Every acknowledged answer is found with its output, and with its label if one was taken."""
    for key, output in told.outputs.items():
        ask = ShowPrediction(id=Id(key))
        shown = client.perform("prediction.show", ask, PredictionView)
        assert output == shown.row.output, key
        assert told.labels.get(key, shown.label) == shown.label, key
    assert set(told.labels) <= set(told.outputs)


def leftovers(folder: Path) -> list[str]:
    """Return the drafts that killed processes left, for the record."""
    home = folder / ".everloop"
    drafts = [*home.glob("blobs/blake3/.incoming-*"), *home.glob("serve/*/.*"), *home.glob(".*")]
    drafts += [*home.glob("serve/*/bundles/.*"), *home.glob("training/*.draft")]
    drafts += [*home.glob("spool/*"), *home.glob("keys/.*")]
    return sorted(str(path.relative_to(home)) for path in drafts)

"""Runs on the server: what they take, what they refuse, and that nothing counts twice."""

from __future__ import annotations

import math
import sys
import tracemalloc

import msgspec
import pytest

from everloop.core.errors import (
    Conflict,
    Denied,
    EverloopError,
    InvalidInput,
    LimitExceeded,
    NotFound,
)
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.authz import Role
from everloop.track import columns, limits
from everloop.track.lifecycle import RunNamed, RunShown
from everloop.track.model import MetricBatch, MetricChunk, RunStatus
from everloop.track.queries import (
    ArtifactList,
    CountExperiments,
    ExperimentCounts,
    ListArtifacts,
    ReadHistory,
    RunDetails,
    RunHistory,
    ShowRun,
)
from everloop.track.search import FoundRuns, SearchRuns
from everloop.track.series import FEW_POINTS, FULL_CHUNK, MOST_BATCHES, MOST_IN_A_ROW
from everloop.track.verbs import (
    ArtifactFile,
    FinishRun,
    LogRun,
    MetricSeries,
    RunFinished,
    RunLogged,
    RunStarted,
    SpoolRange,
    StartRun,
)
from tests.kit import World, world


def start(w: World, **more: object) -> Id:
    ask = msgspec.structs.replace(StartRun(run=w.kernel.services.ids.new()), **more)
    return w.owner.perform("run.start", ask, RunStarted).run


def series(key: str, *values: float, first: int = 0) -> MetricSeries:
    steps = range(first, first + len(values))
    return MetricSeries(key=key, data=columns.encode(columns.to_columns(steps, steps, values)))


def log(w: World, run: Id, *metrics: MetricSeries, **more: object) -> RunLogged:
    ask = msgspec.structs.replace(LogRun(run=run, metrics=metrics), **more)
    return w.owner.perform("run.log", ask, RunLogged)


def history(w: World, run: Id, key: str, max_points: int = 0) -> RunHistory:
    ask = ReadHistory(run=run, key=key, max_points=max_points)
    return w.owner.perform("run.history", ask, RunHistory)


def show(w: World, run: Id) -> RunDetails:
    return w.owner.perform("run.show", ShowRun(run=run), RunDetails)


def test_values_come_back_exactly_with_texts_for_what_json_has_no_numbers_for() -> None:
    w = world()
    run = start(w)

    log(w, run, series("loss", 0.1, math.nan, math.inf, -math.inf))

    assert (0.1, "NaN", "Infinity", "-Infinity") == history(w, run, "loss").values
    (summary,) = show(w, run).metrics
    assert (4, 3, -sys.float_info.max, "-inf", 0.1, 0.1, 3) == (
        summary.count, summary.last_step, summary.last, summary.last_text, summary.minimum,
        summary.maximum, summary.not_finite,
    )  # fmt: skip


def test_small_batches_share_a_chunk_and_large_ones_become_blobs() -> None:
    w = world()
    run = start(w)
    for first in range(0, 30, 10):
        log(w, run, series("a", *map(float, range(10)), first=first))
    log(w, run, series("b", *([0.5] * (MOST_IN_A_ROW + 1))))
    log(w, run, series("b", 0.25, first=MOST_IN_A_ROW + 1))
    log(w, run, series("c", *([1.0] * FULL_CHUNK)), series("c", 2.0, first=FULL_CHUNK))

    with w.kernel.store.read() as tx:
        chunks = tx.select(MetricChunk, *where(run=run))
    shape = sorted((chunk.key, chunk.count, chunk.blob is not None) for chunk in chunks)
    assert [
        ("a", 30, False), ("b", 1, False), ("b", MOST_IN_A_ROW + 1, True),
        ("c", FULL_CHUNK + 1, False),
    ] == shape  # fmt: skip
    assert tuple(range(30)) == history(w, run, "a").steps
    assert MOST_IN_A_ROW + 2 == history(w, run, "b", 10).count
    assert history(w, run, "b", 10).sampled


def test_a_spool_batch_counts_once_whatever_is_repeated() -> None:
    w = world()
    run = start(w)
    first, second = SpoolRange(start=0, end=50), SpoolRange(start=50, end=90)

    answers = [
        log(w, run, series("a", 1.0), spool=first),
        log(w, run, series("a", 1.0), spool=first),
        log(w, run, series("a", 9.0), spool=SpoolRange(start=90, end=120)),
        log(w, run, series("a", 2.0, first=1), spool=second),
        log(w, run, series("a", 1.0), spool=SpoolRange(start=0, end=90)),
    ]

    assert [(1, 50), (0, 50), (0, 50), (1, 90), (0, 90)] == [(a.points, a.offset) for a in answers]
    assert (1.0, 2.0) == history(w, run, "a").values
    assert 90 == show(w, run).offset


def test_a_parameter_is_set_once_and_a_tag_may_change() -> None:
    w = world()
    run = start(w, params={"a": "1"})
    log(w, run, params={"a": "1", "b": "2"}, tags={"t": "x"})
    log(w, run, tags={"t": "y"})

    with pytest.raises(Conflict) as refused:
        log(w, run, series("m", 1.0), params={"b": "3"})

    assert "run.param_changed" == refused.value.code
    assert ({"a": "1", "b": "2"}, {"t": "y"}) == (show(w, run).run.params, show(w, run).run.tags)
    assert () == show(w, run).metrics


@pytest.mark.parametrize(
    "more",
    [
        {"metrics": (MetricSeries(key="", data=b""),)},
        {"metrics": (MetricSeries(key="a", data=b"junk"),)},
        {"metrics": (series("x" * 251, 1.0),)},
        {"metrics": (series("bad\nname", 1.0),)},
        {"params": {"p": "x" * (limits.MAX_PARAM_CHARS + 1)}},
        {"params": {"": "x"}},
        {"params": {"p": "\x00"}},
        {"params": {"p": "\ud800"}},
        {"tags": {"t": "x" * (limits.MAX_TAG_CHARS + 1)}},
        {"params": {str(n): "" for n in range(limits.MAX_PARAMS_A_RUN + 1)}},
        {"artifacts": (ArtifactFile(path="../x", digest="blake3:" + "0" * 64, size_bytes=1),)},
        {"artifacts": (ArtifactFile(path="x", digest="blake3:" + "0" * 64, size_bytes=1),)},
        {"artifacts": (ArtifactFile(path="x", digest="nonsense", size_bytes=1),)},
        {"reads": ("not-an-id",)},
        {"reads": ("01900000-0000-7000-8000-000000000000",)},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_changes_nothing(more: dict[str, object]) -> None:
    w = world()
    run = start(w)
    before = show(w, run)

    with pytest.raises((InvalidInput, NotFound, LimitExceeded)):
        log(w, run, **more)

    assert before == show(w, run)


@pytest.mark.parametrize(
    "path", ["", "/etc/x", "a/../b", "a//b", "./a", "C:/x", "a\\b", "a\x00", "x" * 501]
)
def test_an_artifact_path_stays_inside_its_run(path: str) -> None:
    with pytest.raises(InvalidInput):
        limits.check_artifact_path(path)


def test_an_ended_run_takes_no_more_but_a_killed_one_may_come_back() -> None:
    w = world()
    run = start(w)
    w.clock.push(seconds=5)

    w.owner.perform("run.finish", FinishRun(run=run, status=RunStatus.KILLED), RunFinished)
    log(w, run, series("a", 1.0))
    w.owner.perform("run.finish", FinishRun(run=run), RunFinished)
    w.owner.perform("run.finish", FinishRun(run=run), RunFinished)

    with pytest.raises(Conflict, match="takes no more"):
        log(w, run, series("a", 1.0))
    with pytest.raises(Conflict, match="already finished"):
        w.owner.perform("run.finish", FinishRun(run=run, status=RunStatus.FAILED), RunFinished)
    (row,) = w.owner.perform("run.search", SearchRuns(), FoundRuns).items
    assert (RunStatus.FINISHED, 5.0) == (row.status, row.seconds)


def test_runs_are_listed_newest_first_page_by_page_with_their_latest_metrics() -> None:
    w = world()
    runs = []
    for number in range(5):
        w.clock.push(seconds=1)
        runs.append(start(w, experiment="odd" if number % 2 else "even"))
        log(w, runs[-1], series("a", float(number)))

    first = w.owner.perform("run.search", SearchRuns(limit=3), FoundRuns)
    second = w.owner.perform("run.search", SearchRuns(limit=3, after=first.next), FoundRuns)
    ask = SearchRuns(experiment=("odd",), fields=("metrics",))
    odd = w.owner.perform("run.search", ask, FoundRuns)

    assert runs[::-1] == [row.id for row in first.items + second.items]
    assert second.next is None
    assert ["3.0", "1.0"] == [row.metrics["a"] for row in odd.items]
    assert {} == first.items[0].metrics


def test_an_experiment_counts_its_runs_but_not_those_in_the_trash() -> None:
    w = world()
    runs = []
    for number in range(3):
        w.clock.push(seconds=1)
        runs.append(start(w, experiment="odd" if number % 2 else "even"))
    w.owner.perform("run.delete", RunNamed(run=runs[2]), RunShown)
    keys = tuple(
        w.owner.perform("run.show", ShowRun(run=run), RunDetails).run.experiment for run in runs[:2]
    )

    counts = w.owner.perform(
        "experiment.counts", CountExperiments(experiments=keys), ExperimentCounts
    )

    assert [(keys[0], 1), (keys[1], 1)] == [(row.experiment, row.runs) for row in counts.items]
    first = w.owner.perform("run.show", ShowRun(run=runs[0]), RunDetails).run
    assert first.started_at == counts.items[0].last_started_at


def test_artifacts_are_listed_and_their_newest_bytes_count() -> None:
    w = world()
    run = start(w)
    for data in (b"one", b"three"):
        digest = w.blobs.put(data)
        artifact = ArtifactFile(path="a/b.txt", digest=digest, size_bytes=len(data))
        log(w, run, artifacts=(artifact,))

    (entry,) = w.owner.perform("run.artifacts", ListArtifacts(run=run), ArtifactList).items

    assert ("a/b.txt", 5, b"three") == (entry.path, entry.size_bytes, w.blobs.get(entry.digest))


def test_a_viewer_reads_and_does_not_log_and_a_stranger_sees_nothing() -> None:
    w = world()
    run = start(w)
    viewer = w.person("vera", Role.VIEWER)
    w.project("other")
    stranger = w.person("sam", Role.ADMIN, project="other")

    assert run == viewer.perform("run.show", ShowRun(run=run), RunDetails).run.id
    with pytest.raises(Denied):
        viewer.perform("run.log", LogRun(run=run), RunLogged)
    with pytest.raises(EverloopError):
        stranger.perform("run.show", ShowRun(run=run), RunDetails)


@pytest.mark.parametrize(
    "more",
    [
        {"run": "x"}, {"experiment": "a\nb"}, {"parent": "01900000-0000-7000-8000-000000000000"},
        {"environment": "blake3:" + "0" * 64}, {"code_commit": "not a commit"},
        {"params": {"a": "x" * 7_000}}, {"name": "x" * 700},
    ],
)  # fmt: skip
def test_a_run_that_does_not_fit_does_not_start(more: dict[str, object]) -> None:
    w = world()

    with pytest.raises((InvalidInput, NotFound)):
        start(w, **more)

    assert () == w.owner.perform("run.search", SearchRuns(), FoundRuns).items


def waiting(w: World, run: Id) -> int:
    with w.kernel.store.read() as tx:
        return len(tx.select(MetricBatch, *where(run=run)))


def test_few_points_wait_together_and_are_sorted_when_many_wait_or_the_run_ends() -> None:
    w = world()
    run = start(w)
    wanted: list[float] = []
    for at in range(MOST_BATCHES + 3):
        wanted += [at / 2, math.nan]
        log(w, run, series("a", at / 2, math.nan, first=2 * at), series("b", float(at), first=at))
        assert tuple(range(2 * at + 2)) == history(w, run, "a").steps
    assert 3 == waiting(w, run)

    log(w, run, series("a", *([7.0] * FEW_POINTS), first=10_000))
    assert 0 == waiting(w, run), "what came before stands before"
    log(w, run, series("b", 1.5, first=10_000))
    w.owner.perform("run.finish", FinishRun(run=run), RunFinished)

    assert 0 == waiting(w, run)
    expected = [*("NaN" if math.isnan(v) else v for v in wanted), *([7.0] * FEW_POINTS)]
    assert tuple(expected) == history(w, run, "a").values
    assert (*map(float, range(MOST_BATCHES + 3)), 1.5) == history(w, run, "b").values
    found = {metric.key: (metric.count, metric.chunks) for metric in show(w, run).metrics}
    assert {"a": (len(expected), 1), "b": (MOST_BATCHES + 4, 1)} == found


def test_a_run_takes_few_points_after_its_end_too_when_amended() -> None:
    w = world()
    run = start(w)
    log(w, run, series("a", 1.0))
    w.owner.perform("run.finish", FinishRun(run=run), RunFinished)

    log(w, run, series("a", 2.0, first=1), amend=True)

    assert (1.0, 2.0) == history(w, run, "a").values


def test_a_small_request_that_unpacks_to_very_many_points_is_refused_in_time() -> None:
    w = world()
    run = start(w)
    many = limits.MAX_POINTS_A_BATCH
    zeros = columns.encode(columns.to_columns([0] * many, [0] * many, [0.0] * many))
    ask = LogRun(run=run, metrics=tuple(MetricSeries(key=f"m{i}", data=zeros) for i in range(200)))

    tracemalloc.start()
    with pytest.raises(LimitExceeded, match="points"):
        w.owner.perform("run.log", ask, RunLogged)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 20 * len(zeros) + 20 * 24 * many, "a few of them, not all"

"""A pipeline runs what changed, takes the rest from the cache, and says which was which."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.lineage import Direction, Edge, walk
from everloop.pipeline import (
    PipelineOptions,
    PipelineResult,
    StepOutcome,
    StepStatus,
    run_pipeline,
)
from everloop.pipeline.model import StepRun
from everloop.pipeline.queries import ListPipelines, ListSteps, PipelineList, StepList
from everloop.pipeline.verbs import FinishedStep, RecordSteps, StepsRecorded
from everloop.track import RunPorts, RunStatus, start_run
from everloop.track.queries import RunDetails, ShowRun
from tests.kit import World, world

FLOW = """
import os
from pathlib import Path

import numpy as np

import features
from everloop.pipeline import current_run, pipeline, step


def note(name):
    with Path(__file__).with_name("calls").open("a") as file:
        print(name, file=file)


@step
def load(rows: int):
    note("load")
    return np.arange(rows, dtype=float), np.ones(rows)


@step
def prepare(x, scale: float):
    note("prepare")
    return features.widen(x) * scale


@step
def train(x, y):
    note("train")
    current_run().log_metric("loss", float(x.sum()))
    current_run().log_artifact(b"weights", "model.bin")
    return {"weights": x * y, "loss": float(x.sum())}


@pipeline
def main(rows: int, scale: float = 2.0):
    x, y = load(rows)
    if rows > 1_000:
        return None
    return train(prepare(x, scale), y)["loss"]


@step
def square(x: int):
    return x * x


@step(process=True)
def whoami(name: str, turn: int):
    current_run().log_metric("seen", 1)
    return [os.getpid(), os.environ.get(name)]


@step(timeout_s=0.2)
def hang():
    while True:
        pass


@step(retries=1, process=True)
def die(flag: str):
    path = Path(flag)
    if path.read_text() == "deadly":
        path.write_text("tame")
        os.kill(os.getpid(), 9)
    return 1


class Broken(Exception):
    pass


@step
def fail(x: int):
    raise Broken("no luck", x)


@step(process=True)
def fail_apart(x: int):
    raise Broken("no luck", x)


@step(retries=2)
def flaky(path: str):
    tries = Path(path)
    tries.write_text(tries.read_text() + "x")
    if len(tries.read_text()) < 3:
        raise OSError("not yet")
    return len(tries.read_text())


@step
def spoil(items: list):
    items.append(1)
    return len(items)


@step
def opaque(x: int):
    return object()


@pipeline
def squares(count: int):
    return square.map(range(count))


@pipeline
def apart(name: str):
    first = whoami(name, 1)
    os.environ[name] = "later"
    return first, whoami(name, 2)


@pipeline
def endless():
    return hang()


@pipeline
def deadly(path: str):
    return die(path)


@pipeline
def half(kind: str):
    x, _ = load(5)
    return {"fail": fail, "apart": fail_apart, "opaque": opaque}[kind](1)


@pipeline
def patient(path: str):
    return flaky(path)


@pipeline
def spoiled():
    items = [0]
    return spoil(items), items
"""
FEATURES = """
def widen(x):
    return x + OFFSET


OFFSET = 1.0
"""


class Project:
    """A folder with a pipeline, its run log and the steps that each run executed."""

    def __init__(self, w: World, root: Path) -> None:
        self.w = w
        self.root = root
        (root / "flow.py").write_text(FLOW)
        (root / "features.py").write_text(FEATURES)
        self.flow = self.load()

    def load(self) -> ModuleType:
        """Import the pipeline anew, as the next process would."""
        for name in ("flow", "features"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        self.flow = importlib.import_module("flow")
        return self.flow

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().split()

    def edit(self, old: str, new: str) -> None:
        path = self.root / "features.py"
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
        self.load()

    def run(self, name: str = "main", /, **arguments: object) -> PipelineResult:
        options = PipelineOptions(
            root=self.root, workers=2, ports=RunPorts(spool=self.root / "spool")
        )
        return run_pipeline(
            getattr(self.flow, name), arguments, self.w.owner, options=options, progress=None
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Project(world(), tmp_path)
    for name in ("flow", "features"):
        sys.modules.pop(name, None)


def statuses(result: PipelineResult) -> list[str]:
    return [f"{step.name.partition(':')[2]} {step.status}" for step in result.steps]


def details(project: Project, run: Id) -> RunDetails:
    return project.w.owner.perform("run.show", ShowRun(run=run), RunDetails)


def steps_of(project: Project, run: Id) -> tuple[StepRun, ...]:
    return project.w.owner.perform("step.list", ListSteps(run=run), StepList).items


def test_the_second_run_is_all_hits_and_has_the_same_value_and_metrics(project: Project) -> None:
    first, second = project.run(rows=4), project.run(rows=4)

    assert ["load ran", "prepare ran", "train ran"] == statuses(first)
    assert ["load hit", "prepare hit", "train hit"] == statuses(second)
    assert ["load", "prepare", "train"] == project.calls
    assert first.value == second.value == 20.0
    for result in (first, second):
        shown = details(project, result.run_id)
        assert (RunStatus.FINISHED, "main", 1) == (
            shown.run.status, shown.run.pipeline, shown.artifacts,
        )  # fmt: skip
        assert ["20.0"] == [metric.last_text for metric in shown.metrics]
    rows = project.w.owner.perform("pipeline.list", ListPipelines(), PipelineList).items
    assert [(3, 3), (3, 0)] == [(row.steps, row.hits) for row in rows]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [("x + OFFSET", "x - OFFSET", "code features.widen changed"),
     ("1.0", "3.0", "code features.OFFSET changed")],
)  # fmt: skip
def test_an_edit_of_what_a_step_calls_runs_it_and_what_follows(
    project: Project, old: str, new: str, why: str
) -> None:
    project.run(rows=4)

    project.edit(old, new)
    after = project.run(rows=4)

    assert ["load hit", "prepare ran", "train ran"] == statuses(after)
    assert ["nothing changed", why, "input x changed"] == [step.why for step in after.steps]


def test_a_changed_parameter_runs_only_what_depends_on_it(project: Project) -> None:
    project.run(rows=4)

    after = project.run(rows=4, scale=3.0)

    assert ["load hit", "prepare ran", "train ran"] == statuses(after)
    assert "input scale changed" == after.steps[1].why
    assert ["load ran"] == statuses(project.run(rows=2_000))


def test_a_lost_or_damaged_result_is_no_hit(project: Project) -> None:
    result = project.run(rows=4)
    prepared = steps_of(project, result.run_id)[1]
    assert project.w.whole.delete(prepared.outputs["return"])  # type: ignore[arg-type]

    assert ["load hit", "prepare ran", "train hit"] == statuses(project.run(rows=4))


def test_lineage_leads_from_the_run_over_its_steps_to_each_other(project: Project) -> None:
    run = project.run(rows=4).run_id
    load, prepare, train = (f"step_run:{step.id}" for step in steps_of(project, run))

    with project.w.kernel.store.read() as tx:
        row = tx.select(Edge, *where(source=f"run:{run}", relation="executed"))
        graph = walk(tx, [train], Direction.UP, project=row[0].project)
        edges = {(e.source, e.relation, e.target) for e in tx.select(Edge)}

    assert 3 == len(row)
    assert {load, prepare, train} <= set(graph.nodes)
    assert {
        (prepare, "followed", load),
        (train, "followed", prepare),
        (train, "followed", load),
    } <= (edges)
    blobs = [node.partition(":")[2] for node in graph.nodes if node.startswith("blob:")]
    assert blobs
    assert all(project.w.blobs.size(digest) is not None for digest in blobs)  # type: ignore[arg-type]


def test_a_failed_run_resumes_where_it_failed(project: Project) -> None:
    with pytest.raises(project.flow.Broken) as raised:
        project.run("half", kind="fail")

    (row, *_) = project.w.owner.perform("pipeline.list", ListPipelines(), PipelineList).items
    assert (RunStatus.FAILED, 2) == (row.status, row.steps)
    assert "Broken" in str(row.error)
    assert row.run in raised.value.__notes__[0]
    load, failed = steps_of(project, row.run)
    assert (StepStatus.RAN, StepStatus.FAILED) == (load.status, failed.status)
    assert "Broken: ('no luck', 1)" == failed.error
    with pytest.raises(project.flow.Broken):
        project.run("half", kind="fail")
    assert ["load"] == project.calls


def test_an_exception_in_another_process_arrives_as_itself(project: Project) -> None:
    with pytest.raises(project.flow.Broken) as raised:
        project.run("half", kind="apart")

    assert ("no luck", 1) == raised.value.args
    assert "fail_apart" in raised.value.__notes__[0]


def test_a_map_runs_in_processes_and_is_taken_from_the_cache(project: Project) -> None:
    first, second = project.run("squares", count=6), project.run("squares", count=8)

    assert [0, 1, 4, 9, 16, 25] == first.value
    assert [0, 1, 4, 9, 16, 25, 36, 49] == second.value
    assert ["hit"] * 6 + ["ran"] * 2 == [
        step.status for step in sorted(second.steps, key=lambda step: step.number)
    ]


def test_a_process_step_sees_the_environment_of_now_and_its_metrics_arrive(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLOOP_STORY", "now")

    result = project.run("apart", name="EVERLOOP_STORY")

    assert isinstance(result.value, tuple)
    (process, before), (_, after) = result.value
    assert os.getpid() != process
    assert ("now", "later") == (before, after)
    assert ["seen"] == [metric.key for metric in details(project, result.run_id).metrics]


def test_a_step_out_of_time_is_ended(project: Project) -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.2 s"):
        project.run("endless")


def test_a_step_whose_process_is_killed_is_tried_again(project: Project, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.write_text("deadly")

    result = project.run("deadly", path=str(flag))

    assert 1 == result.value
    (row,) = steps_of(project, result.run_id)
    assert 2 == row.attempts


def test_a_step_is_tried_again_as_often_as_it_says(project: Project, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    tries.write_text("")

    result = project.run("patient", path=str(tries))

    assert 3 == result.value
    assert 3 == steps_of(project, result.run_id)[0].attempts


def test_a_step_that_changes_its_argument_is_not_cached(project: Project) -> None:
    first, second = project.run("spoiled"), project.run("spoiled")

    assert (2, [0, 1]) == first.value == second.value
    assert ["spoil ran"] == statuses(second)
    assert "not cached: the step changed its argument items" == second.steps[0].why


def test_a_result_without_a_canonical_form_is_refused_by_name(project: Project) -> None:
    with pytest.raises(InvalidInput, match=r"The result of step flow:opaque holds .*object"):
        project.run("half", kind="opaque")


def test_outside_a_pipeline_everything_is_a_plain_function(project: Project) -> None:
    flow = project.flow

    assert 20.0 == flow.main(4)
    assert [0, 1, 4] == flow.square.map(range(3))
    assert 9 == flow.square.submit(3).result()
    assert "square" == flow.square.__name__


def test_wrong_arguments_are_refused_before_a_run_starts(project: Project) -> None:
    with pytest.raises(InvalidInput, match="rows"):
        project.run(scale=1.0)
    with pytest.raises(InvalidInput, match="not a pipeline"):
        project.run("square", x=1)

    assert () == project.w.owner.perform("pipeline.list", ListPipelines(), PipelineList).items


@pytest.mark.parametrize("field", ["key", "outputs", "cached_from"])
def test_a_forged_hit_is_refused(project: Project, field: str) -> None:
    load, prepare, _ = steps_of(project, project.run(rows=4).run_id)
    live = start_run(project.w.owner, ports=RunPorts(spool=project.root / "spool"))
    hit = FinishedStep(
        number=0,
        name=load.name,
        status=StepStatus.HIT,
        key=load.key,
        inputs=load.inputs,
        outputs=load.outputs,
        cached_from=load.id,
        started_at=load.started_at,
        ended_at=load.ended_at,
        seconds=0.0,
    )
    other = {"key": prepare.key, "outputs": prepare.outputs, "cached_from": prepare.id}[field]
    forged = msgspec.structs.replace(hit, **{field: other})

    with pytest.raises(Conflict) as refused:
        project.w.owner.perform(
            "step.record", RecordSteps(run=live.id, steps=(forged,)), StepsRecorded
        )

    assert "step.cache_forged" == refused.value.code
    project.w.owner.perform("step.record", RecordSteps(run=live.id, steps=(hit,)), StepsRecorded)
    live.finish()


class Notes:
    """Progress written down."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def pipeline_started(self, name: str, run: Id) -> None:
        self.lines.append(f"{name} started")

    def step_started(self, number: int, name: str, why: str) -> None:
        self.lines.append(f"{number} {name} started: {why}")

    def step_finished(self, outcome: StepOutcome) -> None:
        self.lines.append(f"{outcome.number} {outcome.name} {outcome.status}")

    def pipeline_finished(self, run: Id, status: RunStatus) -> None:
        self.lines.append(f"pipeline {status}")


def test_progress_is_told_step_by_step(project: Project) -> None:
    notes = Notes()
    options = PipelineOptions(root=project.root)
    project.run(rows=4)

    run_pipeline(
        project.flow.main,
        {"rows": 4, "scale": 9.0},
        project.w.owner,
        options=options,
        progress=notes,
    )

    assert [
        "main started", "0 flow:load hit", "1 flow:prepare started: input scale changed",
        "1 flow:prepare ran", "2 flow:train started: input x changed", "2 flow:train ran",
        "pipeline finished",
    ] == notes.lines  # fmt: skip


SCRIPT = """
import sys
from everloop.pipeline import PipelineOptions, pipeline, run_pipeline, step
from tests.kit import world

@step
def double(x):
    return 2 * x

@pipeline
def main():
    return double.map([1, 2, 3])

if __name__ == "__main__":
    result = run_pipeline(main, {}, world().owner, options=PipelineOptions(workers=2))
    print(result.value, [step.name for step in result.steps])
"""


def test_a_script_may_define_its_own_steps_and_run_them_in_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]

    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
    )  # fmt: skip

    assert ("", "[2, 4, 6] ['script:double', 'script:double', 'script:double']\n") == (
        done.stderr, done.stdout,
    )  # fmt: skip

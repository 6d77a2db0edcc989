"""Tracking keeps what was logged: the process may be killed, the server may be away."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from everloop.core.errors import Conflict, InvalidInput, Unavailable
from everloop.core.ports import BlobStore
from everloop.kernel.performer import Performer
from everloop.track import RunDraft, RunHandle, RunPorts, RunStatus, start_run, sync_spool
from everloop.track.queries import ReadHistory, RunDetails, RunHistory, ShowRun
from everloop.track.search import FoundRuns, SearchRuns
from everloop.track.spool import Spool
from tests.kit import World, world

A = TypeVar("A", bound=msgspec.Struct)

TRAINING = """
import sys, time
from pathlib import Path
from everloop.core.errors import Unavailable
from everloop.track import RunDraft, RunPorts, start_run

class NoServer:
    project = "demo"
    @property
    def blobs(self):
        raise Unavailable("server.away", "away", hint="wait")
    def perform(self, *args, **more):
        raise Unavailable("server.away", "away", hint="wait")

run = start_run(NoServer(), RunDraft(params={"rate": 0.5}), ports=RunPorts(spool=Path(sys.argv[1])))
for step in range(1_000):
    run.log_metric("loss", 1 / (step + 1))
run.log_artifact(b"weights", "model/weights.bin")
run.flush()
print("flushed", flush=True)
for step in range(10**9):
    run.log_metric("after", step)
    time.sleep(0.001)
"""


class Line:
    """A performer whose connection can be cut, and which can lose answers."""

    def __init__(self, inner: Performer) -> None:
        self._inner = inner
        self.is_cut = False
        self.lose_answers = 0

    @property
    def project(self) -> str:
        return self._inner.project

    @property
    def blobs(self) -> BlobStore:
        self._check()
        return self._inner.blobs

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        self._check()
        result = self._inner.perform(verb, ask, answer, request=request, reason=reason)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("server.away", "The answer was lost.", hint="Try again.")
        return result

    def _check(self) -> None:
        if self.is_cut:
            raise Unavailable("server.away", "The server is away.", hint="Try again.")


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def ports(tmp_path: Path) -> RunPorts:
    return RunPorts(spool=tmp_path / "spool")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("everloop").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("everloop").setLevel(logging.NOTSET)


def show(w: World, run: RunHandle | str) -> RunDetails:
    key = run if isinstance(run, str) else run.id
    return w.owner.perform("run.show", ShowRun(run=key), RunDetails)


def values(w: World, run: str, key: str) -> tuple[float | str, ...]:
    ask = ReadHistory(run=run, key=key, max_points=0)
    return w.owner.perform("run.history", ask, RunHistory).values


def test_a_killed_training_loses_nothing_that_was_flushed(w: World, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    source = str(Path(__file__).resolve().parents[2] / "src")
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(spool)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert process.stdout is not None
    assert b"flushed\n" == process.stdout.readline()
    (path,) = spool.glob("*.spool")
    size = path.stat().st_size
    deadline = time.monotonic() + 20
    while path.stat().st_size == size and time.monotonic() < deadline:
        pass
    assert () == sync_spool(spool, w.owner).items, "a live process ships for itself"

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with path.open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    (shipped,) = sync_spool(spool, w.owner).items

    details = show(w, shipped.run)
    assert (RunStatus.KILLED, None) == (details.run.status, shipped.problem)
    assert {"rate": "0.5"} == details.run.params
    assert tuple(1 / (step + 1) for step in range(1_000)) == values(w, shipped.run, "loss")
    after = values(w, shipped.run, "after")
    assert tuple(range(len(after))) == after
    assert len(after) > 0
    assert 1 == details.artifacts
    assert [] == list(spool.iterdir())


def test_a_server_that_is_away_costs_the_training_nothing(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)
    line.is_cut = True

    with start_run(line, RunDraft(experiment="night"), ports=ports) as run:
        run.log_metrics({"loss": 0.5, "wild": math.nan}, step=3)
        run.log_params({"depth": 4})
    assert () == w.owner.perform("run.search", SearchRuns(), FoundRuns).items

    line.is_cut = False
    assert ports.spool is not None
    report = sync_spool(ports.spool, line)

    assert (0, 2) == (report.waiting, report.items[0].points)
    details = show(w, run)
    assert (RunStatus.FINISHED, "night", {"depth": "4"}) == (
        details.run.status, details.experiment, details.run.params,
    )  # fmt: skip
    assert ("NaN",) == values(w, run.id, "wild")
    assert () == sync_spool(ports.spool, line).items


@pytest.mark.parametrize("lost", range(1, 5))
def test_a_lost_answer_never_doubles_a_point(w: World, ports: RunPorts, lost: int) -> None:
    line = Line(w.owner)
    line.is_cut = True
    run = start_run(line, ports=ports)
    for step in range(100):
        run.log_metric("loss", step)
    run.flush()
    line.is_cut, line.lose_answers = False, lost

    assert not run.finish()
    assert ports.spool is not None
    for _ in range(lost):
        try:
            sync_spool(ports.spool, line)
        except Unavailable:
            continue

    assert tuple(map(float, range(100))) == values(w, run.id, "loss")
    assert RunStatus.FINISHED is show(w, run).run.status
    assert [] == list(ports.spool.iterdir())


def test_points_arrive_while_the_training_runs(w: World, ports: RunPorts) -> None:
    with start_run(w.owner, ports=ports) as run:
        run.log_metric("loss", 0.5)
        deadline = time.monotonic() + 20
        while not show(w, run).metrics and time.monotonic() < deadline:
            pass

        assert (0.5,) == values(w, run.id, "loss")
        assert RunStatus.RUNNING is show(w, run).run.status


def test_runs_of_another_project_wait_for_their_own_server(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)
    line.is_cut = True
    start_run(line, ports=ports).finish()
    w.project("other")
    assert ports.spool is not None

    assert () == sync_spool(ports.spool, w.service("owner", "other")).items
    assert 1 == len(sync_spool(ports.spool, w.owner).items)


def test_a_block_that_raises_ends_its_run_as_failed(w: World, ports: RunPorts) -> None:
    run = start_run(w.owner, ports=ports)

    def train() -> None:
        with run:
            run.log_metric("loss", 1)
            run.log_metric("loss", 1 / 0)

    with pytest.raises(ZeroDivisionError):
        train()

    details = show(w, run)
    assert (RunStatus.FAILED, "ZeroDivisionError: division by zero") == (
        details.run.status, details.run.error,
    )  # fmt: skip
    assert 1 == details.metrics[0].count


def test_wrong_calls_are_refused_where_they_are_made(w: World, ports: RunPorts) -> None:
    with start_run(w.owner, ports=ports) as run:
        run.log_params({"a": 1})
        calls: tuple[Callable[[], None], ...] = (
            lambda: run.log_metric("loss", "high"),  # type: ignore[arg-type]
            lambda: run.log_metric("loss", 1, step=1.5),  # type: ignore[arg-type]
            lambda: run.log_metric("loss", 1, step=2**63),
            lambda: run.log_metric("", 1),
            lambda: run.log_metric(None, 1),  # type: ignore[arg-type]
            lambda: run.log_params({"x" * 300: 1}),
            lambda: run.set_tags({"t": "x" * 9_000}),
            lambda: run.log_artifact(b"x", "../x"),
            lambda: run.log_artifact("missing-file"),
        )
        for call in calls:
            with pytest.raises(InvalidInput):
                call()
        with pytest.raises(Conflict):
            run.log_params({"a": 2})
    with pytest.raises(InvalidInput, match="has ended"):
        run.log_metric("loss", 1)

    assert () == show(w, run).metrics


def test_a_folder_is_kept_file_by_file_without_its_links(
    w: World, ports: RunPorts, tmp_path: Path
) -> None:
    folder = tmp_path / "plots"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    (folder / "secret").symlink_to(tmp_path)
    (folder / "passwd").symlink_to(folder / "a.txt")

    with start_run(w.owner, ports=ports) as run:
        run.log_artifact(folder)

    assert 2 == show(w, run).artifacts


def test_a_forked_child_logs_into_the_same_run(w: World, ports: RunPorts) -> None:
    run = start_run(w.owner, ports=ports)
    run.log_metric("parent", 1)

    child = os.fork()
    if child == 0:
        run.log_metric("child", 2)
        run.flush()
        os._exit(0)
    os.waitpid(child, 0)
    run.finish()

    assert {"child": "2.0", "parent": "1.0"} == {m.key: m.last_text for m in show(w, run).metrics}


def test_a_refused_run_leaves_no_spool_behind(w: World, ports: RunPorts) -> None:
    with pytest.raises(InvalidInput):
        start_run(w.owner, RunDraft(experiment="a\x00b"), ports=ports)
    with pytest.raises(Exception, match="no run"):
        start_run(w.owner, RunDraft(parent="01900000-0000-7000-8000-000000000000"), ports=ports)

    assert ports.spool is not None
    assert not list(ports.spool.glob("*"))
    Spool(ports.spool / "still-usable.spool").close()

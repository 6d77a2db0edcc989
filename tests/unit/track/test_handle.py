"""A run is nested, taken up again and written whatever the disk and the clock do."""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pytest

from everloop.core.errors import Conflict, InvalidInput, LimitExceeded, NotFound, Unavailable
from everloop.core.ports import BlobStore
from everloop.kernel.performer import Performer
from everloop.track import (
    RunDraft,
    RunHandle,
    RunPorts,
    RunStatus,
    resume_run,
    start_run,
    sync_spool,
)
from everloop.track.active import activate, active_run
from everloop.track.frames import Read
from everloop.track.lifecycle import RunNamed, RunShown
from everloop.track.limits import MAX_PARAMS_A_RUN, MAX_POINTS_A_BATCH
from everloop.track.queries import ReadHistory, RunDetails, RunHistory, ShowRun
from everloop.track.verbs import FinishRun, RunFinished
from tests.kit import World, world

A = TypeVar("A", bound=msgspec.Struct)


class Line:
    """A performer whose connection can be cut."""

    def __init__(self, inner: Performer) -> None:
        self._inner = inner
        self.is_cut = False
        self.verbs: list[str] = []

    @property
    def project(self) -> str:
        return self._inner.project

    @property
    def blobs(self) -> BlobStore:
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
        if self.is_cut:
            raise Unavailable("server.away", "The server is away.", hint="Try again.")
        self.verbs.append(verb)
        return self._inner.perform(verb, ask, answer, request=request, reason=reason)


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


def history(w: World, run: str, key: str) -> RunHistory:
    return w.owner.perform("run.history", ReadHistory(run=run, key=key, max_points=0), RunHistory)


def spools(ports: RunPorts) -> list[Path]:
    assert ports.spool is not None
    return sorted(ports.spool.glob("*.spool"))


def die(handle: RunHandle) -> None:
    """Leave a run as a killed process leaves it: what is flushed stands, nothing more comes."""
    handle.flush()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    handle._spool.close()
    handle._is_ended = True


def test_a_short_run_starts_with_one_verb_and_ends_with_one(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)

    with start_run(line, ports=ports) as run:
        started = list(line.verbs)
        run.log_metric("loss", 1)

    assert (["run.start"], ["run.start", "run.log"]) == (started, line.verbs)
    assert RunStatus.FINISHED is show(w, run).run.status


def test_steps_times_and_wild_values_come_back_as_they_were(w: World, ports: RunPorts) -> None:
    at = datetime(2020, 5, 17, 12, 30, 0, 123456, tzinfo=UTC)
    given = [(-(2**63), 0.1), (7, math.inf), (7, -math.inf), (2**63 - 2, 5e-324)]

    with start_run(w.owner, ports=ports) as run:
        for step, value in given:
            run.log_metric("wild", value, step, at=at)

    found = history(w, run.id, "wild")
    assert tuple(step for step, _ in given) == found.steps
    assert (0.1, "Infinity", "-Infinity", 5e-324) == found.values
    assert {at.timestamp()} == set(found.times)


def test_a_child_run_stands_below_its_parent_in_the_same_experiment(
    w: World, ports: RunPorts
) -> None:
    with (
        start_run(w.owner, RunDraft(experiment="folds"), ports=ports) as run,
        run.child("fold 1", params={"fold": 1}) as child,
    ):
        child.log_metric("loss", 1)

    details = show(w, child)
    assert (run.id, "folds", "fold 1", {"fold": "1"}) == (
        details.run.parent, details.experiment, details.run.name, details.run.params,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="has ended"):
        run.child()


def test_the_active_run_is_the_innermost_that_has_not_ended(w: World, ports: RunPorts) -> None:
    with start_run(w.owner, ports=ports) as outer:
        assert active_run() is outer
        with outer.child() as inner:
            assert active_run() is inner
        assert active_run() is outer
        activate(outer)
    assert active_run() is None


def test_a_run_that_ended_is_taken_up_again_and_goes_on_where_it_was(
    w: World, ports: RunPorts
) -> None:
    with start_run(w.owner, RunDraft(params={"depth": 3}), ports=ports) as run:
        run.log_metrics({"loss": 3.0})
        run.log_metrics({"loss": 2.0})
    assert [] == spools(ports), "the old spool is gone"

    with resume_run(w.owner, f"run:{run.id}", ports=ports) as again:
        assert RunStatus.RUNNING is show(w, run).run.status
        again.log_metric("loss", 1.0)
        again.log_params({"width": 5})
        with pytest.raises(Conflict):
            again.log_params({"depth": 4})

    found = history(w, run.id, "loss")
    assert ((0, 1, 2), (3.0, 2.0, 1.0)) == (found.steps, found.values)
    details = show(w, run)
    assert (RunStatus.FINISHED, {"depth": "3", "width": "5"}) == (
        details.run.status, details.run.params,
    )  # fmt: skip
    assert [] == spools(ports)


def test_a_killed_run_is_taken_up_with_what_its_spool_still_held(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)
    run = start_run(line, ports=ports)
    line.is_cut = True
    for value in (3.0, 2.0):
        run.log_metric("loss", value)
    die(run)

    line.is_cut = False
    with resume_run(line, run.id, ports=ports) as again:
        again.log_metric("loss", 1.0)

    assert (3.0, 2.0, 1.0) == history(w, run.id, "loss").values
    assert (0, 1, 2) == history(w, run.id, "loss").steps
    assert [] == spools(ports)


def test_a_run_is_taken_up_while_the_server_is_away(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)
    line.is_cut = True
    run = start_run(line, RunDraft(experiment="night", params={"a": 1}), ports=ports)
    run.log_metric("loss", 3.0)
    die(run)

    again = resume_run(line, run.id, ports=ports)
    again.log_metric("loss", 2.0)
    with pytest.raises(Conflict):
        again.log_params({"a": 2})
    assert "night" == again.experiment
    die(again)
    last = resume_run(line, run.id, ports=ports)
    last.log_metric("loss", 1.0)
    assert not last.finish()
    assert 3 == len(spools(ports))

    line.is_cut = False
    assert ports.spool is not None
    report = sync_spool(ports.spool, line)

    assert [1, 1, 1] == [item.points for item in report.items]
    assert (3.0, 2.0, 1.0) == history(w, run.id, "loss").values
    assert (0, 1, 2) == history(w, run.id, "loss").steps
    assert RunStatus.FINISHED is show(w, run).run.status


def test_the_end_of_a_killed_process_is_not_the_end_of_who_took_its_run_up(
    w: World, ports: RunPorts
) -> None:
    line = Line(w.owner)
    run = start_run(line, ports=ports)
    die(run)
    line.is_cut = True
    again = resume_run(line, run.id, ports=ports)
    line.is_cut = False

    assert ports.spool is not None
    sync_spool(ports.spool, line)

    assert RunStatus.RUNNING is show(w, run).run.status
    again.log_metric("loss", 1.0)
    assert again.finish()
    assert (1.0,) == history(w, run.id, "loss").values


def test_shipping_a_resumed_spool_again_does_not_reopen_its_run(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)
    with start_run(line, ports=ports) as run:
        pass
    again = resume_run(line, run.id, ports=ports)
    again.log_metric("loss", 1.0)
    again.flush()
    again._shipment.ship()
    kept = again._spool.path.read_bytes()
    again.finish()
    again._spool.path.write_bytes(kept)

    assert ports.spool is not None
    w.owner.perform("run.finish", FinishRun(run=run.id, status=RunStatus.FINISHED), RunFinished)
    sync_spool(ports.spool, line)

    assert 1 == len(history(w, run.id, "loss").values)
    assert RunStatus.RUNNING is not show(w, run).run.status


def test_an_unknown_run_and_one_in_the_trash_are_not_taken_up(w: World, ports: RunPorts) -> None:
    with start_run(w.owner, ports=ports) as run:
        pass
    w.owner.perform("run.delete", RunNamed(run=run.id), RunShown)

    with pytest.raises(NotFound):
        resume_run(w.owner, "01900000-0000-7000-8000-000000000000", ports=ports)
    with pytest.raises(Conflict, match="trash"):
        resume_run(w.owner, run.id, ports=ports)

    assert [] == spools(ports)


def test_a_full_disk_holds_points_in_memory_until_there_is_room(w: World, ports: RunPorts) -> None:
    line = Line(w.owner)
    run = start_run(line, ports=ports)
    line.is_cut = True
    run.log_metric("loss", 0)
    run.flush()
    size = spools(ports)[0].stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        for value in range(1, 50):
            run.log_metric("loss", value)
            run.flush()
        with pytest.raises(Unavailable):
            run.log_artifact(b"x" * 100_000, "weights.bin")
        assert size == spools(ports)[0].stat().st_size, "nothing half written"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line.is_cut = False

    assert run.finish()
    assert tuple(map(float, range(50))) == history(w, run.id, "loss").values


def test_a_spool_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(
    w: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    with start_run(w.owner, ports=RunPorts(spool=tmp_path / "file" / "spool")) as run:
        run.log_metric("loss", 1)
        assert run.folder.is_relative_to(tmp_path / "temporary")

    assert (1.0,) == history(w, run.id, "loss").values
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file" / "none"))
    with pytest.raises(Unavailable) as refused:
        start_run(w.owner, ports=RunPorts(spool=tmp_path / "file" / "spool"))
    assert "spool.unwritable" == refused.value.code


def test_a_clock_that_is_set_back_changes_no_order_and_no_end_before_the_start(
    w: World, ports: RunPorts
) -> None:
    clock = world().clock
    clock.push(days=300)
    run = start_run(w.owner, ports=msgspec.structs.replace(ports, clock=clock))
    run.log_metric("loss", 1)
    clock.push(days=-299)
    run.log_metric("loss", 2)
    run.finish()

    details = show(w, run)
    assert (1.0, 2.0) == history(w, run.id, "loss").values
    assert details.run.ended_at is not None
    assert details.run.started_at <= details.run.ended_at <= w.clock.now()


def test_the_files_of_a_folder_are_kept_below_a_path_or_at_the_top(
    w: World, ports: RunPorts, tmp_path: Path
) -> None:
    folder = tmp_path / "plots"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")

    with start_run(w.owner, ports=ports) as run:
        run.log_artifacts(folder)
        run.log_artifacts(folder, "all/of")
        run.log_text("c", "c.txt")

    assert 5 == show(w, run).artifacts


def test_texts_and_numbers_of_numpy_are_kept_as_those_of_python(w: World, ports: RunPorts) -> None:
    name = np.str_("auc")

    with start_run(w.owner, RunDraft(params={"model": np.str_("xgb")}), ports=ports) as run:
        run.log_metric(name, np.float32(0.5))
        run.log_metric("auc", 0.75)
        run.log_params({"lr": np.float64(0.1), "n": np.int64(3), "on": np.bool_(True)})  # type: ignore[dict-item]
        run.set_tags({np.str_("kind"): np.str_("first")})
        run.log_artifact(b"x", np.str_("x.bin"))

    found = show(w, run)
    assert {"model": "xgb", "lr": "0.1", "n": "3", "on": "True"} == found.run.params
    assert {"kind": "first"} == found.run.tags
    assert (0.5, 0.75) == history(w, run.id, "auc").values
    assert 1 == found.artifacts


@pytest.mark.parametrize(
    "wrong",
    [
        lambda run: run.log_metric("loss", 1, at=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda run: run.log_metric("loss", 1, at=1_700_000_000),
        lambda run: run.log_input(5),
        lambda run: run.log_input("\udcff"),
        lambda run: run.set_tags({"fold": 3}),
        lambda run: run.set_tags({f"t{i}": "" for i in range(MAX_PARAMS_A_RUN + 1)}),
        lambda run: run.log_params({f"p{i}": "" for i in range(MAX_PARAMS_A_RUN + 1)}),
    ],
)
def test_what_cannot_be_kept_is_refused_at_the_call_and_costs_nothing_else(
    w: World, ports: RunPorts, wrong: Callable[[RunHandle], None]
) -> None:
    with start_run(w.owner, ports=ports) as run:
        run.log_metric("before", 1)
        with pytest.raises((InvalidInput, LimitExceeded)):
            wrong(run)
        run.log_metric("after", 1)

    found = show(w, run)
    assert RunStatus.FINISHED is found.run.status
    assert {"before", "after"} == {metric.key for metric in found.metrics}


def test_a_frame_that_cannot_be_written_costs_no_other_one(w: World, ports: RunPorts) -> None:
    with start_run(w.owner, ports=ports) as run:
        run.log_metric("loss", 1)
        run._push(Read(dataset_version=object()))  # type: ignore[arg-type]
        run.log_metric("loss", 2)
        run.flush()

    assert (1.0, 2.0) == history(w, run.id, "loss").values
    assert 1 == run._writer.lost


def test_a_failure_in_words_that_are_no_unicode_ends_the_run_and_is_not_hidden(
    w: World, ports: RunPorts
) -> None:
    with pytest.raises(ValueError, match="no such file"), start_run(w.owner, ports=ports) as run:
        raise ValueError("no such file: \udcff")

    found = show(w, run).run
    assert (RunStatus.FAILED, "ValueError: no such file: \\udcff") == (found.status, found.error)


def test_more_points_than_a_batch_holds_arrive_when_the_disk_takes_them_again(
    w: World, ports: RunPorts
) -> None:
    line = Line(w.owner)
    run = start_run(line, ports=ports)
    line.is_cut = True
    count = MAX_POINTS_A_BATCH + 10
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        for _ in range(count):
            run.log_metric("loss", 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line.is_cut = False

    assert run.finish()
    (found,) = show(w, run).metrics
    assert (count, count - 1) == (found.count, found.last_step)


def test_parameters_and_tags_of_many_megabytes_go_in_several_requests(
    w: World, ports: RunPorts
) -> None:
    line = Line(w.owner)
    run = start_run(line, ports=ports)
    line.is_cut = True
    run.log_params({f"p{i}": "\x1f" * 5_000 for i in range(400)})
    run.set_tags({f"t{i}": "\x1f" * 8_000 for i in range(400)})
    line.is_cut = False

    assert run.finish()
    assert len([verb for verb in line.verbs if verb == "run.log"]) >= 4
    found = show(w, run).run
    assert (400, 400) == (len(found.params), len(found.tags))


def test_a_forked_child_that_exits_does_not_end_the_run_of_its_parent(
    w: World, ports: RunPorts
) -> None:
    run = start_run(w.owner, ports=ports)
    run.log_metric("loss", 1)
    run.flush()
    child = os.fork()
    if child == 0:
        run.log_metric("loss", 2)
        run.finish()
        os._exit(0)
    os.waitpid(child, 0)
    run._shipment.ship()

    assert RunStatus.RUNNING is show(w, run).run.status
    run.log_metric("loss", 3)
    assert run.finish()
    assert (1.0, 2.0, 3.0) == history(w, run.id, "loss").values


def test_a_fork_while_the_spool_is_written_does_not_stop_the_child(
    w: World, ports: RunPorts
) -> None:
    run = start_run(w.owner, ports=ports)
    with run._spool._lock:  # as a thread of the parent holds it for each write
        child = os.fork()
        if child == 0:
            run.log_metric("loss", 1)
            writing = threading.Thread(target=run.flush, daemon=True)
            writing.start()
            writing.join(10)
            os._exit(writing.is_alive())

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert run.finish()
    assert (1.0,) == history(w, run.id, "loss").values


def test_a_spool_that_cannot_be_read_to_its_end_stays(w: World, ports: RunPorts) -> None:
    run = start_run(w.owner, ports=ports)
    run.log_metric("loss", 1)
    run.flush()
    run._spool.append(b"\x01\x00\x00\x00 no frame")

    assert not run.finish()
    assert 1 == len(spools(ports))


def test_points_of_a_signal_handler_and_those_that_it_interrupts_are_all_kept(
    w: World, ports: RunPorts
) -> None:
    run = start_run(w.owner, ports=ports)
    taken, is_inside = 0, False

    def take(number: int, frame: object) -> None:
        nonlocal taken, is_inside
        if is_inside:  # on a busy machine the next signal comes before this one is through
            return
        is_inside = True
        run.log_metric("signals", taken)
        taken += 1
        is_inside = False

    before = signal.signal(signal.SIGALRM, take)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while taken < 200:
            run.log_metric("loop", 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    steps = run._series["loop"].next_step

    assert run.finish()
    assert {"loop": steps, "signals": taken} == {m.key: m.count for m in show(w, run).metrics}

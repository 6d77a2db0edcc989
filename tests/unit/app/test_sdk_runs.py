"""Plain functions log to the active run, as people of other trackers expect it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import everloop
from everloop.app import sdk, tracking
from everloop.app.client import Client
from everloop.app.home import Home
from everloop.core.errors import InvalidInput
from everloop.track import RunStatus
from everloop.track.queries import ReadHistory, RunDetails, RunHistory, ShowRun
from tests.kit import World, world


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture(autouse=True)
def connected(w: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EVERLOOP_SYSTEM_METRICS", "off")
    sdk.use(Client(w.owner, home=Home(tmp_path / ".everloop")))
    yield
    sdk.use(None)


def show(w: World, run: str) -> RunDetails:
    return w.owner.perform("run.show", ShowRun(run=run), RunDetails)


def values(w: World, run: str, key: str) -> tuple[float | str, ...]:
    ask = ReadHistory(run=run, key=key, max_points=0)
    return w.owner.perform("run.history", ask, RunHistory).values


def test_plain_functions_log_to_the_run_that_was_started_last(w: World) -> None:
    run = everloop.start_run("plain")
    everloop.log_metric("loss", 2.0)
    everloop.log_metrics({"loss": 1.0}, step=5)
    everloop.log_params({"depth": 3})
    everloop.set_tags({"team": "blue"})
    everloop.log_artifact(b"x", "x.txt")
    with everloop.start_run(nested=True, name="fold") as fold:
        everloop.log_metric("loss", 9.0)
    everloop.log_metric("loss", 0.5)
    run.finish()

    details = show(w, run.id)
    assert (2.0, 1.0, 0.5) == values(w, run.id, "loss")
    assert ("3", "blue", 1, "plain") == (
        details.run.params["depth"], details.run.tags["team"], details.artifacts,
        details.experiment,
    )  # fmt: skip
    child = show(w, fold.id)
    assert (run.id, "plain") == (child.run.parent, child.experiment)
    assert (9.0,) == values(w, fold.id, "loss")


def test_without_an_active_run_they_say_how_to_begin_one() -> None:
    with pytest.raises(InvalidInput, match="no active run") as refused:
        everloop.log_metric("loss", 1)

    assert "start_run" in refused.value.hint


def test_a_thread_logs_to_the_run_of_the_process_unless_it_has_its_own(w: World) -> None:
    own: list[str] = []

    def work() -> None:
        everloop.log_metric("from thread", 1)
        with everloop.start_run() as mine:
            own.append(mine.id)
            everloop.log_metric("own", 2)

    with everloop.start_run() as run:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    assert (1.0,) == values(w, run.id, "from thread")
    assert (2.0,) == values(w, own[0], "own")


def test_a_run_is_taken_up_again_by_its_id(w: World) -> None:
    with everloop.start_run(params={"a": 1}) as run:
        everloop.log_metric("loss", 2.0)

    with everloop.start_run(resume=run.id, tags={"again": "yes"}) as again:
        everloop.log_metric("loss", 1.0)

    details = show(w, run.id)
    assert again.id == run.id
    assert (2.0, 1.0) == values(w, run.id, "loss")
    assert (RunStatus.FINISHED, "yes") == (details.run.status, details.run.tags["again"])


def test_current_run_is_the_active_one_outside_a_pipeline(w: World) -> None:
    with everloop.start_run() as run:
        everloop.current_run().log_metric("loss", 1.0)
    everloop.current_run().log_metric("forgotten", 1.0)

    assert ["loss"] == [metric.key for metric in show(w, run.id).metrics]


@pytest.mark.parametrize(
    ("told", "wanted", "seconds"),
    [
        ("", None, 10.0), ("off", None, None), ("0", None, None), ("off", True, 10.0),
        ("30", None, 30.0), ("30", False, None), ("on", None, 10.0), ("0.001", None, 0.1),
    ],
)  # fmt: skip
def test_sampling_is_switched_by_the_call_before_the_variable(
    monkeypatch: pytest.MonkeyPatch, told: str, wanted: bool | None, seconds: float | None
) -> None:
    monkeypatch.setenv("EVERLOOP_SYSTEM_METRICS", told)

    assert seconds == tracking._sample_every_s(wanted)


def test_a_variable_that_says_nothing_clear_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_SYSTEM_METRICS", "sometimes")

    with pytest.raises(InvalidInput, match="sometimes"):
        everloop.start_run()

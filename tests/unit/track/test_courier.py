"""A run waits for a server that hangs no longer than it is told to, and loses nothing by it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from everloop.kernel.performer import Performer
from everloop.track import RunPorts, RunStatus, start_run, sync_spool
from everloop.track.courier import Courier
from everloop.track.queries import RunDetails, ShowRun
from tests.kit import World, world
from tests.unit.track.test_handle import Line

A = TypeVar("A", bound=msgspec.Struct)


class Hanging(Line):
    """A server that takes requests and answers none, until it is let go."""

    def __init__(self, inner: Performer) -> None:
        super().__init__(inner)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_asked = threading.Event()

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        self.is_asked.set()
        self.goes_on.wait(60)
        return super().perform(verb, ask, answer, request=request, reason=reason)


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def ports(tmp_path: Path) -> RunPorts:
    return RunPorts(spool=tmp_path / "spool", patience_s=0.3)


@pytest.fixture
def line(w: World) -> Iterator[Hanging]:
    line = Hanging(w.owner)
    yield line
    line.goes_on.set()


def status(w: World, run: str) -> RunStatus:
    return w.owner.perform("run.show", ShowRun(run=run), RunDetails).run.status


def test_the_end_of_a_run_does_not_wait_for_a_server_that_hangs(
    w: World, ports: RunPorts, line: Hanging
) -> None:
    run = start_run(line, ports=ports)
    run.log_metric("loss", 1)
    line.goes_on.clear()

    assert not run.finish()
    assert RunStatus.RUNNING is status(w, run.id)

    line.goes_on.set()
    assert ports.spool is not None
    report = sync_spool(ports.spool, w.owner)
    assert 0 == report.waiting
    assert RunStatus.FINISHED is status(w, run.id)


def test_a_run_begins_while_the_server_hangs(w: World, ports: RunPorts, line: Hanging) -> None:
    line.goes_on.clear()

    run = start_run(line, ports=ports)
    run.log_metric("loss", 1)

    line.goes_on.set()
    assert run.finish()
    assert RunStatus.FINISHED is status(w, run.id)


def test_who_presses_ctrl_c_at_the_end_goes_at_once_and_finds_all_in_the_spool(
    w: World, ports: RunPorts, line: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(line, ports=ports)
    run.log_metric("loss", 1)

    def press(_: Courier) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Courier, "stop", press)
    with pytest.raises(KeyboardInterrupt):
        run.finish()

    assert ports.spool is not None
    (shipped,) = sync_spool(ports.spool, w.owner).items
    assert (1, RunStatus.FINISHED) == (shipped.points, shipped.status)


def test_a_server_that_is_slow_but_answers_is_waited_for(
    w: World, ports: RunPorts, line: Hanging
) -> None:
    run = start_run(line, ports=ports)
    run.log_metric("loss", 1)
    line.goes_on.clear()
    line.is_asked.clear()

    moves = iter(range(1_000))

    def progress() -> tuple[int, int]:
        count = next(moves)
        if count > 3:  # longer than its patience, but something moved each time
            line.goes_on.set()
        return count, 0

    run._shipment.progress = progress  # type: ignore[method-assign]
    assert run.finish()
    assert RunStatus.FINISHED is status(w, run.id)

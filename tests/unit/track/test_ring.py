"""What a run logged survives ``kill -9`` in the very next moment, once and in order."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop.core.errors import Unavailable
from everloop.track import RunHandle, RunPorts, RunStatus, ring, start_run, sync_spool
from everloop.track.queries import ReadHistory, RunDetails, RunHistory, ShowRun
from everloop.track.spool import Spool
from tests.kit import World, world
from tests.unit.track.test_handle import Line

pytestmark = pytest.mark.skipif(
    not ring.MEMORY_FOLDER.is_dir(), reason="this system has no memory file system"
)


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def ports(tmp_path: Path) -> RunPorts:
    return RunPorts(spool=tmp_path / "spool")


def kill_while_logging(w: World, ports: RunPorts, log: Callable[[RunHandle], None]) -> Path:
    """Let a process log and be killed before anything of it can be flushed or shipped."""
    child = os.fork()
    if child == 0:
        try:
            line = Line(w.owner)
            line.is_cut = True
            run = start_run(line, ports=ports)
            setattr(run._writer, "_arouse", lambda: None)  # noqa: B010 -- no thread may help
            log(run)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert signal.SIGKILL == os.WTERMSIG(status)
    assert ports.spool is not None
    (spool,) = ports.spool.glob("*.spool")
    return spool


def values(w: World, ports: RunPorts, run: str, key: str) -> list[object]:
    assert ports.spool is not None
    sync_spool(ports.spool, w.owner)
    ask = ReadHistory(run=run, key=key, max_points=0)
    return list(w.owner.perform("run.history", ask, RunHistory).values)


def rings() -> set[str]:
    return {path.name for path in ring.MEMORY_FOLDER.glob("everloop-*.ring")}


def test_every_point_survives_a_kill(w: World, ports: RunPorts) -> None:
    def log(run: RunHandle) -> None:
        run.log_params({"depth": 3})
        for value in range(1_000):
            run.log_metric("loss", value)
            run.log_metric("other", -value)

    spool = kill_while_logging(w, ports, log)

    assert [float(value) for value in range(1_000)] == values(w, ports, spool.stem, "loss")
    assert [float(-value) for value in range(1_000)] == values(w, ports, spool.stem, "other")
    shown = w.owner.perform("run.show", ShowRun(run=spool.stem), RunDetails)
    assert ({"depth": "3"}, RunStatus.KILLED) == (shown.run.params, shown.run.status)
    assert f"everloop-{spool.stem}.ring" not in rings(), "its memory is free again"


def test_a_loop_that_fills_the_ring_again_and_again_keeps_all_in_order(
    w: World, ports: RunPorts
) -> None:
    count = 2 * ring.SLOTS + 4_321

    def log(run: RunHandle) -> None:
        for value in range(count):
            run.log_metric("loss", value)

    spool = kill_while_logging(w, ports, log)

    assert list(map(float, range(count))) == values(w, ports, spool.stem, "loss")


def test_a_recovery_that_is_killed_too_is_done_again_without_doubling_a_point(
    w: World, ports: RunPorts
) -> None:
    def log(run: RunHandle) -> None:
        for value in range(5):
            run.log_metric("loss", value)
        run.flush()
        for value in range(5, 10):
            run.log_metric("loss", value)

    spool = kill_while_logging(w, ports, log)
    left = ring.MEMORY_FOLDER / f"everloop-{spool.stem}.ring"
    kept = left.read_bytes()
    Spool(spool).close()
    assert not left.exists()
    left.write_bytes(kept)

    assert list(map(float, range(10))) == values(w, ports, spool.stem, "loss")


def test_points_survive_a_kill_while_the_disk_is_full(w: World, ports: RunPorts) -> None:
    def log(run: RunHandle) -> None:
        run.log_metric("loss", 0)
        run.flush()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (run._spool.path.stat().st_size + 10, hard))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for value in range(1, 50):
            run.log_metric("loss", value)
        run.flush()
        with pytest.raises(Unavailable):
            run.log_artifact(b"x" * 100_000, "weights.bin")

    spool = kill_while_logging(w, ports, log)

    assert list(map(float, range(50))) == values(w, ports, spool.stem, "loss")


def test_without_a_memory_file_system_points_wait_in_the_process(
    w: World, ports: RunPorts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "MEMORY_FOLDER", tmp_path / "none")

    with start_run(w.owner, ports=ports) as run:
        for value in range(ring.SLOTS + 10):
            run.log_metric("loss", value)

    assert list(map(float, range(ring.SLOTS + 10))) == values(w, ports, run.id, "loss")


def test_a_ring_that_another_user_put_there_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / f"{tmp_path.name}.spool")
    made = ring.Ring(spool.path)
    made.writer()(0, 1, 2.0, 3.0, 0)
    try:
        if os.geteuid() == 0:
            os.chown(made.path, 65_534, 65_534)
            assert ring.Leftover.of(spool.path) is None
            os.chown(made.path, 0, 0)
        found = ring.Leftover.of(spool.path)
        assert found is not None
        points = found.points(0, {0: "loss"})
        assert points is not None
        assert (1, {0: "loss"}) == (points.upto, points.keys)
        assert found.points(0, {}) is None, "a metric without a name is nobody's"
    finally:
        made.remove()
        spool.close()


def test_rings_that_nobody_shipped_for_an_hour_are_brought_to_their_spools(
    w: World, ports: RunPorts, tmp_path: Path
) -> None:
    spool = kill_while_logging(w, ports, lambda run: run.log_metric("loss", 1))
    left = ring.MEMORY_FOLDER / f"everloop-{spool.stem}.ring"
    gone = ring.Ring(tmp_path / f"gone-{os.getpid()}.spool")
    assert spool not in ring.stale_spools(), "it is too young"

    for path in (left, gone.path):
        os.utime(path, (1, 1))
    found = ring.stale_spools()

    assert spool in found
    assert not gone.path.exists(), "it has no spool any more"
    left.unlink()

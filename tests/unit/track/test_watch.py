"""What a run finds out by itself: its surroundings at once, the machine now and then."""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.core.digest import parse_digest
from everloop.track import RunHandle, RunPorts, Watching, nvml, resume_run, start_run
from everloop.track.machine import Machine
from everloop.track.queries import ArtifactList, ListArtifacts, RunDetails, ShowRun
from tests.kit import World, world


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("everloop").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("everloop").setLevel(logging.NOTSET)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    root.mkdir()
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    (root / "train.py").write_text("x = 1\n")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run((*git, *words), cwd=root, check=True, capture_output=True)
    (root / "train.py").write_text("x = 2\n")
    return root


def ports(tmp_path: Path, watching: Watching) -> RunPorts:
    return RunPorts(spool=tmp_path / "spool", watching=watching)


def show(w: World, run: RunHandle) -> RunDetails:
    return w.owner.perform("run.show", ShowRun(run=run.id), RunDetails)


def artifacts(w: World, run: RunHandle) -> dict[str, bytes]:
    found = w.owner.perform("run.artifacts", ListArtifacts(run=run.id), ArtifactList).items
    return {item.path: w.blobs.get(parse_digest(item.digest)) for item in found}


def test_the_environment_and_the_patch_arrive_with_the_run(
    w: World, tmp_path: Path, code: Path
) -> None:
    with start_run(w.owner, ports=ports(tmp_path, Watching(root=code))) as run:
        pass

    details = show(w, run)
    assert details.run.environment is not None
    environment = json.loads(w.blobs.get(parse_digest(details.run.environment)))
    assert details.run.code_commit == environment["code"]["commit"]
    assert "random" in environment["seeds"]
    assert b"+x = 2" in artifacts(w, run)["environment/uncommitted.patch"]


def test_a_run_taken_up_again_keeps_its_first_environment_and_adds_the_new_one(
    w: World, tmp_path: Path, code: Path
) -> None:
    watching = Watching(root=code)
    with start_run(w.owner, ports=ports(tmp_path, watching)) as run:
        pass
    first = show(w, run).run.environment
    with resume_run(w.owner, run.id, ports=ports(tmp_path, watching)):
        pass

    assert first == show(w, run).run.environment
    assert 2 == sum(path.endswith(".patch") for path in artifacts(w, run))
    assert 1 == sum(path.endswith(".json") for path in artifacts(w, run))


def test_the_machine_is_logged_beside_the_training(w: World, tmp_path: Path) -> None:
    watching = Watching(every_s=0.01, first_after_s=0.0)
    with start_run(w.owner, ports=ports(tmp_path, watching)) as run:
        deadline = time.monotonic() + 20
        while not show(w, run).metrics and time.monotonic() < deadline:
            time.sleep(0.01)

    found = {metric.key: metric for metric in show(w, run).metrics}
    assert {
        "system/system_memory_usage_percentage", "system/process_memory_megabytes",
        "system/disk_usage_percentage", "system/network_receive_megabytes",
    } <= found.keys()  # fmt: skip
    assert found["system/process_memory_megabytes"].last is not None
    assert 0 < found["system/process_memory_megabytes"].last < 100_000


def test_a_run_shorter_than_the_first_look_has_no_system_metrics(w: World, tmp_path: Path) -> None:
    with start_run(w.owner, ports=ports(tmp_path, Watching(every_s=0.01))) as run:
        run.log_metric("loss", 1)

    assert ["loss"] == [metric.key for metric in show(w, run).metrics]


def test_a_busy_processor_shows_between_two_readings(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.read()
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass

    assert 0 < machine.read()["cpu_utilization_percentage"] <= 100


def test_a_watch_that_fails_costs_the_run_nothing(
    w: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: Path) -> None:
        raise RuntimeError(root)

    monkeypatch.setattr("everloop.track.watch._capture", fail)
    with start_run(w.owner, ports=ports(tmp_path, Watching(root=tmp_path))) as run:
        run.log_metric("loss", 1)

    assert 1 == len(show(w, run).metrics)


class Driver:
    """Stands for the driver's library: two cards, of which the second tells no power."""

    def nvmlDeviceGetCount_v2(self, count: object) -> int:  # noqa: N802 -- the driver's names
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = 2  # type: ignore[arg-type]
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, place: int, card: object) -> int:  # noqa: N802
        ctypes.cast(card, ctypes.POINTER(ctypes.c_void_p))[0] = 100 + place  # type: ignore[arg-type]
        return 0

    def nvmlDeviceGetName(self, card: ctypes.c_void_p, name: object, size: int) -> int:  # noqa: N802
        name.value = b"Card %d" % (card.value or 0)  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetMemoryInfo(self, card: object, memory: object) -> int:  # noqa: N802
        words = ctypes.cast(memory, ctypes.POINTER(ctypes.c_ulonglong))  # type: ignore[arg-type]
        words[0], words[1], words[2] = 80_000_000_000, 60_000_000_000, 20_000_000_000
        return 0

    def nvmlDeviceGetUtilizationRates(self, card: object, rates: object) -> int:  # noqa: N802
        ctypes.cast(rates, ctypes.POINTER(ctypes.c_uint))[0] = 75  # type: ignore[arg-type]
        return 0

    def nvmlDeviceGetPowerUsage(self, card: ctypes.c_void_p, power: object) -> int:  # noqa: N802
        ctypes.cast(power, ctypes.POINTER(ctypes.c_uint))[0] = 350_500  # type: ignore[arg-type]
        return 0 if card.value == 100 else 3


def test_cards_tell_name_memory_use_and_power(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nvml, "_open", Driver)

    assert ("Card 100 (80 GB)", "Card 101 (80 GB)") == nvml.list_gpus()
    found = Machine(tmp_path).read()
    assert (75.0, 25.0, 20_000.0, 350.5) == (
        found["gpu_0_utilization_percentage"], found["gpu_1_memory_usage_percentage"],
        found["gpu_0_memory_usage_megabytes"], found["gpu_0_power_usage_watts"],
    )  # fmt: skip
    assert "gpu_1_power_usage_watts" not in found


def test_without_a_driver_there_are_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libthis-is-no-library.so")
    nvml._open.cache_clear()
    try:
        assert ((), ()) == (nvml.list_gpus(), nvml.read_gpus())
    finally:
        nvml._open.cache_clear()

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from everloop.serve.observe.prometheus import GAUGES, expose
from everloop.serve.observe.tally import (
    BUCKETS_S,
    MOST_SERIES,
    OTHER,
    Tally,
    add_up,
    lay_down,
    save_tally,
    take_up,
)
from everloop.serve.reporting import Reporter
from tests.unit.serve.protocols.desk import make_desk


def counted(rows: int, took_us: float = 10.0, version: str = "1.0.0") -> Tally:
    tally = Tally()
    answers = tally.of("bikes", version, "champion")
    answers.rows["ok"] = rows
    answers.scoring.add(took_us)
    tally.replied(200, took_us * 2)
    tally.gauges = {"workers": 1.0}
    return tally


def test_counts_of_all_workers_are_added_up(tmp_path: Path) -> None:
    save_tally(tmp_path, "w1", counted(5))
    save_tally(tmp_path, "w0", counted(100))  # what the asked worker wrote itself is old

    whole = add_up(counted(2), tmp_path, "w0")

    (answers,) = whole.answers.values()
    assert (7, 2, 2.0) == (answers.rows["ok"], whole.replies[200], whole.gauges["workers"])
    assert 2 == sum(answers.scoring.counts)


def test_what_each_worker_has_alike_is_not_added_up(tmp_path: Path) -> None:
    gauges = {"models_resident": 3.0, "bundles_refused": 1.0, "connections": 2.0}
    save_tally(tmp_path, "w1", Tally(gauges=gauges, awaited={"bikes": 2}))

    whole = add_up(Tally(gauges=gauges, awaited={"bikes": 5}), tmp_path, "w0")

    assert {**gauges, "connections": 4.0} == whole.gauges
    assert {"bikes": 7} == whole.awaited


def test_the_health_of_a_server_is_that_of_all_its_workers(tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "log")
    others = tmp_path / "workers"
    others.mkdir()
    save_tally(others, "w1", counted(5))
    Reporter(desk.service, others, "w0")

    predictions = [
        desk.get(path)[1]["predictions"]
        for path in ("/healthz", "/models/bikes/healthz", "/models/plain/healthz")
    ]

    desk.log.close()
    assert [5, 5, 0] == predictions


def test_a_worker_in_a_dead_ones_place_goes_on_from_its_counts(tmp_path: Path) -> None:
    save_tally(tmp_path, "w0", counted(5))

    again = take_up(tmp_path, "w0")

    again.of("bikes", "1.0.0", "champion").rows["ok"] += 1
    assert 6 == again.of("bikes", "1.0.0", "champion").rows["ok"]
    assert {} == again.gauges


def test_workers_that_are_no_more_leave_their_counts_and_nothing_else(tmp_path: Path) -> None:
    gone = counted(5)
    save_tally(tmp_path, "w7", gone)

    lay_down(tmp_path)

    whole = add_up(Tally(gauges={"workers": 1.0}), tmp_path, "w0")
    assert (gone.replies, {"workers": 1.0}) == (whole.replies, whole.gauges)


def test_a_torn_file_of_another_worker_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "w1.tally").write_bytes(b"\x93torn")

    assert 2 == sum(next(iter(add_up(counted(2), tmp_path, "w0").answers.values())).rows.values())


def test_versions_without_end_share_one_series() -> None:
    tally = Tally()
    for number in range(MOST_SERIES + 50):
        tally.of("bikes", f"1.{number}.0", "champion").fallbacks += 1

    assert MOST_SERIES + 1 == len(tally.answers)
    assert 50 == tally.answers[OTHER, OTHER, "champion"].fallbacks


@pytest.mark.parametrize(
    ("took_us", "place"), [(50.0, 0), (50.1, 1), (1e6, 13), (1e9, len(BUCKETS_S))]
)
def test_a_time_counts_in_the_first_bucket_that_holds_it(took_us: float, place: int) -> None:
    tally = Tally()

    tally.replied(200, took_us)

    assert place == tally.requests.counts.index(1)


@pytest.mark.needs_prometheus
def test_what_is_exposed_passes_the_linter_of_prometheus() -> None:
    tally = counted(3)
    tally.of('we"ird\\na\nme', "2.0.0", "canary").unlogged += 1
    promtool = shutil.which("promtool")
    assert promtool is not None

    told = subprocess.run(
        [promtool, "check", "metrics"], input=expose(tally), capture_output=True, check=False
    )

    assert (0, b"") == (told.returncode, told.stderr)


def test_every_metric_stands_in_the_guide() -> None:
    guide = Path("docs/how-to/watch-a-server.md").read_text(encoding="utf-8")
    tally = counted(1)
    tally.gauges = dict.fromkeys(GAUGES, 1.0)
    lines = expose(tally).decode().splitlines()

    names = {line.split(" ")[2] for line in lines if line.startswith("# TYPE")}

    assert 6 + len(GAUGES) == len(names)
    assert set() == {name for name in names if f"`{name}`" not in guide}

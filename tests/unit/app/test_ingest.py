"""Sealing what the serving process logged: every row once, whatever happens in between."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from everloop.app.home import Home
from everloop.app.ingest import LogSource, find_log
from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.monitor.queries import ListPredictions, ListSegments, PredictionList, SegmentList
from tests.kit import World, world

DEPLOYMENT = Id("01a1fdf4-0000-7000-8000-000000000001")
VERSION = Id("01a1fdf4-0000-7000-8000-000000000002")


@pytest.fixture
def here() -> World:
    return world()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / ".everloop").create()
    folder = home.serve("demand")
    (folder / "log").mkdir(parents=True)
    (folder / "deployment.json").write_bytes(
        msgspec.json.encode({"deployment": DEPLOYMENT, "project": "demo"})
    )
    return home


def row(number: int) -> PredictionRow:
    at = datetime(2026, 1, 1, hour=number % 24, tzinfo=UTC)
    return PredictionRow(
        id=Id(f"01a1fdf4-{number:04x}-7000-8000-000000000000"),
        at=at,
        logged_at=at,
        version=VERSION,
        arm=Arm.CHAMPION,
        share=0.0,
        status=Status.OK,
        latency_us=100,
        inputs={"x": float(number)},
        output=1.0,
        epoch=1,
    )


def write(home: Home, name: str, numbers: range, *, torn: bytes = b"") -> None:
    with (home.serve("demand") / "log" / name).open("ab") as file:
        file.write(b"".join(msgspec.json.encode(row(number)) + b"\n" for number in numbers) + torn)


def source(here: World, home: Home) -> LogSource:
    return LogSource(home, here.server)


def sealed(here: World) -> list[str]:
    ask = ListPredictions(deployment=DEPLOYMENT, limit=1000)
    rows = here.server.perform("prediction.list", ask, PredictionList).items
    return sorted(row.id for row in rows)


def ids(numbers: range) -> list[str]:
    return [row(number).id for number in numbers]


def test_every_row_is_sealed_once(here: World, home: Home) -> None:
    log = source(here, home)
    write(home, "w0-00000001.jsonl", range(5))

    first = log.seal(DEPLOYMENT, "demand", None)
    again = log.seal(DEPLOYMENT, "demand", None)
    write(home, "w0-00000001.jsonl", range(5, 8))
    last = log.seal(DEPLOYMENT, "demand", None)

    assert (5, 0, 3) == (first, again, last)
    assert ids(range(8)) == sealed(here)


def test_a_restarted_control_plane_goes_on_where_the_records_say(here: World, home: Home) -> None:
    write(home, "w0-00000001.jsonl", range(5))
    source(here, home).seal(DEPLOYMENT, "demand", None)
    write(home, "w0-00000001.jsonl", range(5, 6))
    write(home, "w0-00000002.jsonl", range(6, 9))

    count = source(here, home).seal(DEPLOYMENT, "demand", None)

    assert 4 == count
    assert ids(range(9)) == sealed(here)


def test_two_sources_that_do_not_know_of_each_other_seal_no_row_twice(
    here: World, home: Home
) -> None:
    one, two = source(here, home), source(here, home)
    write(home, "w0-00000001.jsonl", range(2))
    one.seal(DEPLOYMENT, "demand", None)
    two.seal(DEPLOYMENT, "demand", None)
    write(home, "w0-00000001.jsonl", range(2, 4))

    one.seal(DEPLOYMENT, "demand", None)
    two.seal(DEPLOYMENT, "demand", VERSION)  # other input for the same stretch
    two.seal(DEPLOYMENT, "demand", VERSION)

    assert ids(range(4)) == sealed(here)
    ask = ListSegments(deployment=DEPLOYMENT)
    assert 2 == len(here.server.perform("prediction.segments", ask, SegmentList).items)


def test_a_line_torn_by_a_crash_is_left_out_and_nothing_after_it_is_lost(
    here: World, home: Home
) -> None:
    write(home, "w0-00000001.jsonl", range(3), torn=b'{"id": "01a1')
    write(home, "w0-00000002.jsonl", range(3, 5))
    log = source(here, home)

    assert 5 == log.seal(DEPLOYMENT, "demand", None)
    assert 0 == log.seal(DEPLOYMENT, "demand", None)
    assert ids(range(5)) == sealed(here)


def test_the_log_of_another_deployment_of_that_name_is_not_touched(home: Home) -> None:
    other = Id("01a1fdf4-0000-7000-8000-00000000000f")

    assert find_log(home, other, "demand") is None
    assert find_log(home, DEPLOYMENT, "demand") == home.serve("demand") / "log"


def test_a_folder_that_does_not_say_whose_it_is_stops_the_sealing(here: World, home: Home) -> None:
    (home.serve("demand") / "deployment.json").write_text("{")

    with pytest.raises(IntegrityError):
        source(here, home).seal(DEPLOYMENT, "demand", None)

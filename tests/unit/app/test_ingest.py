"""Sealing what the serving process logged: every row once, whatever happens in between."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from everloop.app import ingest
from everloop.app.home import Home
from everloop.app.ingest import LogSource, find_log
from everloop.core.errors import IntegrityError
from everloop.core.events import Event
from everloop.core.ids import Id
from everloop.core.wire import Arm, Label
from everloop.monitor.feedback import CountWaiting, WaitingCount
from everloop.monitor.queries import (
    FeedbackList,
    ListFeedback,
    ListPredictions,
    ListSegments,
    MonitorView,
    PredictionList,
    PredictionView,
    SegmentList,
    ShowMonitor,
    ShowPrediction,
)
from everloop.serve.feedback import FOLDER, FeedbackLog, read_refused
from everloop.serve.log import Block, LogWriter, Source, list_files
from everloop.serve.log.file import HEADER_BYTES
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


SOURCE = Source(version=VERSION, arm=Arm.CHAMPION, share=0.0, epoch=1, names=("x",))


def id_of(number: int) -> Id:
    return Id(f"01a1fdf4-{number:04x}-7000-8000-000000000000")


def write(writer: LogWriter, numbers: range) -> None:
    at_us = 1_767_225_600_000_000
    for number in numbers:
        writer.append(
            Block(
                source=SOURCE,
                first=uuid.UUID(id_of(number)).bytes,
                rows=1,
                at_us=at_us + number,
                logged_us=at_us + number,
                latency_us=100,
                values=((float(number),),),
                outputs=(1.0,),
            )
        )


def log_of(home: Home) -> Path:
    return home.serve("demand") / "log"


@pytest.fixture
def writer(home: Home) -> Iterator[LogWriter]:
    with closing(LogWriter(log_of(home))) as made:
        yield made


def source(here: World, home: Home) -> LogSource:
    return LogSource(home, here.server)


def sealed(here: World) -> list[str]:
    ask = ListPredictions(deployment=DEPLOYMENT, limit=1000)
    rows = here.server.perform("prediction.list", ask, PredictionList).items
    return sorted(row.id for row in rows)


def ids(numbers: range) -> list[str]:
    return [id_of(number) for number in numbers]


def test_every_row_is_sealed_once(here: World, home: Home, writer: LogWriter) -> None:
    log = source(here, home)
    write(writer, range(5))

    first = log.seal(DEPLOYMENT, "demand", None)
    again = log.seal(DEPLOYMENT, "demand", None)
    write(writer, range(5, 8))
    last = log.seal(DEPLOYMENT, "demand", None)

    assert (5, 0, 3) == (first, again, last)
    assert ids(range(8)) == sealed(here)


def test_a_restarted_control_plane_goes_on_where_the_records_say(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(5))
    source(here, home).seal(DEPLOYMENT, "demand", None)
    write(writer, range(5, 6))
    with closing(LogWriter(log_of(home), "w1")) as other:
        write(other, range(6, 9))

    count = source(here, home).seal(DEPLOYMENT, "demand", None)

    assert 4 == count
    assert ids(range(9)) == sealed(here)


def test_two_sources_that_do_not_know_of_each_other_seal_no_row_twice(
    here: World, home: Home, writer: LogWriter
) -> None:
    one, two = source(here, home), source(here, home)
    write(writer, range(2))
    one.seal(DEPLOYMENT, "demand", None)
    two.seal(DEPLOYMENT, "demand", None)
    write(writer, range(2, 4))

    one.seal(DEPLOYMENT, "demand", None)
    two.seal(DEPLOYMENT, "demand", VERSION)  # other input for the same stretch
    two.seal(DEPLOYMENT, "demand", VERSION)

    assert ids(range(4)) == sealed(here)
    ask = ListSegments(deployment=DEPLOYMENT)
    assert 2 == len(here.server.perform("prediction.segments", ask, SegmentList).items)


def test_a_file_goes_when_its_writer_has_gone_and_all_of_it_is_sealed(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    log = source(here, home)
    assert 3 == log.seal(DEPLOYMENT, "demand", None)
    assert 1 == len(list_files(log_of(home)))  # more may come

    writer.close()
    assert 0 == log.seal(DEPLOYMENT, "demand", None)

    assert [] == list_files(log_of(home))
    assert ids(range(3)) == sealed(here)


def test_a_damaged_file_does_not_keep_the_others_from_being_sealed(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    writer.sync()
    with closing(LogWriter(log_of(home), "w1")) as other:
        write(other, range(3, 5))
    damaged = log_of(home) / list_files(log_of(home))[0].name
    with damaged.open("r+b") as file:
        file.seek(HEADER_BYTES + 20)
        file.write(b"\xff")

    with pytest.raises(IntegrityError):
        source(here, home).seal(DEPLOYMENT, "demand", None)

    assert ids(range(3, 5)) == sealed(here)
    assert damaged.exists()


def test_what_the_log_had_no_space_for_is_counted_in_the_records(here: World, home: Home) -> None:
    with closing(LogWriter(log_of(home), file_bytes=5_000, max_bytes=11_000)) as writer:
        write(writer, range(400))
        assert writer.dropped > 0
        source(here, home).seal(DEPLOYMENT, "demand", None)  # and what is full is deleted
        writer.sync()
        source(here, home).seal(DEPLOYMENT, "demand", None)
        writer.try_again()
        write(writer, range(400, 401))
    source(here, home).seal(DEPLOYMENT, "demand", None)

    tally = here.server.perform("monitor.show", ShowMonitor(deployment=DEPLOYMENT), MonitorView)
    assert 401 == tally.predictions + tally.dropped
    assert writer.dropped == tally.dropped


def take(home: Home, *labels: Label) -> None:
    log = FeedbackLog(log_of(home) / FOLDER)
    asyncio.run(log.keep(labels))
    log.close()


def label_of(here: World, number: int) -> float | None:
    return here.server.perform(
        "prediction.show", ShowPrediction(id=id_of(number)), PredictionView
    ).label


def test_labels_that_a_server_took_are_joined_with_what_it_answered(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    take(home, Label(prediction=id_of(1), value=7.0))

    source(here, home).seal(DEPLOYMENT, "demand", None)

    assert [None, 7.0, None] == [label_of(here, number) for number in range(3)]


def test_a_label_that_comes_before_its_prediction_is_sealed_waits_for_it(
    here: World, home: Home, writer: LogWriter
) -> None:
    log = source(here, home)
    take(home, Label(prediction=id_of(1), value=7.0))
    log.seal(DEPLOYMENT, "demand", None)
    count = here.server.perform("feedback.waiting", CountWaiting(), WaitingCount)
    write(writer, range(3))

    log.seal(DEPLOYMENT, "demand", None)

    assert 1 == count.labels
    assert 7.0 == label_of(here, 1)
    assert 0 == here.server.perform("feedback.waiting", CountWaiting(), WaitingCount).labels


def test_labels_that_are_read_again_after_a_crash_count_once(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    kept = FeedbackLog(log_of(home) / FOLDER)
    asyncio.run(kept.keep([Label(prediction=id_of(1), value=7.0)]))
    source(here, home).seal(DEPLOYMENT, "demand", None)
    asyncio.run(kept.keep([Label(prediction=id_of(1), value=8.0)]))

    source(here, home).seal(DEPLOYMENT, "demand", None)
    source(here, home).seal(DEPLOYMENT, "demand", None)

    assert 8.0 == label_of(here, 1)
    ask = ListFeedback(deployment=DEPLOYMENT)
    batches = here.server.perform("feedback.list", ask, FeedbackList).items
    assert [(1, 0), (0, 1)] == [(batch.fresh, batch.corrected) for batch in batches]


def test_the_server_learns_how_many_labels_could_not_be_used(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    take(home, Label(prediction=id_of(1), value="many"))

    source(here, home).seal(DEPLOYMENT, "demand", None)

    assert {"not_a_number": 1} == read_refused(home.serve("demand"))


def test_refused_labels_are_not_counted_anew_by_a_restarted_control_plane(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    kept = FeedbackLog(log_of(home) / FOLDER)
    asyncio.run(kept.keep([Label(prediction=id_of(1), value="many")]))
    source(here, home).seal(DEPLOYMENT, "demand", None)
    asyncio.run(kept.keep([Label(prediction=id_of(2), value="few")]))

    source(here, home).seal(DEPLOYMENT, "demand", None)
    source(here, home).seal(DEPLOYMENT, "demand", None)

    kept.close()
    assert {"not_a_number": 2} == read_refused(home.serve("demand"))


def test_refused_labels_count_once_when_the_control_plane_dies_before_it_notes_them(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    kept = FeedbackLog(log_of(home) / FOLDER)
    asyncio.run(kept.keep([Label(prediction=id_of(1), value="many")]))
    deaths = iter([True])

    def die(event: Event) -> None:  # after the commit, before anything else
        if event.verb == "feedback.add" and next(deaths, False):
            raise SystemExit

    here.kernel.subscribe(die)
    with pytest.raises(SystemExit):
        source(here, home).seal(DEPLOYMENT, "demand", None)
    asyncio.run(kept.keep([Label(prediction=id_of(2), value="few")]))
    kept.close()

    source(here, home).seal(DEPLOYMENT, "demand", None)

    assert {"not_a_number": 2} == read_refused(home.serve("demand"))
    assert [] == list_files(log_of(home) / FOLDER)


def test_a_control_plane_that_takes_turns_with_another_counts_refused_labels_once(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    kept = FeedbackLog(log_of(home) / FOLDER)
    one, two = source(here, home), source(here, home)
    for number, log in enumerate([one, two, one]):
        asyncio.run(kept.keep([Label(prediction=id_of(number), value="many")]))
        log.seal(DEPLOYMENT, "demand", None)
    kept.close()

    source(here, home).seal(DEPLOYMENT, "demand", None)

    assert {"not_a_number": 3} == read_refused(home.serve("demand"))


def test_the_files_of_servers_that_have_gone_are_deleted_when_their_labels_are_taken(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    take(home, Label(prediction=id_of(1), value=7.0))
    assert 1 == len(list_files(log_of(home) / FOLDER))

    source(here, home).seal(DEPLOYMENT, "demand", None)

    assert [] == list_files(log_of(home) / FOLDER)


def test_a_damaged_file_of_labels_does_not_keep_back_the_others(
    here: World, home: Home, writer: LogWriter
) -> None:
    write(writer, range(3))
    take(home, Label(prediction=id_of(0), value=5.0))
    damaged = log_of(home) / FOLDER / list_files(log_of(home) / FOLDER)[0].name
    with damaged.open("r+b") as file:
        file.seek(HEADER_BYTES + 20)
        file.write(b"\xff")
    take(home, Label(prediction=id_of(1), value=7.0))

    with pytest.raises(IntegrityError):
        source(here, home).seal(DEPLOYMENT, "demand", None)

    assert [None, 7.0] == [label_of(here, number) for number in range(2)]
    assert damaged.exists()


def test_the_log_of_another_deployment_of_that_name_is_not_touched(home: Home) -> None:
    other = Id("01a1fdf4-0000-7000-8000-00000000000f")

    assert find_log(home, other, "demand") is None
    assert find_log(home, DEPLOYMENT, "demand") == home.serve("demand") / "log"


def test_a_folder_that_does_not_say_whose_it_is_stops_the_sealing(here: World, home: Home) -> None:
    (home.serve("demand") / "deployment.json").write_text("{")

    with pytest.raises(IntegrityError):
        source(here, home).seal(DEPLOYMENT, "demand", None)


def test_answers_are_gathered_into_few_segments_unless_a_release_waits_for_them(
    here: World, home: Home, writer: LogWriter
) -> None:
    now = [100.0]
    log = LogSource(home, here.server, lambda: now[0])

    def seal(numbers: range, pause_s: float = 10.0) -> int:
        write(writer, numbers)
        return log.seal(DEPLOYMENT, "demand", None, pause_s=pause_s)

    first, soon = seal(range(1)), seal(range(1, 5))
    now[0] += 9.9
    not_yet = seal(range(5, 6))
    now[0] += 0.1
    gathered = seal(range(6, 7))
    at_once = seal(range(7, 8), pause_s=0.0)

    assert (1, 0, 0, 6, 1) == (first, soon, not_yet, gathered, at_once)
    assert ids(range(8)) == sealed(here)


def test_very_many_answers_are_not_gathered(
    here: World, home: Home, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "GATHERED_BYTES", 1_000)
    log = LogSource(home, here.server, lambda: 100.0)
    counts = []

    for numbers in (range(1), range(1, 3), range(3, 30)):
        write(writer, numbers)
        counts.append(log.seal(DEPLOYMENT, "demand", None, pause_s=10.0))

    assert [1, 0, 29] == counts


def test_what_comes_while_a_segment_is_sealed_waits_for_the_next_one(
    here: World, home: Home, writer: LogWriter
) -> None:
    numbers = iter(range(1, 50))

    def answer_more(event: Event) -> None:
        if event.verb == "prediction.seal":
            write(writer, range(next(numbers), next(numbers) + 1))

    here.kernel.subscribe(answer_more)
    write(writer, range(1))

    assert 1 == source(here, home).seal(DEPLOYMENT, "demand", None)

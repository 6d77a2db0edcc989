"""The log of a device loses nothing uncounted, whatever ends its process and when."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop.edge.device.journal import BATCH_ROWS, Journal
from everloop.http.guard import MAX_BODY_BYTES

COLUMNS: list[dict[str, Any]] = [{"name": "a", "kind": "numeric", "edges": [0.0, 10.0, 20.0]}]


def row(number: int) -> list[Any]:
    return [f"id-{number}", number, "v1", "ok", float(number), 7, [number % 25]]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    made.learn("v1", COLUMNS)
    yield made
    made.close()


def fill(journal: Journal, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        assert journal.append(row(number))


def test_a_batch_holds_each_row_once_and_the_next_begins_after_it(journal: Journal) -> None:
    fill(journal, 5)
    first = journal.seal()
    assert first is not None
    journal.sent(first)
    fill(journal, 3, first=5)
    second = journal.seal()

    assert second is not None
    assert ([0, 1, 2, 3, 4], [5, 6, 7]) == (
        [line[1] for line in first["rows"]],
        [line[1] for line in second["rows"]],
    )
    assert (1, 2) == (first["number"], second["number"])
    assert (5, 3) == (first["sketches"]["v1"]["answers"], second["sketches"]["v1"]["answers"])


def test_a_batch_that_was_not_sent_comes_again_unchanged(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 5)
    first = journal.seal()
    fill(journal, 2, first=5)

    again = Journal(tmp_path)

    assert first == again.seal() == journal.seal()
    assert first is not None
    again.sent(first)
    rest = again.seal()
    assert rest is not None
    assert 2 == rest["sketches"]["v1"]["answers"]
    again.close()


def test_nothing_new_makes_no_batch(journal: Journal) -> None:
    assert journal.seal() is None
    fill(journal, 1)
    batch = journal.seal()
    assert batch is not None
    journal.sent(batch)
    assert journal.seal() is None


def test_a_crash_after_the_batch_was_written_counts_no_row_twice(
    journal: Journal, tmp_path: Path
) -> None:
    fill(journal, 4)
    # What the disk holds when the process dies right after the batch was written: the batch, and
    # the log and the state from before it.
    journal.standing()
    segment = (tmp_path / "journal.log").read_bytes()
    state = (tmp_path / "folded.json").read_bytes()
    batch = journal.seal()
    assert batch is not None
    (tmp_path / "folded.json").write_bytes(state)
    (tmp_path / "journal-00000001.log").write_bytes(segment)

    after = Journal(tmp_path)
    assert batch == after.seal()
    after.sent(batch)

    assert after.seal() is None
    assert 2 == after.standing()["next_batch"]
    after.close()


def test_a_torn_line_is_counted_and_swallows_no_other(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 3)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'deadbeef ["torn by a po')
    after = Journal(tmp_path)
    fill(after, 2, first=3)

    batch = after.seal()

    assert batch is not None
    assert (5, 1) == (batch["sketches"]["v1"]["answers"], batch["torn"])
    after.close()


def test_a_log_of_nothing_but_torn_lines_is_told_and_forgotten(
    journal: Journal, tmp_path: Path
) -> None:
    (tmp_path / "journal.log").write_bytes(b'deadbeef ["torn by a po')

    batch = journal.seal()

    assert batch is not None
    assert ({}, 1, []) == (batch["sketches"], batch["torn"], batch["rows"])
    journal.sent(batch)
    assert journal.seal() is None
    assert (0, 0) == (journal.standing()["bytes"], journal.standing()["torn"])


def test_a_log_of_nothing_but_ends_of_lines_is_forgotten(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(b"\n\n")

    assert journal.seal() is None
    assert 0 == journal.standing()["bytes"]


def test_a_full_log_drops_bodies_counts_them_and_keeps_the_sketch_exact(tmp_path: Path) -> None:
    journal = Journal(tmp_path, limit_bytes=8_000)
    journal.learn("v1", COLUMNS)
    fill(journal, 1_000)
    size = sum(path.stat().st_size for path in tmp_path.glob("journal*.log"))

    batch = journal.seal()

    assert size <= 10_000
    assert batch is not None
    told = batch["sketches"]["v1"]
    assert 1_000 == told["answers"] == batch["dropped"] + len(batch["rows"])
    assert [40, 400, 400, 160] == [
        *told["columns"]["a"]["counts"], told["columns"]["a"]["above"]
    ]  # fmt: skip
    journal.close()


def test_a_long_time_offline_makes_a_batch_of_bounded_size(journal: Journal) -> None:
    fill(journal, BATCH_ROWS + 100)

    batch = journal.seal()

    assert batch is not None
    assert (BATCH_ROWS, 100) == (len(batch["rows"]), batch["dropped"])


def test_a_batch_of_wide_rows_is_no_larger_than_the_control_plane_takes(journal: Journal) -> None:
    wide = [f"{number:01000}" for number in range(100)]
    for number in range(60):
        assert journal.append([*row(number)[:6], wide])

    batch = journal.seal()

    assert batch is not None
    assert 60 == batch["sketches"]["v1"]["answers"] == batch["dropped"] + len(batch["rows"])
    assert len(batch["rows"]) > 30
    assert len(json.dumps(batch)) < MAX_BODY_BYTES * 0.6


def test_a_disk_that_takes_nothing_is_counted_and_stops_no_answer(
    journal: Journal, tmp_path: Path
) -> None:
    fill(journal, 1)
    os.close(journal._file)
    journal._file = os.open(tmp_path / "journal.log", os.O_RDONLY)

    assert not journal.append(row(1))
    assert 1 == journal.unlogged


def write_many(folder: str, first: int) -> None:
    journal = Journal(Path(folder), limit_bytes=40_000)
    fill(journal, 400, first)
    journal.close()


def test_two_processes_may_write_one_log(tmp_path: Path) -> None:
    Journal(tmp_path).learn("v1", COLUMNS)
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_many, args=(str(tmp_path), first)) for first in (0, 400)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    batch = Journal(tmp_path).seal()

    assert [0, 0] == [writer.exitcode for writer in writers]
    assert batch is not None
    assert (800, 0) == (batch["sketches"]["v1"]["answers"], batch["torn"])

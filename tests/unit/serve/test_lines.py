from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.serve.lines import LogFile, LogWriter, ShadowLine, list_files, read_rows

AT = datetime(2026, 5, 1, tzinfo=UTC)
SHADOW = Id("shadow")
FIRST = "w0-00000001.jsonl"


def row(name: str, *, shadow: bool = False) -> PredictionRow:
    return PredictionRow(
        id=Id(name),
        at=AT,
        logged_at=AT,
        version=Id("v"),
        arm=Arm.CHAMPION,
        share=0.0,
        status=Status.OK,
        latency_us=9,
        inputs={"x": 1.5, "word": "one\ntwo", "none": None},
        output=3.5,
        epoch=1,
        shadow_version=SHADOW if shadow else None,
    )


def answer(name: str, output: float = 4.5) -> ShadowLine:
    return ShadowLine(
        id=Id(name), shadow_version=SHADOW, shadow_output=output, shadow_status=Status.OK
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogWriter]:
    writer = LogWriter(tmp_path)
    yield writer
    writer.close()


def names(folder: Path, *, name: str = FIRST, offset: int = 0) -> list[str]:
    return [str(found.id) for found in read_rows(folder, name, offset).rows]


def test_rows_come_back_as_they_were(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a"), row("b")])

    assert [row("a"), row("b")] == read_rows(tmp_path, FIRST).rows


def test_reading_goes_on_where_it_ended(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a")])
    seen = read_rows(tmp_path, FIRST)
    log.append([row("b")])

    assert ["b"] == names(tmp_path, offset=seen.next_offset)


def test_a_row_waits_for_its_shadow_and_is_read_once_with_it(
    tmp_path: Path, log: LogWriter
) -> None:
    log.append([row("a")])
    file = log.append([row("b", shadow=True)], awaited=1)
    log.append([row("c")])
    before = read_rows(tmp_path, FIRST)
    log.append_shadow(file, [answer("b")])

    after = read_rows(tmp_path, FIRST, before.next_offset)

    assert [Id("a")] == [found.id for found in before.rows]
    assert [(Id("b"), 4.5), (Id("c"), None)] == [
        (found.id, found.shadow_output) for found in after.rows
    ]
    assert [] == read_rows(tmp_path, FIRST, after.next_offset).rows


def test_a_lost_shadow_is_settled_by_a_later_one(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a", shadow=True)], awaited=1)
    file = log.append([row("b", shadow=True)], awaited=1)
    log.append_shadow(file, [answer("b")])

    assert [None, 4.5] == [found.shadow_output for found in read_rows(tmp_path, FIRST).rows]


def test_after_a_restart_nothing_waits_any_more(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a", shadow=True)], awaited=1)
    assert [] == names(tmp_path)

    LogWriter(tmp_path).close()

    chunk = read_rows(tmp_path, FIRST)
    assert ([Id("a")], True) == ([found.id for found in chunk.rows], chunk.is_finished)
    assert [FIRST, "w0-00000002.jsonl"] == [found.name for found in list_files(tmp_path)]


def test_a_torn_last_line_is_passed_over(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a"), row("b")])
    whole = (tmp_path / FIRST).read_bytes()
    (tmp_path / FIRST).write_bytes(whole[:-10])

    assert ["a"] == names(tmp_path)


def test_a_long_file_is_read_in_pieces_without_loss(tmp_path: Path, log: LogWriter) -> None:
    log.append([row(f"{place:04}") for place in range(200)])

    found: list[str] = []
    offset = 0
    while chunk := read_rows(tmp_path, FIRST, offset, limit_bytes=2_000):
        found += [str(it.id) for it in chunk.rows]
        if chunk.next_offset == offset:
            break
        offset = chunk.next_offset

    assert [f"{place:04}" for place in range(200)] == found


def test_a_shadow_that_answers_far_behind_its_row_stops_nothing(
    tmp_path: Path, log: LogWriter
) -> None:
    file = log.append([row("a", shadow=True)], awaited=1)
    log.append([row(f"{place:04}") for place in range(100)])
    log.append_shadow(file, [answer("a")])

    found = read_rows(tmp_path, FIRST, limit_bytes=1_000).rows

    assert ("a", 4.5) == (found[0].id, found[0].shadow_output)


def test_a_line_of_somebody_else_is_found(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a")])
    with (tmp_path / FIRST).open("ab") as file:
        file.write(b'{"id": "b", "output": "forged"}\n')

    with pytest.raises(IntegrityError) as refused:
        read_rows(tmp_path, FIRST)

    assert "prediction_log.corrupt" == refused.value.code


def test_a_full_file_is_followed_by_a_new_one_and_late_shadows_find_theirs(
    tmp_path: Path,
) -> None:
    log = LogWriter(tmp_path, rotate_bytes=100)
    old = log.append([row("a", shadow=True)], awaited=1)
    log.append([row("b")])
    log.append_shadow(old, [answer("a")])
    log.close()

    assert 4.5 == read_rows(tmp_path, FIRST).rows[0].shadow_output
    assert ["b"] == names(tmp_path, name="w0-00000002.jsonl")


def test_a_write_that_the_disk_takes_half_of_leaves_no_torn_line(tmp_path: Path) -> None:
    file = LogFile(tmp_path / FIRST)
    file.write(b'{"whole": 1}\n')
    # A file size limit makes the kernel take a part of a write, as a full disk does.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.size + 5, hard))
    try:
        with pytest.raises(OSError, match="short write"):
            file.write(b'{"torn": 1}\n')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.write(b'{"next": 1}\n')
    os.close(file.descriptor)

    assert b'{"whole": 1}\n{"next": 1}\n' == (tmp_path / FIRST).read_bytes()


def test_close_is_idempotent(tmp_path: Path) -> None:
    log = LogWriter(tmp_path)
    log.close()
    log.close()


def test_a_line_is_plain_json_for_other_readers(tmp_path: Path, log: LogWriter) -> None:
    log.append([row("a")])

    line = msgspec.json.decode((tmp_path / FIRST).read_bytes())

    assert ("2026-05-01T00:00:00Z", "champion", 3.5) == (line["at"], line["arm"], line["output"])

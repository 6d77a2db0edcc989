"""The writer of the prediction log: what is written is read, whatever became of the writer."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from everloop.core.ids import Id
from everloop.core.wire import Arm, Scalar, Status
from everloop.serve.log import Block, Chunk, LogWriter, Source, list_files, read_rows

FIRST = bytes.fromhex("0190a0000000700080000000000a0000")


def source(**changes: object) -> Source:
    given = {
        "version": Id("v1"),
        "arm": Arm.CHAMPION,
        "share": 0.25,
        "epoch": 3,
        "names": ("age", "city"),
    }
    return Source(**(given | changes))  # type: ignore[arg-type]


def block(origin: Source, *rows: tuple[Scalar, ...], **changes: object) -> Block:
    given: dict[str, object] = {
        "source": origin,
        "first": FIRST,
        "rows": len(rows),
        "at_us": 1_700_000_000_000_001,
        "logged_us": 1_700_000_000_500_000,
        "latency_us": 12,
        "values": rows,
        "outputs": [float(place) for place in range(len(rows))],
    }
    return Block(**(given | changes))  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogWriter]:
    with closing(LogWriter(tmp_path)) as made:
        yield made


def read_all(folder: Path) -> Chunk:
    (found,) = list_files(folder)
    return read_rows(folder, found.name)


def test_a_request_is_read_as_one_row_each_with_ids_that_count_up(
    log: LogWriter, tmp_path: Path
) -> None:
    asked = block(source(), (41, "Oslo"), (None, "Bergen"), unit="ann", keys=("a", "b"))

    assert log.append(asked)

    one, two = read_all(tmp_path).rows
    assert ("0190a000-0000-7000-8000-0000000a0000", "0190a000-0000-7000-8000-0000000a0001") == (
        one.id,
        two.id,
    )
    assert {"age": 41, "city": "Oslo"} == one.inputs
    assert {"age": None, "city": "Bergen"} == two.inputs
    assert (0.0, 1.0) == (one.output, two.output)
    assert ("a", "b", "ann") == (one.key, two.key, two.unit)
    assert 1_700_000_000.000001 == one.at.timestamp()


def test_a_matrix_is_read_in_the_types_of_the_signature(log: LogWriter, tmp_path: Path) -> None:
    origin = source(names=("n", "yes", "x"), dtypes=("int64", "bool", "float64"))
    values = np.array([[7.0, 1.0, 0.5], [np.nan, 0.0, np.nan]])

    log.append(block(origin, (), (), values=values, outputs=np.array([1.5, np.nan])))

    one, two = read_all(tmp_path).rows
    assert {"n": 7, "yes": True, "x": 0.5} == one.inputs
    assert {"n": None, "yes": False, "x": None} == two.inputs
    assert (1.5, None) == (one.output, two.output)


@pytest.mark.parametrize("is_matrix", [True, False])
def test_masked_inputs_never_reach_the_file(
    is_matrix: bool, log: LogWriter, tmp_path: Path
) -> None:
    origin = source(names=("age", "income", "city"), masked=frozenset({"income"}))
    values = np.array([[41.0, 123456.789, 3.0]]) if is_matrix else [(41, "secret", 3)]

    log.append(block(origin, (), values=values))

    assert {"age": 41, "city": 3} == read_all(tmp_path).rows[0].inputs
    data = (tmp_path / list_files(tmp_path)[0].name).read_bytes()
    assert b"secret" not in data
    assert np.float64(123456.789).tobytes() not in data


def test_the_shadow_and_the_fallback_stand_beside_the_answer(
    log: LogWriter, tmp_path: Path
) -> None:
    origin = source(fallback_version=Id("v0"), shadow_version=Id("v2"))
    asked = block(
        origin,
        (1, "a"),
        (2, "b"),
        statuses=bytes([0, 2]),
        fallback=np.array([np.nan, 9.0]),
        has_shadow=True,
    )
    log.append(asked)
    assert [] == read_all(tmp_path).rows  # its shadow may still answer

    log.append_shadow(FIRST, [4.0, float("inf")], bytes([0, 2]))

    one, two = read_all(tmp_path).rows
    assert (None, None, Status.OK) == (one.fallback_version, one.fallback_output, one.status)
    assert ("v0", 9.0, Status.INVALID) == (two.fallback_version, two.fallback_output, two.status)
    assert ("v2", 4.0, Status.OK) == (one.shadow_version, one.shadow_output, one.shadow_status)
    assert (None, Status.INVALID) == (two.shadow_output, two.shadow_status)


def test_the_inputs_of_a_share_of_requests_are_kept_and_all_else_of_all(
    log: LogWriter, tmp_path: Path
) -> None:
    origin = source(sample=0.5)
    chance = np.random.default_rng(7)
    for _ in range(400):
        first = FIRST[:8] + b"\x80" + chance.bytes(5) + b"\0\0"
        log.append(block(origin, (41, "Oslo"), first=first))

    rows = read_all(tmp_path).rows

    kept = [row for row in rows if row.inputs]
    assert 400 == len(rows) == sum(row.output == 0.0 for row in rows)
    assert 140 < len(kept) < 260
    assert all({"age": 41, "city": "Oslo"} == row.inputs for row in kept)


def test_answers_of_several_numbers_are_read_as_such(log: LogWriter, tmp_path: Path) -> None:
    origin = source(outputs=("cat", "dog", "owl"))
    outputs = np.array([[0.1, 0.2, 0.7], [1.0, np.nan, 0.0]])

    log.append(block(origin, (1, "a"), (2, "b"), outputs=outputs))

    one, two = read_all(tmp_path).rows
    assert (None, (0.1, 0.2, 0.7)) == (one.output, one.outputs)
    assert (1.0, None, 0.0) == two.outputs


def test_when_space_is_out_answers_are_dropped_counted_and_told_later(tmp_path: Path) -> None:
    origin = source()
    with closing(LogWriter(tmp_path, file_bytes=2_000, max_bytes=7_000)) as log:
        kept = [log.append(block(origin, (41, "Oslo"))) for _ in range(50)]
        dropped = log.dropped
        assert 50 == sum(kept) + dropped
        assert 0 < dropped
        log.sync()
        (full,) = list_files(tmp_path)
        (tmp_path / full.name).unlink()  # as the one does who has sealed it
        log.try_again()

        assert log.append(block(origin, (41, "Oslo")))

        found = read_all(tmp_path)
        assert (1, dropped) == (len(found.rows), found.dropped)


def test_what_can_not_be_written_is_dropped_and_the_answer_lives(
    log: LogWriter, tmp_path: Path
) -> None:
    assert not log.append(block(source(), (2**70, "a")))
    assert not log.append(block(source(), (1, "\ud800")))
    assert log.append(block(source(), (1, "a")))

    assert 2 == log.dropped
    assert [{"age": 1, "city": "a"}] == [row.inputs for row in read_all(tmp_path).rows]


def test_files_follow_each_other_and_no_row_is_lost_or_read_twice(tmp_path: Path) -> None:
    one, two = source(), source(epoch=4, names=("x",))
    with closing(LogWriter(tmp_path, file_bytes=3_000)) as log:
        for number in range(200):
            origin, row = (one, (number, "a")) if number % 3 else (two, (number,))
            assert log.append(block(origin, row, outputs=[float(number)]))

    files = list_files(tmp_path)
    rows = [row for file in files for row in read_rows(tmp_path, file.name).rows]
    assert len(files) > 5
    assert [float(number) for number in range(200)] == [row.output for row in rows]
    assert {3, 4} == {row.epoch for row in rows}


@pytest.mark.parametrize("at_once", [1, 2, 7, 40])
def test_blocks_written_together_read_as_if_each_came_alone(tmp_path: Path, at_once: int) -> None:
    one, two = source(), source(epoch=4, names=("x",))
    blocks = [
        block(one, (number, "a"), outputs=[float(number)])
        if number % 3
        else block(two, (number,), outputs=[float(number)])
        for number in range(200)
    ]
    with closing(LogWriter(tmp_path, file_bytes=3_000)) as log:
        for start in range(0, 200, at_once):
            assert all(log.append_all(blocks[start : start + at_once]))
        assert 200 == log.written

    rows = [row for file in list_files(tmp_path) for row in read_rows(tmp_path, file.name).rows]
    assert [float(number) for number in range(200)] == [row.output for row in rows]
    assert {3, 4} == {row.epoch for row in rows}


def test_what_can_not_be_written_takes_nothing_of_its_turn_away(
    log: LogWriter, tmp_path: Path
) -> None:
    origin = source()
    log.append(block(origin, (0, "a")))

    kept = log.append_all([block(origin, (1, "a")), block(origin, (2, "\ud800"))] * 2)

    assert [True, False, True, False] == kept
    assert (3, 2) == (log.written, log.dropped)
    assert [0, 1, 1] == [row.inputs["age"] for row in read_all(tmp_path).rows]


def test_a_reader_in_the_middle_of_a_file_knows_the_sources(tmp_path: Path) -> None:
    with closing(LogWriter(tmp_path)) as log:
        for number in range(20):
            log.append(block(source(), (number, "a")))
        (found,) = list_files(tmp_path)
        ages: list[Scalar] = []
        offset = 0
        for _ in range(40):
            chunk = read_rows(tmp_path, found.name, offset, limit_bytes=1)
            ages += [row.inputs["age"] for row in chunk.rows]
            offset = chunk.next_offset

    assert list(range(20)) == ages


def test_a_shadow_that_answers_after_its_file_is_full_is_not_missed(tmp_path: Path) -> None:
    origin = source(shadow_version=Id("v2"))
    first = [FIRST[:14] + bytes([number, 0]) for number in range(40)]
    with closing(LogWriter(tmp_path, file_bytes=2_000)) as log:
        for each in first:
            log.append(block(origin, (1, "a"), first=each, has_shadow=True))
        assert len(list_files(tmp_path)) > 2
        for each in first:
            assert log.append_shadow(each, [4.0])

    files = list_files(tmp_path)
    rows = [row for file in files for row in read_rows(tmp_path, file.name).rows]
    assert [4.0] * 40 == [row.shadow_output for row in rows]


def test_when_all_inputs_are_masked_the_answers_are_read_all_the_same(
    log: LogWriter, tmp_path: Path
) -> None:
    origin = source(names=("x",), dtypes=("float64",), masked=frozenset({"x"}))

    log.append(block(origin, (), (), values=np.array([[1.0], [2.0]])))

    assert [({}, 0.0), ({}, 1.0)] == [(row.inputs, row.output) for row in read_all(tmp_path).rows]

"""A spool loses at most its unfinished tail, whatever was done to the file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from everloop.core.errors import Conflict, IntegrityError
from everloop.track.frames import MAGIC, Described, Frame, Points, decode_frames, encode_frame
from everloop.track.ring import pack_points, split_points
from everloop.track.spool import Spool


def frames(count: int) -> list[Frame]:
    return [
        pack_points("loss", [index], [index], [index / 3])
        if index % 2
        else Described(params={"a": str(index)}, tags={})
        for index in range(count)
    ]


def write(path: Path, items: list[Frame]) -> list[int]:
    ends = []
    spool = Spool(path)
    for item in items:
        spool.append(encode_frame(item))
        ends.append(path.stat().st_size)
    spool.close()
    return ends


def read(path: Path) -> list[Frame]:
    spool = Spool(path)
    found = [frame for frame, _ in spool.read(0)]
    spool.close()
    return found


def test_every_cut_leaves_the_frames_before_it(tmp_path: Path) -> None:
    path = tmp_path / "run.spool"
    items = frames(4)
    ends = write(path, items)
    whole = path.read_bytes()

    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert [item for item, end in zip(items, ends, strict=True) if end <= cut] == read(path)
        assert path.stat().st_size == max([len(MAGIC), *(end for end in ends if end <= cut)])


def test_a_changed_byte_ends_the_sound_part(tmp_path: Path) -> None:
    path = tmp_path / "run.spool"
    items = frames(4)
    ends = write(path, items)
    whole = bytearray(path.read_bytes())

    for position in range(ends[0], ends[1]):
        broken = whole.copy()
        broken[position] ^= 0x40
        path.write_bytes(broken)
        assert items[:1] == read(path)


def test_writing_goes_on_behind_the_sound_part(tmp_path: Path) -> None:
    path = tmp_path / "run.spool"
    items = frames(3)
    write(path, items)
    path.write_bytes(path.read_bytes()[:-1])

    write(path, items[2:])

    assert items == read(path)


def test_a_frame_larger_than_the_reading_window_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.spool"
    items: list[Frame] = [Described(params={"a": "x" * 6_000_000}, tags={}), *frames(2)]
    write(path, items)

    assert items == read(path)


def test_a_live_spool_belongs_to_its_writer(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "run.spool")

    with pytest.raises(Conflict) as refused:
        Spool(tmp_path / "run.spool")

    assert "spool.in_use" == refused.value.code
    spool.close()
    Spool(tmp_path / "run.spool").close()


def test_a_foreign_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.spool"
    path.write_bytes(b"something else entirely, and not ours")

    with pytest.raises(IntegrityError):
        Spool(path)

    assert b"something else entirely, and not ours" == path.read_bytes()


def test_nan_and_infinity_pass_through_a_frame_exactly() -> None:
    frame = pack_points("k", [1, -(2**63)], [1_763_745_133_123_457, 2], [math.nan, -math.inf])

    ((back, _),) = decode_frames(encode_frame(frame))

    assert isinstance(back, Points)
    ((key, points),) = split_points(back)
    assert ("k", [1, -(2**63)], [1_763_745_133_123_457, 2], "[nan, -inf]") == (
        key, points.steps.tolist(), points.times_us.tolist(), repr(points.values.tolist()),
    )  # fmt: skip


def test_the_folder_and_the_file_are_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool" / "run.spool")
    spool.close()

    assert 0o700 == (tmp_path / "spool").stat().st_mode & 0o777
    assert 0o600 == (tmp_path / "spool" / "run.spool").stat().st_mode & 0o777
